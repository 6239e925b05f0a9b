"""A user's image: read within limits, upscaled strip by strip, shown as it grows, and written."""

import base64
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..images.decode import load_raster
from ..images.encode import save_image, validate_output
from ..images.errors import ImageError
from ..resize import TargetSize
from .eta import EtaEstimator
from .presets import PRESETS, find_upscaler, load_model, stream
from .settings import FORMATS, SIZES, Settings
from .spaces import ZERO_GPU

# The longest side of the image that is shown while it grows.
PREVIEW_SIDE = 1024
# Browsers struggle with larger images in the comparison; the download is always whole.
PAIR_SIDE = 2048
# How often it is shown at most, and the share of the time that this may take.
PREVIEWS, PREVIEW_SHARE = 10, 0.04


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read: its pixels, what they are called, and what the reader had to say."""

    image: Image.Image
    name: str
    notes: str

    def size(self, settings: Settings) -> tuple[int, int]:
        """Return width and height of the result. ValueError if it cannot be so large."""
        scale = load_model(PRESETS[settings.kind].perceptual).scale
        return TargetSize.parse(settings.target_size).resolve(self.image.width, self.image.height, scale=scale)

    @property
    def cost(self) -> int:
        """LR pixels that go through the network; transparency goes through it beside the colors."""
        return self.image.width * self.image.height * (2 if "A" in self.image.mode else 1)


def read(path: Path, *, max_pixels: int) -> LoadedImage:
    """Read an image. ImageError if it cannot be read or has more pixels."""
    raster = load_raster(path, max_pixels=max_pixels)
    warnings = list(raster.warnings)
    if raster.bits > 8:
        warnings.append(f"has {raster.bits} bits per channel and is read with 8")
    return LoadedImage(raster.with_bits(8).to_pil(), path.name, " ".join(f"{path.name}: {each}." for each in warnings))


@dataclass(frozen=True)
class Progress:
    """How far a run is: the share in [0, 1], the seconds left if they are known, a preview if there is a new one."""

    source: LoadedImage
    width: int
    height: int
    share: float
    left: float | None
    preview: str | None


@dataclass(frozen=True)
class Completed:
    """A result: the image, its file, and where previews were asked for two files that compare it with bicubic."""

    source: LoadedImage
    image: Image.Image
    file: Path
    pair: tuple[Path, ...]
    seconds: float


def upscale(
    path: Path, settings: Settings, folder: Path, *, max_pixels: int, speed: EtaEstimator, previews: bool = False
) -> Iterator[Progress | Completed]:
    """Upscale an image file.

    Args:
        path: the image.
        settings: what is asked for.
        folder: where the result goes.
        max_pixels: the largest image that is accepted.
        speed: gets the time that it took.
        previews: make images of the result as it grows.

    Yields:
        Progress after each strip, then the result.

    Raises:
        ValueError: the image cannot be read, or not made so large; the message says why.
    """
    weights = PRESETS[settings.kind].weights(settings.detail)
    if not ZERO_GPU:
        find_upscaler(*weights)  # loading it is no measure of this machine
    start = time.perf_counter()
    source = read(path, max_pixels=max_pixels)
    width, height = source.size(settings)
    size = f"x{settings.size[0]}" if settings.size in SIZES else f"{width}x{height}"
    target = folder / f"{path.stem}_{size}{FORMATS[settings.format]}"
    try:
        validate_output(target, width=width, height=height, alpha="A" in source.image.mode)
    except ImageError as error:
        raise ImageError(f"{error}".replace(str(target), source.name)) from None
    preview = Preview(source.image, (width, height))
    yield Progress(source, width, height, 0, speed.estimate(source.cost), preview.draw() if previews else None)
    strips: list[np.ndarray] = []
    done = 0
    began = time.perf_counter()
    for rows in stream(np.asarray(source.image), *weights, (width, height)):
        strips.append(rows)
        done += len(rows)
        share = done / height
        left = (time.perf_counter() - began) * (1 - share) / share
        image = preview.draw(strips) if previews and preview.is_due(done) else None
        yield Progress(source, width, height, share, left, image)
    result = Image.fromarray(np.concatenate(strips))
    result.info = dict(source.image.info)
    quality = None if settings.format == "PNG" else settings.quality
    strip: Literal["gps", "all"] | None = {"all": None, "no place": "gps"}.get(settings.metadata, "all")
    save_image(result, target, quality=quality, strip_metadata=strip)
    pair = _write_pair(source.image, result, target) if previews else ()
    seconds = time.perf_counter() - start
    speed.update(source.cost, seconds)
    yield Completed(source, result, target, pair, seconds)


class Preview:
    """A reduced copy of a result that grows: bicubic at first, and finished rows from the top.

    Args:
        image: the LR image.
        size: the result's width and height.
    """

    def __init__(self, image: Image.Image, size: tuple[int, int]) -> None:
        self._height = size[1]
        shrink = min(1.0, PREVIEW_SIDE / max(size))
        small = max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
        self._canvas = flatten_alpha(image).resize(small, Image.Resampling.BICUBIC)
        self._strips = self._rows = 0  # those that are drawn
        self._cost, self._shown = 0.0, time.perf_counter()

    def is_due(self, rows: int) -> bool:
        """Return whether a tenth is new since it was drawn last, and enough time passed for what drawing costs."""
        since = time.perf_counter() - self._shown
        return (rows - self._rows) * PREVIEWS >= self._height and since * PREVIEW_SHARE >= self._cost

    def draw(self, strips: Sequence[np.ndarray] = ()) -> str:
        """Draw the strips that are done by now, and return the image as a data address."""
        start = time.perf_counter()
        for strip in strips[self._strips :]:
            top, bottom = (row * self._canvas.height // self._height for row in (self._rows, self._rows + len(strip)))
            if bottom > top:
                scaled = flatten_alpha(Image.fromarray(strip)).resize(
                    (self._canvas.width, bottom - top), Image.Resampling.BOX
                )
                self._canvas.paste(scaled, (0, top))
            self._rows += len(strip)
        self._strips = len(strips)
        address = to_data_url(self._canvas, "JPEG")
        self._shown = time.perf_counter()
        self._cost = self._shown - start
        return address


def _write_pair(image: Image.Image, result: Image.Image, target: Path) -> tuple[Path, Path]:
    """Write bicubic and result for the comparison beside the target, at one size that browsers bear."""
    shrink = min(1.0, PAIR_SIDE / max(result.size))
    size = (max(1, round(result.width * shrink)), max(1, round(result.height * shrink)))
    paths = (target.with_name(f"{target.stem} bicubic.png"), target.with_name(f"{target.stem} shown.png"))
    for path, large in zip(paths, (image.resize(result.size, Image.Resampling.BICUBIC), result), strict=True):
        small = large.resize(size, Image.Resampling.LANCZOS) if shrink < 1 else large
        small.save(path, compress_level=1, icc_profile=result.info.get("icc_profile"))
    return paths


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Return an image as RGB, on white where it is transparent."""
    if "A" not in image.mode:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def to_data_url(image: Image.Image, kind: str) -> str:
    """Return an image as a data address of Pillow's kind of file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def close_up(source: LoadedImage, kind: str, x: float, y: float, *, side: int = 44) -> dict[str, str]:
    """Upscale the region around a place three times: bicubic, faithful, crisp.

    Args:
        source: the LR image.
        kind: whose weights are compared.
        x, y: the middle of the region, as shares of the image's width and height.
        side: of the region, in LR pixels, as far as the image is that large.

    Returns:
        Data addresses of lossless images at the network's scale, by name.
    """
    image = source.image
    width, height = min(side, image.width), min(side, image.height)
    left = round(min(max(x * image.width - width / 2, 0), image.width - width))
    top = round(min(max(y * image.height - height / 2, 0), image.height - height))
    models = {"Faithful": PRESETS[kind].fidelity, "Crisp": PRESETS[kind].perceptual}
    # What the region's pixels depend on, so that they are those of the whole result.
    reach, scale = (
        max(find_upscaler(name).receptive_field for name in models.values()),
        load_model(PRESETS[kind].perceptual).scale,
    )
    box = (
        max(0, left - reach),
        max(0, top - reach),
        min(image.width, left + width + reach),
        min(image.height, top + height + reach),
    )
    around = image.crop(box)
    x0, y0 = scale * (left - box[0]), scale * (top - box[1])
    region = (x0, y0, x0 + scale * width, y0 + scale * height)
    large = {
        "Bicubic": around.resize((around.width * scale, around.height * scale), Image.Resampling.BICUBIC),
    }
    for label, name in models.items():
        strips = stream(np.asarray(around), name)
        large[label] = Image.fromarray(np.concatenate(list(strips)))
    return {name: to_data_url(flatten_alpha(each.crop(region)), "PNG") for name, each in large.items()}
