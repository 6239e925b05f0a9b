"""TIFF files of several pages, each an image with its own size, depth and metadata."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from . import decode, png16
from .media import Media, MediaUpscaler, OutputOptions


class MultiPageTiff(Media):
    """An opened TIFF.

    Args:
        path: the file.
        numbers: of the pages that are taken.
        max_pixels: the largest page.
    """

    kind: ClassVar[str] = "a file of several pages"
    suffixes = (".tif", ".tiff")
    max_side: ClassVar[dict[str, int]] = dict.fromkeys(suffixes, 2**31 - 1)

    def __init__(self, path: Path, numbers: Sequence[int], max_pixels: int | None) -> None:
        self._path, self._numbers, self._max_pixels = path, numbers, max_pixels
        self.count = len(numbers)
        self.width = self.height = 0
        for number in numbers:
            with decode.open_image(path, max_pixels=max_pixels, page=number) as image:
                self.width, self.height = max(self.width, image.width), max(self.height, image.height)

    def write(self, media_upscaler: MediaUpscaler, tmp_path: Path, output: OutputOptions) -> None:
        """Write the pages, each with its depth."""
        pages = (decode.load_raster(self._path, max_pixels=self._max_pixels, page=number) for number in self._numbers)
        png16.write_tiff(media_upscaler.frames(pages, 0), tmp_path, name=str(output.path))
