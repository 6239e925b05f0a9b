"""In-memory image: pixel array plus metadata."""

import io
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageFile

from . import color, pillow_fixes
from .errors import ImageError
from .metadata import Metadata, read_metadata

R = TypeVar("R", bound="Raster")
_PIL = ("gray", "gray with alpha", "icc_profile")  # features of PIL images


@dataclass
class Raster:
    """An image in memory.

    Args:
        array: (H, W) gray, or (H, W, C) with C 2 for gray and alpha, 3 for RGB, 4 for RGBA; uint8 or uint16. Its
            orientation is corrected.
        metadata: Metadata that an upscaled image keeps.
        warnings: What reading it left out or changed, as messages without the file's name.
    """

    array: np.ndarray
    metadata: Metadata = field(default_factory=Metadata)
    warnings: list[str] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.array.shape[0])

    @property
    def bits(self) -> int:
        """Bits per channel, 8 or 16."""
        return 8 * self.array.itemsize

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.array.ndim == 3 and self.array.shape[2] in (2, 4)

    def with_bits(self: R, bits: int) -> R:
        """Return the image with 8 or 16 bits per channel, both of the full range; 8 are rounded."""
        if bits == self.bits:
            return self
        wide = self.array.astype(np.uint32)  # 257 * 255 is 65,535
        array = ((wide + 128) // 257).astype(np.uint8) if bits == 8 else (wide * 257).astype(np.uint16)
        return replace(self, array=array)

    def fit_colors(self: R, stores: Collection[str] = _PIL) -> R:
        """Return the image with colors that a format of these features can describe, and warnings about changes."""
        array, metadata, warnings = color.fit_colors(self.array, self.metadata, stores)
        return replace(self, array=array, metadata=metadata, warnings=[*self.warnings, *warnings])

    @classmethod
    def from_pil(cls, image: Image.Image, *, name: str = "the image") -> "Raster":
        """Convert a PIL image to gray or RGB, gray where its palette has no colors, and correct a file's orientation.

        Copies of an opened file, as Pillow's methods return them, may have been rotated already, and are taken as they
        are.

        Raises:
            ImageError: The mode has no such equivalent; the message contains `name`.
        """
        warnings, is_file = [], isinstance(image, ImageFile.ImageFile)
        if _is_closed(image):
            raise ImageError(f"{name} was closed before its pixels were read; call its `load` before.")
        pillow_fixes.read_color_chunks(image)
        if isinstance(image, ImageFile.ImageFile) and image.tile:
            if reason := pillow_fixes.unsupported_reason(image):
                raise ImageError(f"{name} {reason}.")
            bits = pillow_fixes.bit_depth(image)
            image = pillow_fixes.decode(image)
            if bits > 8 and not image.mode.startswith("I;16"):
                warnings.append(f"has {bits} bits per channel and is read with 8")
        orientation, metadata, invalid = read_metadata(image)
        if image.mode in ("CMYK", "LAB"):
            array, metadata = np.asarray(_to_rgb(image)), replace(metadata, icc_profile=None)
        elif image.mode.startswith("I;16"):
            array = np.asarray(image).astype(np.uint16)
            if (key := image.info.get("transparency")) is not None:
                array = np.dstack([array, np.where(array == key, 0, 65_535).astype(np.uint16)])
        elif image.mode in pillow_fixes.MODES:
            gray = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _has_gray_palette(image))
            alpha = image.has_transparency_data
            # Pillow converts transparent palette entries and colors only to RGBA, and La only to LA.
            image = image.convert("LA" if image.mode == "La" else "RGBA") if alpha else image
            array = np.asarray(image.convert(("L" if gray else "RGB") + ("A" if alpha else "")))
        else:
            raise ImageError(f"{name} has mode {image.mode}; supported are 8-bit gray, color and palette.")
        return cls(correct_orientation(array, orientation if is_file else 1), metadata, warnings + invalid)

    def to_pil(self) -> Image.Image:
        """Return a PIL image of mode L, LA, RGB, RGBA or I;16; of 8 bits where Pillow has no mode for 16.

        Its colors are described by a profile or sRGB, since Pillow ignores code points: HDR is reduced to SDR.
        """
        raster = self.fit_colors()
        raster = raster if raster.array.ndim == 2 else raster.with_bits(8)
        image = Image.fromarray(raster.array)
        image.info.update(raster.metadata.to_info())
        return image


def to_pixels(array: np.ndarray) -> np.ndarray:
    """Convert an array to uint8 or uint16: booleans to 0 and 255, floats in [0, 1] to 16 bits.

    Raises:
        ImageError: The array has masked values, another dtype, or floats out of range.
    """
    if np.ma.is_masked(array):
        raise ImageError("`image` is an array with masked values; replace them first with `filled`.")
    array = np.asarray(array)
    if array.dtype.kind == "f":
        lowest, highest = (array.min(), array.max()) if array.size else (0, 0)
        if not (lowest >= -1e-3 and highest <= 1 + 1e-3):
            found = f"{lowest:.4g} to {highest:.4g}"
            raise ImageError(
                f"`image` is of {array.dtype} and must have values in [0, 1], got {found}; divide it first."
            )
        return (array.astype(np.float64).clip(0, 1) * 65_535).round().astype(np.uint16)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind != "u" or array.itemsize > 2:
        expected = "uint8, uint16, bool, or floating point in [0, 1]"
        raise ImageError(f"`image` must be an array of {expected}, got {array.dtype}; convert it with `astype`.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_closed(image: Image.Image) -> bool:
    """Return whether an image, or its file before the pixels were read, was closed."""
    if isinstance(image, ImageFile.ImageFile) and image.tile:
        return image.fp is None or image.fp.closed
    try:
        image.im  # noqa: B018
    except ValueError:
        return True
    except AssertionError:  # not decoded yet
        return False
    return False


def correct_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W) or (H, W, C) rotated and flipped as the EXIF orientation 1 to 8 requires; others change nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert LAB; or CMYK, according to its color profile if that is valid."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    profile = lab if image.mode == "LAB" else io.BytesIO(image.info.get("icc_profile") or b"")
    with suppress(ImageCms.PyCMSError, OSError):
        if converted := ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB"):
            return converted
    return image.convert("RGB")


def _has_gray_palette(image: Image.Image) -> bool:
    colors = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    used = colors[[index for _, index in image.getcolors() or [] if isinstance(index, int) and index < len(colors)]]
    return bool((used == used[:, :1]).all())
