"""The kinds of pictures that the demo asks for, and the weights that each is enlarged with."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import hub
from ..model import SRGAN
from ..upscaler import Upscaler
from .zero_gpu import on_gpu


@dataclass(frozen=True)
class Kind:
    """Weights for a kind of picture.

    Args:
        label: what the page calls it.
        text: a sentence for whoever chooses.
        faithful, crisp: the models at the ends of the detail dial.
        mixes: whether they can be mixed between; if not, the nearer one is taken.
    """

    label: str
    text: str
    faithful: str
    crisp: str
    mixes: bool = True

    def weights(self, detail: float) -> tuple[str, float | None]:
        """Return the model for a detail, in tenths, and what of it is mixed in as `SRGAN.upscaler` takes it."""
        detail = round(detail, 1)
        if self.mixes and 0 < detail < 1:
            return self.crisp, detail
        return (self.crisp if detail >= 0.5 else self.faithful), None


KINDS = {
    "photo": Kind(
        "Photo or JPEG",
        "Photo or JPEG: for pictures from cameras, phones and the web. Noise and JPEG blocks are taken away.",
        hub.FAITHFUL,
        hub.DEFAULT,
    ),
    "clean": Kind(
        "Clean",
        "Clean: for pictures that were never saved as JPEG. The paper's networks, whose weights cannot be mixed: a "
        "detail below 0.5 takes the faithful one.",
        "srresnet-x4",
        "srgan-x4",
        mixes=False,
    ),
}


@functools.lru_cache(maxsize=8)
def load_model(name: str) -> SRGAN:
    """Load a bundled model, a folder or one of the Hub once."""
    return SRGAN.from_pretrained(name)


@functools.lru_cache(maxsize=16)
def find_upscaler(name: str, detail: float | None = None, precision: str = "auto") -> Upscaler:
    """Return what enlarges by a model, prepared once for each detail and precision."""
    return load_model(name).upscaler(detail=detail, precision=precision)


def _gpu_seconds(array: np.ndarray, *_: object) -> int:
    """Return for how long ZeroGPU shall lend a GPU at most."""
    return 15 + array.shape[0] * array.shape[1] // 100_000


@on_gpu(duration=_gpu_seconds)
def stream(
    array: np.ndarray,
    name: str,
    detail: float | None = None,
    size: tuple[int, int] | None = None,
    precision: str = "auto",
) -> Iterator[np.ndarray]:
    """Enlarge an array's pixels by a model and yield the result's bands. All of the demo's pictures come this way."""
    yield from find_upscaler(name, detail, precision).stream(array, size=size)
