"""Upscale one image with progress and previews."""

import base64
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..images.decode import load_raster
from ..images.encode import save_image, validate_output
from ..images.errors import ImageError
from ..images.raster import Raster
from ..resize import TargetSize
from .eta import EtaEstimator
from .presets import PRESETS, load_model, load_upscaler, stream
from .settings import FORMATS, Settings
from .spaces import ZERO_GPU

# Longest edge of previews, and of the two images of the before/after viewer: browsers struggle with larger ones.
PREVIEW_EDGE, VIEWER_EDGE = 1024, 2048
MAX_PREVIEWS, PREVIEW_TIME_SHARE = 10, 0.04  # limits of their number, and of their share of the time


@dataclass(frozen=True)
class LoadedImage:
    """A decoded 8-bit image, its file name, and the decoder's warnings as text."""

    image: Image.Image
    name: str
    warnings: str

    def output_size(self, settings: Settings) -> tuple[int, int]:
        """Return the output's width and height. Raises ValueError if it is larger than the model's scale allows."""
        scale = load_model(PRESETS[settings.preset].perceptual).scale
        return TargetSize.parse(settings.target_size).resolve(self.image.width, self.image.height, scale=scale)

    def with_pixels(self, array: np.ndarray) -> Image.Image:
        """Return an image of other pixels with the metadata of this one."""
        image = Image.fromarray(array)
        image.info = dict(self.image.info)
        return image

    @property
    def cost(self) -> int:
        """Number of LR pixels that pass through the network; transparency is a second pass."""
        return self.image.width * self.image.height * (2 if "A" in self.image.mode else 1)


def load(path: Path, *, max_pixels: int) -> LoadedImage:
    """Load an image with 8 bits per channel. Raises `ImageError` if it cannot be decoded or has more pixels."""
    return to_loaded(load_raster(path, max_pixels=max_pixels), path.name)


def to_loaded(raster: Raster, name: str) -> LoadedImage:
    """Convert a decoded file of this name."""
    raster = raster.fit_colors()
    warnings = list(raster.warnings)
    if raster.bits > 8:
        warnings.append(f"has {raster.bits} bits per channel and is read with 8")
    return LoadedImage(raster.with_bits(8).to_pil(), name, " ".join(f"{name} {each}." for each in warnings))


@dataclass(frozen=True)
class UpscaleProgress:
    """Progress of an upscale: output size, fraction in [0, 1], estimated seconds left, and a preview if it is new."""

    source: LoadedImage
    width: int
    height: int
    fraction: float
    seconds_left: float | None
    preview: str | None


@dataclass(frozen=True)
class Completed:
    """An upscaled image, its file, and with previews the files of the viewer: before and after."""

    source: LoadedImage
    image: Image.Image
    file: Path
    viewer_files: tuple[Path, ...]
    seconds: float


def upscale(
    path: Path, settings: Settings, directory: Path, *, max_pixels: int, eta: EtaEstimator, previews: bool = False
) -> Iterator[UpscaleProgress | Completed]:
    """Upscale an image file of at most `max_pixels` into a directory, with previews and viewer files if requested.

    Yields progress after each strip, with times estimated by `eta`, which is updated, then the result. Raises
    `ValueError` if the image cannot be decoded, or not be upscaled with these settings.
    """
    preset = PRESETS[settings.preset]
    model = preset.select_model(settings.detail)
    if not ZERO_GPU:
        load_upscaler(*model)  # outside the measured time
    start = time.perf_counter()
    source = load(path, max_pixels=max_pixels)
    width, height = source.output_size(settings)
    suffix = TargetSize.parse(settings.target_size).suffix(load_model(model[0]).scale)
    target = directory / f"{path.stem}_{suffix}{FORMATS[settings.format]}"
    try:
        validate_output(target, width=width, height=height, alpha="A" in source.image.mode)
    except ImageError as error:
        raise ImageError(f"{error}".replace(str(target), source.name)) from None
    preview = Preview(source.image, (width, height)) if previews else None
    yield UpscaleProgress(source, width, height, 0, eta.estimate(source.cost), preview.render() if preview else None)
    strips: list[np.ndarray] = []
    rows, stream_start = 0, time.perf_counter()
    for strip in stream(np.asarray(source.image), *model, (width, height), preset.wrap):
        strips.append(strip)
        rows += len(strip)
        fraction = rows / height
        seconds_left = (time.perf_counter() - stream_start) * (1 - fraction) / fraction
        image = preview.render(strips) if preview and preview.is_due(rows) else None
        yield UpscaleProgress(source, width, height, fraction, seconds_left, image)
    result = source.with_pixels(np.concatenate(strips))
    save_image(result, target, **settings.save_kwargs)
    viewer_files = _save_viewer_files(source.image, result, target) if previews else ()
    seconds = time.perf_counter() - start
    eta.update(source.cost, seconds)
    yield Completed(source, result, target, viewer_files, seconds)


class Preview:
    """Reduced image of a growing result of a given size: bicubic at first, overwritten by strips from the top."""

    def __init__(self, image: Image.Image, size: tuple[int, int]) -> None:
        self._height = size[1]
        self._canvas = flatten_alpha(image).resize(limit_size(size, PREVIEW_EDGE), Image.Resampling.BICUBIC)
        self._strips = self._rows = 0  # already drawn
        self._seconds, self._rendered_at = 0.0, time.perf_counter()

    def is_due(self, rows: int) -> bool:
        """Return whether enough rows are new since the last preview, and enough time has passed for its cost."""
        elapsed = time.perf_counter() - self._rendered_at
        enough_rows = (rows - self._rows) * MAX_PREVIEWS >= self._height
        return enough_rows and elapsed * PREVIEW_TIME_SHARE >= self._seconds

    def render(self, strips: Sequence[np.ndarray] = ()) -> str:
        """Draw all strips that are finished, and return the preview as a data URL."""
        start = time.perf_counter()
        for strip in strips[self._strips :]:
            top, bottom = (row * self._canvas.height // self._height for row in (self._rows, self._rows + len(strip)))
            if bottom > top:
                size = self._canvas.width, bottom - top
                reduced = flatten_alpha(Image.fromarray(strip)).resize(size, Image.Resampling.BOX)
                self._canvas.paste(reduced, (0, top))
            self._rows += len(strip)
        self._strips = len(strips)
        url = to_data_url(self._canvas, "JPEG")
        self._rendered_at = time.perf_counter()
        self._seconds = self._rendered_at - start
        return url


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Return an image as RGB, composited on white."""
    if "A" not in image.mode:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def limit_size(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """Reduce a width and height in proportion to a longest edge."""
    ratio = min(1.0, edge / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def to_data_url(image: Image.Image, format: str) -> str:
    """Encode an image as a data URL, in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _save_viewer_files(image: Image.Image, result: Image.Image, target: Path) -> tuple[Path, Path]:
    """Return the files of the viewer, before and after.

    If the result exceeds `VIEWER_EDGE`, they are a reduced copy, and bicubic of its size or the image if it is larger.
    """
    size = limit_size(result.size, VIEWER_EDGE)
    before, after = target.with_name(f"{target.stem} bicubic.png"), target
    kwargs: dict[str, Any] = {"compress_level": 1, "icc_profile": result.info.get("icc_profile")}
    image.resize(max(size, image.size), Image.Resampling.BICUBIC).save(before, **kwargs)
    if size != result.size:
        after = target.with_name(f"{target.stem} result.png")
        result.resize(size, Image.Resampling.LANCZOS).save(after, **kwargs)
    return before, after
