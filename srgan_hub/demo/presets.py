"""Model presets offered by the demo."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .. import hub
from ..model import SRGAN
from ..upscaler import Upscaler
from .spaces import on_gpu


@dataclass(frozen=True)
class Preset:
    """Models for one type of image."""

    label: str
    description: str
    fidelity: str  # model at detail 0
    perceptual: str  # model at detail 1
    can_interpolate: bool = True  # otherwise the nearer one is used
    wrap: Literal["x", "y", "xy"] | None = None  # axes whose edges meet

    def select_model(self, detail: float) -> tuple[str, float | None]:
        """Return the model for a detail in [0, 1], and the `detail` argument of its `SRGAN.upscaler`."""
        detail = round(20 * detail) / 20  # the cache holds few models
        if self.can_interpolate and 0 < detail < 1:
            return self.perceptual, detail
        return (self.perceptual if detail >= 0.5 else self.fidelity), None


_PHOTO_MODELS = hub.FIDELITY_MODEL, hub.DEFAULT_MODEL
PRESETS = {
    "photo": Preset(
        "Photo",
        "Photos and JPEGs from cameras, phones and the web. Removes noise and JPEG artifacts.",
        *_PHOTO_MODELS,
    ),
    "clean": Preset(
        "Clean",
        "Images never saved as JPEG. Uses the models of the paper, which cannot be interpolated: a detail below 0.5 "
        "selects the faithful one.",
        "srresnet-x4",
        "srgan-x4",
        can_interpolate=False,
    ),
    "texture": Preset(
        "Texture",
        "Tiles: opposite edges still meet without a seam.",
        *_PHOTO_MODELS,
        wrap="xy",
    ),
    "panorama": Preset(
        "Panorama",
        "360° panoramas: the left edge still meets the right one.",
        *_PHOTO_MODELS,
        wrap="x",
    ),
}


@functools.lru_cache(maxsize=8)
def load_model(name: str) -> SRGAN:
    """Load a bundled model, a local directory or a Hub id, and cache it."""
    return SRGAN.from_pretrained(name)


@functools.lru_cache(maxsize=16)
def load_upscaler(name: str, detail: float | None = None, dtype: str = "auto") -> Upscaler:
    """Return a cached `Upscaler` for a model, detail and dtype."""
    return load_model(name).upscaler(detail=detail, dtype=dtype)


@on_gpu(duration=lambda array, *_: 15 + array.shape[0] * array.shape[1] // 100_000)
def stream(
    array: np.ndarray,
    name: str,
    detail: float | None = None,
    size: tuple[int, int] | None = None,
    wrap: Literal["x", "y", "xy"] | None = None,
    dtype: str = "auto",
) -> Iterator[np.ndarray]:
    """Upscale a uint8 array and yield the output in strips. Every image of the demo passes through here."""
    yield from load_upscaler(name, detail, dtype).stream(array, size=size, wrap=wrap)
