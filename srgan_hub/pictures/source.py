"""What is not read at once: films, large pictures, channels that are no colours; each kind is a file beside this."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from .raster import Raster
from .rows import Rows


class Enlarger(Protocol):
    """What enlarges. The results have the size, the depth and the metadata that were asked for."""

    def frames(self, frames: Iterator[Raster], first: int) -> Iterator[Raster]:
        """Enlarge pictures, of which the first has this number: one for one."""
        ...

    def rows(self, rows: Rows) -> Iterator[np.ndarray]:
        """Enlarge a picture that is not in memory, or the last rows of it: bands (rows, width) or (rows, width, C)."""
        ...

    def plane(self, plane: np.ndarray) -> np.ndarray:
        """Enlarge gray in [0, 1], (H, W), float32."""
        ...


@dataclass(frozen=True)
class Output:
    """What shall become of a source.

    Args:
        path: where it goes in the end.
        width, height: of the result, of the largest picture in it.
        scale: of the network.
        reach: how many rows above it a row of the result depends on.
        quality: of pictures, as for `files.write`.
        depth: bits per channel; None for those of the source.
        codec, crf: of a video, the encoder and its constant rate factor; None takes what suits.
        strip: as in `carried.strip`, None for nothing.
        program: that makes it; None if it is not to be named.
        key: what results depend on beside the source: equal keys mean equal results.
    """

    path: Path
    width: int
    height: int
    scale: int
    reach: int
    quality: int | None = None
    depth: Literal[8, 16] | None = None
    codec: str | None = None
    crf: int | None = None
    strip: Literal["all", "gps"] | None = None
    program: str | None = None
    key: str = ""


class Source(ABC):
    """An opened file.

    Attributes:
        kind: what it is, in words.
        suffixes: of the files that can hold the result. The first is that of the result where none is named.
        lossy: those of them that have a quality.
        limits: the largest side of those in which it is not 65,535 pixels.
        even: whether the sides of the result must be even.
        count: of its pictures.
        width, height: of the largest, in pixels.
    """

    kind: ClassVar[str]
    suffixes: tuple[str, ...]
    lossy: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[dict[str, int]] = {}
    even: ClassVar[bool] = False
    count: int = 1
    width: int
    height: int

    @abstractmethod
    def write(self, enlarger: Enlarger, aside: Path, output: Output) -> None:
        """Decode it from its begin to its end, have it enlarged, and write it as it comes.

        Args:
            enlarger: makes the results.
            aside: the file to write; it gets the name `output.path` when it is whole.
            output: what shall become of it.
        """
