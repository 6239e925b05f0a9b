"""`SRGAN`: the generator as an `nn.Module` with Hub integration (`from_pretrained`, `push_to_hub`)."""

import copy
import inspect
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from huggingface_hub.constants import REPOCARD_NAME
from PIL import Image
from torch import Tensor, nn

from . import hub
from .images.tensors import Alpha, Wrap
from .model_card import (
    LIBRARY_NAME,
    PIPELINE_TAG,
    TAGS,
    WEIGHTS_HASH,
    create_model_card,
    file_sha256,
    load_card_text,
    set_weights_sha256,
)
from .network.generator import build_generator
from .progress import ProgressCallback
from .publish import push_folder
from .resize import SizeLike
from .upscaler import Array, CallOptions, Upscaler, UpscalerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

Self = TypeVar("Self", bound="SRGAN")


class UpscaleOptions(UpscalerOptions, CallOptions, total=False):
    """Keyword arguments of `SRGAN.upscale`."""

    detail: float | None


class SRGAN(nn.Module, PyTorchModelHubMixin, library_name=LIBRARY_NAME, pipeline_tag=PIPELINE_TAG, tags=[*TAGS]):
    """The SRGAN generator (Ledig et al. 2016, https://arxiv.org/abs/1609.04802); the defaults are the paper's.

    Subclasses may add layers and constructor options; both are saved and loaded.

    Args:
        scale: Upscaling factor: 2, 3 or 4.
        channels, num_blocks: Channels and residual blocks of the trunk.
        upsampler: "pixelshuffle" (sub-pixel convolution), or "nearest", which repeats pixels.
        trunk_end: What follows the trunk's last convolution: "batchnorm", or "prelu", for some older weights.
        output_activation: "sigmoid", or "clamp", which has no gradient outside [0, 1].

    Raises:
        ValueError: An option is out of range.
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
        options: dict[str, Any] = {"scale": scale, "channels": channels, "num_blocks": num_blocks}
        options |= {"upsampler": upsampler, "trunk_end": trunk_end, "output_activation": output_activation}
        self.generator = build_generator(**options)
        # The mixin does not see what a subclass sets, or passes on as **kwargs.
        self._hub_mixin_config = {**self.config, **options}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as saved in config.json."""
        assert isinstance(self._hub_mixin_config, dict)
        return {**self._hub_mixin_config}

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch: (N, 3, H, W) RGB in [0, 1] -> (N, 3, H * scale, W * scale) in [0, 1], any size from 1x1.

        This runs the training network on whole images; `upscale` is faster and needs less memory.
        """
        return self.generator(lr)

    def upscaler(self, *, detail: float | None = None, **options: "Unpack[UpscalerOptions]") -> Upscaler:
        """Prepare an `Upscaler`, to upscale many images.

        Args:
            detail: Interpolate between the bundled "srresnet-x4-photo" (0, fidelity), which each call loads, and this
                model (1, perceptual), which should have been fine-tuned from it. None is this model alone.
            options: `dtype`, `device`, `strip_height` and `backend`, as for `Upscaler`.

        Raises:
            ValueError: An option is out of range, or the configs of the two models differ.
        """
        model = self
        if detail is not None:
            if not 0 <= detail <= 1:
                raise ValueError(f"`detail` must be in [0, 1], got {detail}.")
            model = SRGAN.interpolate(SRGAN.from_pretrained(hub.FIDELITY_MODEL), self, detail)
        return Upscaler(model.generator, scale=self.scale, **options)

    @overload
    def upscale(self, image: str | Path | Image.Image, **options: "Unpack[UpscaleOptions]") -> Image.Image: ...
    @overload
    def upscale(self, image: Array, **options: "Unpack[UpscaleOptions]") -> Array: ...
    def upscale(
        self,
        image: Any,
        *,
        size: SizeLike | None = None,
        wrap: Wrap | None = None,
        alpha: Alpha = "opacity",
        progress: ProgressCallback | None = None,
        detail: float | None = None,
        **options: "Unpack[UpscalerOptions]",
    ) -> Any:
        """Upscale one image; see `Upscaler.upscale` for inputs and outputs, and `upscaler` for the options."""
        upscaler = self.upscaler(detail=detail, **options)
        return upscaler.upscale(image, size=size, wrap=wrap, alpha=alpha, progress=progress)

    @staticmethod
    def interpolate(model_a: "SRGAN", model_b: "SRGAN", alpha: float) -> "SRGAN":
        """Return a model with the weights `(1 - alpha) * model_a + alpha * model_b`, for `alpha` in [0, 1].

        One of the two should have been fine-tuned from the other. The result is in evaluation mode, on the device of
        `model_a`.

        Raises:
            ValueError: The configs differ, or `alpha` is not in [0, 1].
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be in [0, 1], got {alpha}.")
        config_a, config_b = model_a.config, model_b.config
        if config_a != config_b:
            differing = [key for key in {**config_a, **config_b} if config_a.get(key) != config_b.get(key)]
            sides = (", ".join(f"{key}={config.get(key)}" for key in differing) for config in (config_a, config_b))
            raise ValueError(f"Cannot interpolate models with different configs: {' vs. '.join(sides)}.")
        result, other = copy.deepcopy(model_a), model_b.state_dict()
        for name, tensor in result.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(tensor.lerp(other[name].to(tensor), alpha))
        return result.eval()

    # Overridden since the mixin knows no bundled names, and could fetch config and weights from two commits.
    @classmethod
    def from_pretrained(
        cls: type[Self],
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a model in evaluation mode, from config.json and model.safetensors, never from a pickle.

        Args:
            pretrained_model_name_or_path: A local directory, a bundled name ("srgan-x4") or a Hub id ("org/name").
            force_download, token, cache_dir, local_files_only: As for `huggingface_hub.snapshot_download`.
            revision: Branch, tag or commit on the Hub.
            model_kwargs: `map_location`, the device to load onto ("cpu" by default); `strict`, which refuses missing
                and unexpected tensors (True by default); or constructor arguments that replace those of config.json.

        Raises:
            ModelLoadError: The model cannot be found, or its config or weights are invalid.
        """
        download: dict[str, Any] = {"force_download": force_download, "token": token, "cache_dir": cache_dir}
        download |= {"local_files_only": local_files_only, "revision": revision}
        directory = hub.resolve_model_path(pretrained_model_name_or_path, **download)
        parameters = inspect.signature(cls).parameters
        any_option = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        hub.load_config(directory, None if any_option else parameters)
        return super().from_pretrained(directory, **model_kwargs)

    @classmethod
    def _from_pretrained(
        cls: type[Self],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str | torch.device = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> Self:
        return hub.build_model(cls, Path(model_id), model_kwargs, map_location=map_location, strict=strict).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        if card := load_card_text(save_directory):  # an existing one, which the mixin does not replace
            card = set_weights_sha256(card, save_directory / hub.WEIGHTS)
            (save_directory / REPOCARD_NAME).write_text(card, encoding="utf-8", newline="\n")

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Render the model card from `model_card.md`; keyword arguments as for `create_model_card`."""
        card = create_model_card(self.config, **kwargs)
        with tempfile.TemporaryDirectory() as directory:
            super()._save_pretrained(Path(directory))
            card.data[WEIGHTS_HASH] = file_sha256(Path(directory, hub.WEIGHTS))
        return card

    # Overridden since the mixin would replace a card that was edited on the Hub.
    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Any = None,
        branch: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Publish this model as "org/name", and return the URL of the commit; a model card on the Hub is kept.

        Args:
            config: Replaces the content of config.json.
            branch: The branch to push to; the default branch if None.
            model_card_kwargs: Arguments of `create_model_card`, for a new card.
            options: As for `push_folder`, except `revision`.

        Raises:
            PushError: The Hub is unreachable or refuses the commit.
        """
        with tempfile.TemporaryDirectory() as directory:
            card = {"name": repo_id, **(model_card_kwargs or {})}
            self.save_pretrained(directory, config=config, model_card_kwargs=card)
            return push_folder(directory, repo_id, revision=branch, upscaler=self.upscaler(), **options)
