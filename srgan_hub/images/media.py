"""What is not read at once: videos, large images, channels that are no colors; each kind is a file beside this."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from .lazy import LazyRows
from .raster import Raster


class MediaUpscaler(Protocol):
    """What upscales. The results have the size, the depth and the metadata that were asked for."""

    def frames(self, frames: Iterator[Raster], first: int) -> Iterator[Raster]:
        """Upscale images, of which the first has this number: one for one."""
        ...

    def rows(self, rows: LazyRows) -> Iterator[np.ndarray]:
        """Upscale an image that is not in memory, or the last rows of it: strips (rows, width) or (rows, width, C)."""
        ...

    def plane(self, plane: np.ndarray) -> np.ndarray:
        """Upscale gray in [0, 1], (H, W), float32."""
        ...


@dataclass(frozen=True)
class OutputOptions:
    """What shall become of a source.

    Args:
        path: where it goes in the end.
        width, height: of the result, of the largest image in it.
        scale: of the network.
        receptive_field: how many rows above it a row of the result depends on.
        quality: of images, as for `decode.save_image`.
        bit_depth: bits per channel; None for those of the source.
        codec, crf: of a video, the encoder and its constant rate factor; None takes what suits.
        strip_metadata: as in `metadata.strip`, None for nothing.
        software: that makes it; None if it is not to be named.
        key: what results depend on beside the source: equal keys mean equal results.
    """

    path: Path
    width: int
    height: int
    scale: int
    receptive_field: int
    quality: int | None = None
    bit_depth: Literal[8, 16] | None = None
    codec: str | None = None
    crf: int | None = None
    strip_metadata: Literal["all", "gps"] | None = None
    software: str | None = None
    key: str = ""


class Media(ABC):
    """An opened file.

    Attributes:
        kind: what it is, in words.
        suffixes: of the files that can hold the result. The first is that of the result where none is named.
        lossy: those of them that have a quality.
        max_side: the largest side of those in which it is not 65,535 pixels.
        requires_even_size: whether the sides of the result must be even.
        count: of its images.
        width, height: of the largest, in pixels.
    """

    kind: ClassVar[str]
    suffixes: tuple[str, ...]
    lossy: ClassVar[tuple[str, ...]] = ()
    max_side: ClassVar[dict[str, int]] = {}
    requires_even_size: ClassVar[bool] = False
    count: int = 1
    width: int
    height: int

    @abstractmethod
    def write(self, media_upscaler: MediaUpscaler, tmp_path: Path, output: OutputOptions) -> None:
        """Decode it from its begin to its end, have it upscaled, and write it as it comes.

        Args:
            media_upscaler: makes the results.
            tmp_path: the file to write; it gets the name `output.path` when it is whole.
            output: what shall become of it.
        """
