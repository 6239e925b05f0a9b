"""Prepare chosen images: first of several, region, reduced size, preview."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..images.decode import MAX_PIXELS, open_image
from ..images.encode import save_image
from ..images.errors import ImageError
from ..images.raster import Raster
from ..images.tiff_media import PagesReader
from .queue import count
from .upscale import PREVIEW_EDGE, LoadedImage, flatten_alpha, to_loaded

Region = tuple[int, int, int, int]  # left, top, width, height


@dataclass(frozen=True)
class Prepared:
    """An image file, its preview, its size, and what was done to it; `image` is None if it has too many pixels."""

    file: Path
    preview: Path
    width: int
    height: int
    cost: int  # LR pixels through the network, as `LoadedImage.cost`
    note: str
    image: LoadedImage | None

    def describe(self, max_pixels: int) -> str:
        """Return its size, whether that is too large, and the note."""
        excess = "" if self.image else f", which is more than {max_pixels / 1e6:.3g} million"
        return f"{self.width} × {self.height} pixels{excess}. {self.note}".strip()


def prepare(
    path: Path, directory: Path, *, max_pixels: int, region: Region | None = None, shrink: bool = False
) -> Prepared:
    """Decode an image, crop it to a region or shrink it to `max_pixels`, and write what is new into a directory.

    The file is the given one where possible, otherwise a PNG with its metadata: of a region, of a smaller image, or of
    the first of several images. Raises `ImageError` if it cannot be decoded, or has more than `MAX_PIXELS`.
    """
    with open_image(path, max_pixels=max(MAX_PIXELS, max_pixels)) as opened:
        if opened.kind == "video":
            raise ImageError(f"'{path}' is a video. Choose an image.")
        several = opened.count > 1
        # A TIFF's first file directory may be a thumbnail; frames cannot be read one by one.
        pages = opened.read() if isinstance(opened, PagesReader) else None
        raster = next(pages) if pages else opened.load(0 if several else None)
        noun = "page" if pages else "frame"
        note = f"The first of {count(opened.count, noun)}. " if several else ""
    loaded = to_loaded(raster, path.name)
    before = f"{raster.width} × {raster.height}"
    if region:
        raster, note = _crop(raster, region, max_pixels), f"{note}Cropped from {before}."
    elif shrink:
        raster, note = _shrink(raster, max_pixels), f"{note}Shrunk from {before}."
    fits = raster.width * raster.height <= max_pixels
    if fits and (several or region or shrink):
        path = directory / f"{path.stem}.png"
        save_image(raster, path)
    loaded = replace(to_loaded(raster, path.name), warnings=loaded.warnings)
    preview = directory / "preview.jpg"
    reduced = loaded.image.copy() if fits else loaded.image
    reduced.thumbnail((PREVIEW_EDGE, PREVIEW_EDGE))
    flatten_alpha(reduced).save(preview, icc_profile=reduced.info.get("icc_profile"))
    pixels = raster.width * raster.height
    cost = pixels * (2 if raster.has_alpha else 1)
    return Prepared(path, preview, raster.width, raster.height, cost, note.strip(), loaded if fits else None)


def fit_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Reduce a width and height in proportion to at most `max_pixels` pixels."""
    ratio = min(1.0, math.sqrt(max_pixels / (width * height)))
    width = max(1, min(int(width * ratio), max_pixels))
    return width, max(1, min(int(height * ratio), max_pixels // width))


def _crop(raster: Raster, region: Region, max_pixels: int) -> Raster:
    left, top, width, height = region
    inside = 0 <= left < left + width <= raster.width and 0 <= top < top + height <= raster.height
    if not inside or width * height > max_pixels:
        raise ImageError("The region must lie in the image, and have no more pixels than the limit.")
    return replace(raster, array=np.ascontiguousarray(raster.array[top : top + height, left : left + width]))


def _shrink(raster: Raster, max_pixels: int) -> Raster:
    size = fit_size(raster.width, raster.height, max_pixels)
    image = raster.with_bits(8).to_pil()
    return replace(raster, array=np.asarray(image.resize(size, Image.Resampling.LANCZOS)))
