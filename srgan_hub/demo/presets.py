"""The kinds of images that the demo asks for, and the weights that each is upscaled with."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import hub
from ..model import SRGAN
from ..upscaler import Upscaler
from .spaces import on_gpu


@dataclass(frozen=True)
class Preset:
    """Weights for a kind of image.

    Args:
        label: what the page calls it.
        text: a sentence for whoever chooses.
        fidelity, perceptual: the models at the ends of the detail dial.
        can_interpolate: whether they can be mixed between; if not, the nearer one is taken.
    """

    label: str
    text: str
    fidelity: str
    perceptual: str
    can_interpolate: bool = True

    def weights(self, detail: float) -> tuple[str, float | None]:
        """Return the model for a detail, in tenths, and what of it is mixed in as `SRGAN.upscaler` takes it."""
        detail = round(detail, 1)
        if self.can_interpolate and 0 < detail < 1:
            return self.perceptual, detail
        return (self.perceptual if detail >= 0.5 else self.fidelity), None


PRESETS = {
    "photo": Preset(
        "Photo or JPEG",
        "Photo or JPEG: for images from cameras, phones and the web. Noise and JPEG blocks are taken away.",
        hub.FIDELITY_MODEL,
        hub.DEFAULT_MODEL,
    ),
    "clean": Preset(
        "Clean",
        "Clean: for images that were never saved as JPEG. The paper's networks, whose weights cannot be mixed: a "
        "detail below 0.5 takes the faithful one.",
        "srresnet-x4",
        "srgan-x4",
        can_interpolate=False,
    ),
}


@functools.lru_cache(maxsize=8)
def load_model(name: str) -> SRGAN:
    """Load a bundled model, a folder or one of the Hub once."""
    return SRGAN.from_pretrained(name)


@functools.lru_cache(maxsize=16)
def find_upscaler(name: str, detail: float | None = None, dtype: str = "auto") -> Upscaler:
    """Return what upscales by a model, prepared once for each detail and precision."""
    return load_model(name).upscaler(detail=detail, dtype=dtype)


def _gpu_seconds(array: np.ndarray, *_: object) -> int:
    """Return for how long ZeroGPU shall lend a GPU at most."""
    return 15 + array.shape[0] * array.shape[1] // 100_000


@on_gpu(duration=_gpu_seconds)
def stream(
    array: np.ndarray,
    name: str,
    detail: float | None = None,
    size: tuple[int, int] | None = None,
    dtype: str = "auto",
) -> Iterator[np.ndarray]:
    """Upscale an array's pixels by a model and yield the result's strips. All of the demo's images come this way."""
    yield from find_upscaler(name, detail, dtype).stream(array, size=size)
