"""The Hub-compatible model: ``SRGAN.from_pretrained("org/srgan-x4").upscale("picture.png")``."""

import copy
import inspect
import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin
from huggingface_hub.constants import REPOCARD_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .card import (
    LIBRARY_NAME,
    PIPELINE_TAG,
    TAGS,
    WEIGHTS_HASH,
    file_sha256,
    make_card,
    read_card,
    read_value,
    state_weights,
)
from .names import CONFIG, FAITHFUL, WEIGHTS, ModelError, resolve
from .network.generator import build_generator
from .upscaler import Progress, Upscaler


class SRGAN(nn.Module, PyTorchModelHubMixin, library_name=LIBRARY_NAME, pipeline_tag=PIPELINE_TAG, tags=[*TAGS]):
    """The SRGAN generator (Ledig et al. 2016, https://arxiv.org/abs/1609.04802) as a model of the Hugging Face Hub.

    Args:
        scale: 2, 3 or 4.
        channels: feature maps of the trunk.
        num_blocks: residual blocks of the trunk.
        upsampler: "pixelshuffle" as in the paper, or "nearest".
        trunk_end: "batchnorm" as in the paper, or "prelu".
        output: "sigmoid" as in the paper, or "clamp".

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 64,
        num_blocks: int = 16,
        upsampler: str = "pixelshuffle",
        trunk_end: str = "batchnorm",
        output: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.generator = build_generator(
            scale=scale,
            channels=channels,
            num_blocks=num_blocks,
            upsampler=upsampler,
            trunk_end=trunk_end,
            output=output,
        )

    @property
    def config(self) -> dict[str, int | str]:
        """The arguments that build this model, as config.json holds them."""
        return dict(self._hub_mixin_config)  # type: ignore[arg-type]

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge a batch: (N, 3, H, W) in [0, 1] -> (N, 3, H * scale, W * scale) in [0, 1], RGB, any size from 1x1.

        This runs the network as it is trained, on the whole pictures at once; ``upscale`` is faster and takes less
        memory.
        """
        return self.generator(lr)

    def upscaler(self, *, detail: float | None = None, **options: Any) -> Upscaler:
        """Prepare for many pictures.

        Args:
            detail: mix this model with the bundled "srresnet-x4-photo", which it should have been fine-tuned from:
                0 is faithful, 1 is this model. None is this model too.
            options: of ``Upscaler``: precision, device, band.

        Raises:
            ValueError: an option is out of its range, or the architectures differ.
        """
        model = self if detail is None else SRGAN.interpolate(SRGAN.from_pretrained(FAITHFUL), self, detail)
        return Upscaler(model.generator, scale=self.scale, **options)

    def upscale(self, picture: Any, *, progress: Progress | None = None, **options: Any) -> Any:
        """Enlarge one picture; see ``Upscaler.upscale`` for the kinds, and ``upscaler`` for the options."""
        return self.upscaler(**options).upscale(picture, progress=progress)

    @staticmethod
    def interpolate(a: "SRGAN", b: "SRGAN", amount: float) -> "SRGAN":
        """Mix two models of one architecture, of which one was fine-tuned from the other, weight by weight.

        Args:
            a, b: the models; they stay as they are.
            amount: from 0, which is ``a``, to 1, which is ``b``.

        Returns:
            A model of its own, in evaluation mode, on the device of ``a``.

        Raises:
            ValueError: the architectures differ, or the amount is not from 0 to 1.
        """
        if not 0 <= amount <= 1:
            raise ValueError(f"expected an amount (detail) from 0 to 1, got {amount}")
        if a.config != b.config:
            differ = [name for name in a.config if a.config[name] != b.config[name]]
            raise ValueError(
                "expected two models of one architecture, got "
                + " and ".join(", ".join(f"{name} {model.config[name]}" for name in differ) for model in (a, b))
            )
        mixed, other = copy.deepcopy(a), b.state_dict()
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(tensor.lerp(other[name].to(tensor.device), amount))
        return mixed.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "SRGAN":
        """Load a model in evaluation mode, on the CPU. Reads config.json and safetensors only, never a pickle.

        Args:
            pretrained_model_name_or_path: an existing folder, a bundled name ("srgan-x4") or a Hub id ("org/name").
            revision: branch, tag or commit on the Hub.
            token, cache_dir, local_files_only, force_download: as in ``huggingface_hub.hf_hub_download``.

        Raises:
            ModelError: nothing is found, config or weights are not exactly this model's, or the weights are not those
                that the folder's card states; the message says what is missing or unexpected.
        """
        folder = resolve(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        config = cls._read_config(folder / CONFIG)
        try:
            model = cls(**config)
        except ValueError as error:
            raise ModelError(f"{folder / CONFIG}: {error}") from error
        model._load_weights(folder / WEIGHTS)
        stated = read_value(read_card(folder), WEIGHTS_HASH)
        if stated and stated != (got := file_sha256(folder / WEIGHTS)):
            raise ModelError(
                f"{folder / WEIGHTS} is not what its card states: expected SHA-256 {stated}, got {got}; fetch it "
                f"again, or, if you changed it yourself, delete the line {WEIGHTS_HASH} from {REPOCARD_NAME}"
            )
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Save config.json, model.safetensors and the card; one that is there stays, but for its line with the hash.

        Options are the mixin's; its ``model_card_kwargs`` are those of ``srgan_hub.card.make_card``.
        """
        url = super().save_pretrained(save_directory, **options)
        card, weights = Path(save_directory, REPOCARD_NAME), Path(save_directory, WEIGHTS)
        card.write_text(state_weights(read_card(card.parent), weights), encoding="utf-8", newline="\n")
        return url

    @classmethod
    def _read_config(cls, file: Path) -> dict[str, Any]:
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(f"{file} is missing: a model's folder holds {CONFIG} and {WEIGHTS}") from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{file} cannot be read as JSON: {error}") from error
        expected = list(inspect.signature(cls.__init__).parameters)[1:]
        got = list(config) if isinstance(config, dict) else [f"a {type(config).__name__}"]
        _compare(file, "option", expected, got)
        return config

    def _load_weights(self, file: Path) -> None:
        try:
            weights = load_file(file)
        except FileNotFoundError:
            raise ModelError(f"{file} is missing: only safetensors are loaded, never pickles") from None
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read as safetensors: {error}") from error
        expected = self.state_dict()
        _compare(file, "tensor", list(expected), list(weights))
        for name, tensor in expected.items():
            if weights[name].shape != tensor.shape:
                raise ModelError(
                    f"{file}: {name} has shape {tuple(weights[name].shape)}, "
                    f"but {CONFIG} makes it {tuple(tensor.shape)}"
                )
        self.load_state_dict(weights)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Render the card from ``model_card.md``; keyword arguments as in ``srgan_hub.card.make_card``."""
        return make_card(self.config, **kwargs)


def _compare(file: Path, kind: str, expected: list[str], got: list[str]) -> None:
    parts = []
    for verdict, names in (
        ("is missing", [name for name in expected if name not in got]),
        ("is unexpected", [name for name in got if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            parts.append(f"{kind} {', '.join(names[:4])}{more} {verdict}")
    if parts:
        raise ModelError(f"{file} is not of this model: {'; '.join(parts)}")
