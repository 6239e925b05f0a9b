"""Upscale a region of an image: close-ups, and previews of a detail."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .presets import PRESETS, load_model, load_upscaler, stream
from .upscale import LoadedImage, to_data_url

SIDE, PREVIEW_HALO = 50, 16  # LR pixels


@dataclass(frozen=True)
class CloseUp:
    """Data URLs of PNG images of a region by name, and the region as fractions of the image."""

    images: dict[str, str]
    box: dict[str, float]


@dataclass(frozen=True)
class Region:
    """A part of an image, with pixels around it."""

    pixels: np.ndarray
    left: int  # of the part in `pixels`, as `top`
    top: int
    width: int
    height: int
    box: dict[str, float]  # of the part as fractions of the image

    @classmethod
    def around(cls, source: LoadedImage, preset: str, x: float, y: float, *, side: int, halo: int) -> "Region":
        """Cut out the part of `side` pixels around (x, y), moved into the image, with a halo."""
        image, wrap = source.image, PRESETS[preset].wrap or ""
        width, height = min(side, image.width), min(side, image.height)
        left = round(min(max(x * image.width - width / 2, 0), image.width - width))
        top = round(min(max(y * image.height - height / 2, 0), image.height - height))
        columns = _with_halo(left, width, image.width, halo, wraps="x" in wrap)
        rows = _with_halo(top, height, image.height, halo, wraps="y" in wrap)
        box = {"x": left / image.width, "y": top / image.height}
        box |= {"width": width / image.width, "height": height / image.height}
        before, above = (halo if axis in wrap else min(first, halo) for axis, first in (("x", left), ("y", top)))
        return cls(np.asarray(image)[np.ix_(rows, columns)], before, above, width, height, box)

    def crop(self, output: np.ndarray, scale: int) -> str:
        """Return the part of the upscaled `pixels` as a data URL."""
        rows = slice(scale * self.top, scale * (self.top + self.height))
        columns = slice(scale * self.left, scale * (self.left + self.width))
        return to_data_url(Image.fromarray(output[rows, columns]), "PNG")


def close_up(source: LoadedImage, preset: str, x: float, y: float, *, side: int = SIDE) -> CloseUp:
    """Upscale a region by bicubic interpolation and by both models of a preset.

    `x` and `y` are its center as fractions of width and height, `side` its width and height in LR pixels. The images
    have the models' scale, and their pixels equal those of the full result.
    """
    models = {"Faithful": PRESETS[preset].fidelity, "Sharp": PRESETS[preset].perceptual}
    halo = max(load_upscaler(name).receptive_field for name in models.values())
    region = Region.around(source, preset, x, y, side=side, halo=halo)
    height, width = region.pixels.shape[:2]
    scale = load_model(models["Sharp"]).scale
    bicubic = Image.fromarray(region.pixels).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    images = {"Bicubic": region.crop(np.asarray(bicubic), scale)}
    for label, name in models.items():
        images[label] = region.crop(np.concatenate(list(stream(region.pixels, name))), scale)
    return CloseUp(images, region.box)


def preview_detail(source: LoadedImage, preset: str, detail: float, x: float, y: float) -> CloseUp:
    """Upscale a region as `close_up` does, but for one detail, and with a halo that is enough for the eye."""
    model = PRESETS[preset].select_model(detail)
    region = Region.around(source, preset, x, y, side=SIDE, halo=PREVIEW_HALO)
    output = np.concatenate(list(stream(region.pixels, *model)))
    return CloseUp({"Detail": region.crop(output, load_model(model[0]).scale)}, region.box)


def _with_halo(start: int, side: int, length: int, halo: int, *, wraps: bool) -> np.ndarray:
    """Return the indices of `side` pixels from `start` on, and of those within `halo` around them."""
    around = np.arange(start - halo, start + side + halo)
    return around % length if wraps else around[(around >= 0) & (around < length)]
