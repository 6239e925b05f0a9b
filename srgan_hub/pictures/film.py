"""What files of several pictures have in common; each kind of them is a file beside this one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from .raster import Raster


class Film(ABC):
    """An opened file of several pictures.

    Attributes:
        kind: what it is, in words.
        suffixes: of the files that can hold one. The first is that of the result where none is named.
        lossy: those of them that have a quality.
        limits: the largest side of those in which it is not 65,535 pixels.
        count: of its pictures.
        width, height: of the largest, in pixels.
        alpha: whether any of them has transparency.
    """

    kind: ClassVar[str]
    suffixes: tuple[str, ...]
    lossy: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[dict[str, int]] = {}
    count: int
    width: int
    height: int
    alpha: bool

    @abstractmethod
    def frames(self) -> Iterator[Raster]:
        """Decode the pictures, from the first to the last."""

    @abstractmethod
    def write(self, results: Iterable[Raster], path: Path, suffix: str, quality: int | None) -> None:
        """Write the pictures with what is kept of this file.

        Args:
            results: as many pictures as this has, larger.
            path: where they go.
            suffix: what kind of file.
            quality: as for `files.write`.
        """
