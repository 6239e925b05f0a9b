"""What files of several pictures have in common; each kind of them is a file beside this one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from .raster import Raster

# Turns frames, of which the first has this number, into their results, one for one.
Enlarge = Callable[[Iterator[Raster], int], Iterator[Raster]]


@dataclass(frozen=True)
class Output:
    """What becomes of a film.

    Args:
        path: where it goes in the end.
        quality: of its pictures, as for `files.write`.
        codec, crf: of a video, the encoder and its constant rate factor; None takes what suits.
        strip: as in `carried.strip`, None for nothing.
        program: that makes it.
        key: what its frames depend on beside the film: equal keys mean equal results.
    """

    path: Path
    quality: int | None = None
    codec: str | None = None
    crf: int | None = None
    strip: Literal["all", "gps"] | None = None
    program: str | None = None
    key: str = ""


class Film(ABC):
    """An opened file of several pictures.

    Attributes:
        kind: what it is, in words.
        suffixes: of the files that can hold one. The first is that of the result where none is named.
        lossy: those of them that have a quality.
        limits: the largest side of those in which it is not 65,535 pixels.
        even: whether the sides must be even.
        count: of its pictures.
        width, height: of the largest, in pixels.
        alpha: whether any of them has transparency.
    """

    kind: ClassVar[str]
    suffixes: tuple[str, ...]
    lossy: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[dict[str, int]] = {}
    even: ClassVar[bool] = False
    count: int
    width: int
    height: int
    alpha: bool

    @abstractmethod
    def write(self, enlarge: Enlarge, aside: Path, output: Output) -> None:
        """Decode the pictures from the first to the last, have them enlarged, and write them as they come.

        Args:
            enlarge: makes the results.
            aside: the file to write; it gets the name `output.path` when it is whole.
            output: what shall become of it.
        """
