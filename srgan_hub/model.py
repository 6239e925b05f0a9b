"""The Hub-compatible model: `SRGAN.from_pretrained("org/srgan-x4").upscale("image.png")`."""

import copy
import tempfile
from pathlib import Path
from typing import Any, overload

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from huggingface_hub.constants import REPOCARD_NAME
from PIL import Image
from torch import Tensor, nn

from . import hub
from .model_card import LIBRARY_NAME, PIPELINE_TAG, TAGS, create_model_card, load_card_text, set_weights_sha256
from .network.generator import build_generator
from .resize import SizeLike
from .upscaler import Array, ProgressCallback, Upscaler


class SRGAN(nn.Module, PyTorchModelHubMixin, library_name=LIBRARY_NAME, pipeline_tag=PIPELINE_TAG, tags=[*TAGS]):
    """The SRGAN generator (Ledig et al. 2016, https://arxiv.org/abs/1609.04802) as a model of the Hugging Face Hub.

    Args:
        scale: 2, 3 or 4.
        channels: feature maps of the trunk.
        num_blocks: residual blocks of the trunk.
        upsampler: "pixelshuffle" as in the paper, or "nearest".
        trunk_end: "batchnorm" as in the paper, or "prelu".
        output_activation: "sigmoid" as in the paper, or "clamp".

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
        output_activation: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.scale = scale
        # Not by `self.config`: the mixin leaves out what JSON does not hold.
        self.generator = build_generator(
            scale=scale,
            channels=channels,
            num_blocks=num_blocks,
            upsampler=upsampler,
            trunk_end=trunk_end,
            output_activation=output_activation,
        )

    @property
    def config(self) -> dict[str, int | str]:
        """The arguments that build this model, as config.json holds them."""
        return dict(self._hub_mixin_config)  # type: ignore[arg-type]

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch: (N, 3, H, W) in [0, 1] -> (N, 3, H * scale, W * scale) in [0, 1], RGB, any size from 1x1.

        This runs the network as it is trained, on the whole images at once; `upscale` is faster and takes less
        memory.
        """
        return self.generator(lr)

    def upscaler(
        self,
        *,
        detail: float | None = None,
        dtype: str = "auto",
        device: str | torch.device = "auto",
        strip_height: int | None = None,
        backend: str = "auto",
    ) -> Upscaler:
        """Prepare for many images.

        Args:
            detail: mix this model with the bundled "srresnet-x4-photo", which it should have been fine-tuned from:
                0 is faithful, 1 is this model. None is this model too.
            precision, device, strip, backend: as for `Upscaler`.

        Raises:
            ValueError: an option is out of its range, or the architectures differ.
        """
        model = self if detail is None else SRGAN.interpolate(SRGAN.from_pretrained(hub.FIDELITY_MODEL), self, detail)
        return Upscaler(
            model.generator, scale=self.scale, dtype=dtype, device=device, strip_height=strip_height, backend=backend
        )

    @overload
    def upscale(
        self,
        image: str | Path | Image.Image,
        *,
        size: SizeLike | None = None,
        progress: ProgressCallback | None = None,
        detail: float | None = None,
        dtype: str = "auto",
        device: str | torch.device = "auto",
        strip_height: int | None = None,
        backend: str = "auto",
    ) -> Image.Image: ...

    @overload
    def upscale(
        self,
        image: Array,
        *,
        size: SizeLike | None = None,
        progress: ProgressCallback | None = None,
        detail: float | None = None,
        dtype: str = "auto",
        device: str | torch.device = "auto",
        strip_height: int | None = None,
        backend: str = "auto",
    ) -> Array: ...

    def upscale(
        self,
        image: Any,
        *,
        size: SizeLike | None = None,
        progress: ProgressCallback | None = None,
        detail: float | None = None,
        dtype: str = "auto",
        device: str | torch.device = "auto",
        strip_height: int | None = None,
        backend: str = "auto",
    ) -> Any:
        """Upscale one image; see `Upscaler.upscale` for the kinds, and `upscaler` for the options."""
        upscaler = self.upscaler(detail=detail, dtype=dtype, device=device, strip_height=strip_height, backend=backend)
        return upscaler.upscale(image, size=size, progress=progress)

    @staticmethod
    def interpolate(model_a: "SRGAN", model_b: "SRGAN", alpha: float) -> "SRGAN":
        """Mix two models of one architecture, of which one was fine-tuned from the other, weight by weight.

        Args:
            model_a, model_b: the models; they stay as they are.
            alpha: from 0, which is `model_a`, to 1, which is `model_b`.

        Returns:
            A model of its own, in evaluation mode, on the device of `model_a`.

        Raises:
            ValueError: the architectures differ, or the amount is not from 0 to 1.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"Expected an amount (detail) from 0 to 1, got {alpha}.")
        if model_a.config != model_b.config:
            differ = [name for name in model_a.config if model_a.config[name] != model_b.config[name]]
            raise ValueError(
                "expected two models of one architecture, got "
                + " and ".join(
                    ", ".join(f"{name} {model.config[name]}" for name in differ) for model in (model_a, model_b)
                )
            )
        mixed, other = copy.deepcopy(model_a), model_b.state_dict()
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(tensor.lerp(other[name].to(tensor.device), alpha))
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
            token, cache_dir, local_files_only, force_download: as in `huggingface_hub.snapshot_download`.

        Raises:
            ModelLoadError: nothing is found, config or weights are not exactly this model's, or the weights are not
                those that the folder's card states; the message says what is missing or unexpected.
        """
        folder = hub.resolve_model_path(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        config, generator = hub.load_generator(folder)
        with torch.device("meta"):  # its own generator is replaced at once
            model = cls(**config)
        model.generator = generator
        return model.eval()

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, model_card_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Save config.json, model.safetensors and the card; one that is there stays, but for its line with the hash.

        Args:
            save_directory: the folder; made if it is missing.
            model_card_kwargs: as for `srgan_hub.model_card.create_model_card`.
        """
        super().save_pretrained(save_directory, model_card_kwargs=model_card_kwargs)
        card, weights = Path(save_directory, REPOCARD_NAME), Path(save_directory, hub.WEIGHTS)
        card.write_text(set_weights_sha256(load_card_text(card.parent), weights), encoding="utf-8", newline="\n")

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        private: bool = False,
        revision: str | None = None,
        tag: str | None = None,
        token: str | None = None,
        overwrite_card: bool = False,
        endpoint: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Publish this model as `srgan_hub.hub.push` does a folder: a card that is on the Hub stays.

        `model_card_kwargs` are those of `srgan_hub.model_card.create_model_card`, for a new card.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, model_card_kwargs={"name": repo_id, **(model_card_kwargs or {})})
            return hub.push_folder(
                Path(folder),
                repo_id,
                private=private,
                revision=revision,
                tag=tag,
                token=token,
                overwrite_card=overwrite_card,
                endpoint=endpoint,
            )

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Render the card from `model_card.md`; keyword arguments as in `srgan_hub.model_card.create_model_card`."""
        return create_model_card(self.config, **kwargs)
