"""The kinds of pictures that the demo asks for, and the weights that each is enlarged with."""

import functools
from dataclasses import dataclass

from .. import hub
from ..model import SRGAN
from ..upscaler import Upscaler


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

    def name(self, detail: float) -> str:
        """Return the model that makes this detail, or the crisp one that is mixed for it."""
        return self.crisp if detail >= 0.5 or (self.mixes and detail > 0) else self.faithful


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


def find_upscaler(kind: str, detail: float) -> Upscaler:
    """Return what enlarges a kind of picture with a detail from 0 to 1, prepared once for each tenth."""
    return _prepare(kind, round(detail, 1) if KINDS[kind].mixes else float(detail >= 0.5))


@functools.lru_cache(maxsize=16)
def _prepare(kind: str, detail: float) -> Upscaler:
    name = KINDS[kind].name(detail)
    mixed = KINDS[kind].mixes and 0 < detail < 1
    return load_model(name).upscaler(detail=detail if mixed else None)


@functools.lru_cache(maxsize=8)
def load_model(name: str) -> SRGAN:
    """Load a bundled model, a folder or one of the Hub once."""
    return SRGAN.from_pretrained(name)
