"""Picture files to arrays and back, keeping colour profile, EXIF, resolution, transparency and gray."""

import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from ..replacing import replacing
from . import decode
from .carried import read_carried, save_options

logger = logging.getLogger(__name__)

# By suffix: Pillow's name of the format, how it is written, its largest side.
_FORMATS: dict[str, tuple[str, dict[str, Any], int]] = {
    ".png": ("PNG", {}, 2**31 - 1),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}, 65_535),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}, 65_535),
    ".webp": ("WEBP", {"lossless": True}, 16_383),
    ".bmp": ("BMP", {}, 2**31 - 1),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}, 2**31 - 1),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}, 2**31 - 1),
}
SUFFIXES = tuple(_FORMATS)
# 8000 x 8000 in; four times as large, that is a gigapixel out.
MAX_PIXELS = 64_000_000


class PictureError(ValueError):
    """A picture that cannot be read, upscaled or written. The message names it, says why and what to do."""


def read(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """Read a picture file, upright, as a PIL image of mode L, LA, RGB or RGBA.

    Its `info` holds what a larger copy must carry: icc_profile, exif (orientation applied and reset), dpi.

    Args:
        path: a file of any kind that Pillow reads.
        max_pixels: the largest width times height, checked before decoding and after it. What lies between, such as
            the pictures within an icon, is bounded by `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        PictureError: the file is missing, no picture, broken, of an unsupported kind, animated or too large.
    """
    image = open_header(path, max_pixels=max_pixels)
    try:
        with image:
            loaded = _load(image, str(path))
            # An icon may hold another picture than its header says.
            _check_size(loaded, path, max_pixels)
            return normalise(loaded, name=str(path))
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} holds far too many pixels: {error}.") from error
    except decode.BROKEN as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{path} is broken or cut short: {error}; try opening and saving it anew.") from error


def open_header(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> ImageFile.ImageFile:
    """Open a picture and check what its header says; nothing is decoded yet. Arguments and errors as for `read`."""
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder; name the pictures in it.")
        if path.stat().st_size == 0:
            raise PictureError(f"{path} is empty (0 bytes).")
        image = Image.open(path)
        frames = getattr(image, "n_frames", 1)
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist.") from None
    except Image.DecompressionBombError:
        limit = f"the limit is {max_pixels / 1e6:.3g} million pixels" if max_pixels else "Pillow's limit is lower"
        raise PictureError(f"{path} {decode.explain(path)}; {limit}.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} {decode.explain(path)}.") from None
    except decode.BROKEN as error:
        if isinstance(error, PictureError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise PictureError(f"{path} cannot be opened: {reason}.") from error
    try:
        # Phones store a preview as second frame of an MPO file; it is not an animation.
        if frames > 1 and image.format != "MPO":
            raise PictureError(f"{path} holds {frames} frames; animations and multi-page files are not supported.")
        _check_size(image, path, max_pixels)
    except PictureError:
        image.close()
        raise
    return image


def normalise(image: Image.Image, *, name: str = "the picture") -> Image.Image:
    """Turn a PIL image upright and into mode L, LA, RGB or RGBA, without colours where its palette has none.

    Raises:
        PictureError: the mode has no such equivalent.
    """
    if isinstance(image, ImageFile.ImageFile) and image.tile:
        image = _load(image, name)
    turn, info = read_carried(image, name)
    image = image if turn is None else image.transpose(turn)
    if image.mode == "CMYK":
        image = _from_cmyk(image)
        info.pop("icc_profile", None)
    elif image.mode.startswith("I;16"):
        levels = np.asarray(image)
        key = image.info.get("transparency")
        image = Image.fromarray((levels >> 8).astype(np.uint8))
        if key is not None:
            image.putalpha(Image.fromarray(np.where(levels == key, 0, 255).astype(np.uint8)))
    elif image.mode in ("1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV"):
        gray = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _gray_palette(image))
        alpha = image.has_transparency_data
        # Pillow reads transparency out of palettes and colour keys only on the way to RGBA, and La goes only to LA.
        image = image.convert("LA" if image.mode == "La" else "RGBA") if alpha else image
        image = image.convert(("L" if gray else "RGB") + ("A" if alpha else ""))
    else:
        raise PictureError(f"{name} has pixels of mode {image.mode}; 8-bit gray, colour and palette can be upscaled.")
    image.info = info
    return image


def to_array(image: Image.Image) -> np.ndarray:
    """Return a normalised image's pixels: (H, W) for gray, else (H, W, C), uint8."""
    return np.asarray(image)


def to_image(array: np.ndarray, *, like: Image.Image) -> Image.Image:
    """Make an image of pixels (H, W) or (H, W, C), uint8, that carries what `like` carries."""
    image = Image.fromarray(array)
    image.info = dict(like.info)
    return image


def check_output(path: Path, *, width: int, height: int, alpha: bool, quality: int | None = None) -> None:
    """Check that a picture of this size and kind can be written to `path`, before any work is done.

    Raises:
        PictureError: the suffix is unknown, its format cannot hold the picture, or the folder is not to be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise PictureError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; use {', '.join(SUFFIXES)}.")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise PictureError(f"{path} cannot be written: {path.parent} is not a folder that you may write to.")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise PictureError(f"{path} cannot be written: {error.strerror}.") from error
    name, _, limit = _FORMATS[path.suffix.lower()]
    if max(width, height) > limit:
        raise PictureError(f"{path}: {name} holds at most {limit} pixels a side, this is {width} x {height}; use .png.")
    if alpha and name in ("JPEG", "BMP"):
        raise PictureError(f"{path}: {name} cannot hold transparency; use .png, .webp or .tif.")
    if quality is not None and (name not in ("JPEG", "WEBP") or not 1 <= quality <= 100):
        raise PictureError(f"{path}: expected a quality from 1 to 100 and .jpg or .webp, got {quality}.")


def write(image: Image.Image, path: Path, *, overwrite: bool = True, quality: int | None = None) -> None:
    """Write an image by its suffix, aside first and then renamed: the file is whole or not there.

    Args:
        image: from `to_image` or `normalise`.
        path: where it goes.
        overwrite: replace a file that is there by then.
        quality: of a JPEG or WebP, 1 to 100; by default 95, and a WebP without loss.

    Raises:
        PictureError: the format cannot hold it, the place cannot be written, or the file is there.
    """
    check_output(path, width=image.width, height=image.height, alpha="A" in image.mode, quality=quality)
    name, options, _ = _FORMATS[path.suffix.lower()]
    if quality is not None:
        options = {**options, "quality": quality, **({"lossless": False} if name == "WEBP" else {})}
    try:
        with replacing(path, overwrite=overwrite) as aside:
            try:
                image.save(aside, format=name, **{**options, **save_options(image.info, name)})
            except decode.BROKEN as error:
                if isinstance(error, OSError):  # no fault of the picture
                    raise
                logger.warning("%s: EXIF data and resolution left out, which %s cannot hold: %s", path, name, error)
                image.save(aside, format=name, **options, icc_profile=image.info.get("icc_profile"))
    except FileExistsError:
        raise PictureError(f"{path} exists already; set overwrite to replace it.") from None
    except decode.BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise PictureError(f"{path} cannot be written: {reason}.") from error


def _load(image: ImageFile.ImageFile, name: str) -> Image.Image:
    fault = decode.find_fault(image)
    if fault:
        raise PictureError(f"{name} {fault}.")
    bits = decode.depth(image)
    if bits > 8:
        logger.warning("%s has %d bits per channel and is read with 8", name, bits)
    return decode.load(image)


def _check_size(image: Image.Image, path: Path, max_pixels: int | None) -> None:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise PictureError(
            f"{path} has {image.width} x {image.height} pixels; the limit is {max_pixels / 1e6:.3g} million pixels."
        )


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):  # a broken profile
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return image.convert("RGB")


def _gray_palette(image: Image.Image) -> bool:
    colours = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    used = colours[[index for _, index in image.getcolors() or [] if isinstance(index, int) and index < len(colours)]]
    return bool((used == used[:, :1]).all())
