"""Image files to arrays and back, keeping color profile, EXIF, resolution, transparency and gray."""

import importlib.util
import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError, features

from ..fileio import atomic_write
from . import pillow_fixes, plugins, png16
from .metadata import pil_save_kwargs, read_metadata, update_dimensions
from .raster import Raster

logger = logging.getLogger(__name__)

# By suffix: Pillow's name of the format, how it is written, its largest side.
_FORMATS: dict[str, tuple[str, dict[str, Any], int]] = {
    ".png": ("PNG", {}, 2**31 - 1),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}, 65_535),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}, 65_535),
    ".webp": ("WEBP", {"lossless": True}, 16_383),
    ".avif": ("AVIF", {"quality": 90, "subsampling": "4:4:4"}, 65_535),
    ".bmp": ("BMP", {}, 2**31 - 1),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}, 2**31 - 1),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}, 2**31 - 1),
}
SUFFIXES = tuple(_FORMATS)
# Of the images that are looked for in folders.
READ_SUFFIXES = (
    *SUFFIXES, ".apng", ".avif", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".pbm", ".pgm", ".pnm",
    ".ppm", ".psd", ".tga",
)  # fmt: skip
# 8000 x 8000 in; four times as large, that is a gigapixel out.
MAX_PIXELS = 64_000_000


class ImageError(ValueError):
    """An image that cannot be read, upscaled or written. The message names it, says why and what to do."""


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; a name that no file can have names none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def find_images(folder: Path, without: Path | None = None, suffixes: Sequence[str] = READ_SUFFIXES) -> list[Path]:
    """List the images in a folder and below, in an order that depends on their names alone, but for hidden ones.

    Args:
        folder: where to look.
        without: a folder whose images are left out.
        suffixes: what makes a file an image.
    """
    found = []
    without = without and without.resolve()
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and without not in path.resolve().parents and path.is_file():
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def load_image(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """Read an image file as `read` does, with 8 bits: a PIL image of mode L, LA, RGB or RGBA, and `info`."""
    raster = load_raster(path, max_pixels=max_pixels)
    if raster.bits > 8:
        logger.warning("%s has %d bits per channel and is read with 8", path, raster.bits)
    return raster.with_bits(8).to_pil()


def load_raster(path: Path, *, max_pixels: int | None = MAX_PIXELS, page: int | None = None) -> Raster:
    """Read an image file, upright: gray or RGB, with alpha if it has any, of 8 or 16 bits a channel.

    Args:
        path: a file of any kind that Pillow reads.
        max_pixels: the largest width times height, checked before decoding and after it. What lies between, such as
            the images within an icon, is bounded by `PIL.Image.MAX_IMAGE_PIXELS`.
        page: of a file of several images, counted from 0.

    Raises:
        ImageError: the file is missing, no image, broken, of an unsupported kind or too large, or it holds several
            images and no page is named.
    """
    if found := png16.load_tiff16(path, page, max_pixels):
        return found
    with open_image(path, max_pixels=max_pixels, page=page) as image, wrap_decode_errors(path):
        loaded = _load(image, str(path), path)
        if isinstance(loaded, np.ndarray):
            turn, info = read_metadata(image, str(path))
            return Raster(np.ascontiguousarray(_turn(loaded, turn)), info)
        # An icon may hold another image than its header says.
        _check_size(loaded, path, max_pixels)
        return from_pil(loaded, name=str(path))


@contextmanager
def wrap_decode_errors(path: Path) -> Iterator[None]:
    """Turn what libraries raise while they decode a file into an ImageError that names it."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} holds far too many pixels: {error}.") from error
    except pillow_fixes.DECODE_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} is broken or cut short: {error}; try opening and saving it again.") from error


def open_image(
    path: Path, *, max_pixels: int | None = MAX_PIXELS, page: int | None = None, several: bool = False
) -> ImageFile.ImageFile:
    """Open an image and check what its header says; nothing is decoded yet. Arguments and errors as for `read`.

    With `several` a file of several images is opened at the first one.
    """
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder; name the images in it.")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes).")
        plugins.load(path)
        image = Image.open(path)
        numbers = pillow_fixes.page_indices(image) if page is None else [page]
        if numbers[0] or image.format == "TIFF":  # whose pages were gone through
            image.seek(numbers[0])
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except Image.DecompressionBombError:
        limit = f"the limit is {max_pixels / 1e6:.3g} million pixels" if max_pixels else "Pillow's limit is lower"
        raise ImageError(f"{path} {pillow_fixes.identify_failure(path)}; {limit}.") from None
    except MemoryError:  # a header of a few bytes, whose parts say that they are huge
        raise ImageError(f"{path} is broken: its header asks for more memory than there is.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path} {pillow_fixes.identify_failure(path)}.") from None
    except pillow_fixes.DECODE_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"{path} cannot be opened: {reason}.") from error
    try:
        if len(numbers) > 1 and not several:
            raise ImageError(f"{path} holds {len(numbers)} images; the command line upscales such files.")
        _check_size(image, path, max_pixels)
    except ImageError:
        image.close()
        raise
    return image


def from_pil(image: Image.Image, *, name: str = "the image") -> Raster:
    """Turn a PIL image upright and into gray or RGB, without colors where its palette has none.

    Raises:
        ImageError: the mode has no such equivalent.
    """
    if isinstance(image, ImageFile.ImageFile) and image.tile:
        loaded = _load(image, name)
        assert isinstance(loaded, Image.Image)
        image = loaded
    turn, info = read_metadata(image, name)
    image = image if turn is None else image.transpose(turn)
    if image.mode == "CMYK":
        image = _from_cmyk(image)
        info.pop("icc_profile", None)
    elif image.mode == "LAB":
        image = _from_lab(image)
        info.pop("icc_profile", None)
    elif image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        key = image.info.get("transparency")
        if key is not None:
            levels = np.dstack([levels, np.where(levels == key, 0, 65_535).astype(np.uint16)])
        return Raster(levels, info)
    elif image.mode in ("1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV"):
        gray = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _gray_palette(image))
        alpha = image.has_transparency_data
        # Pillow reads transparency out of palettes and color keys only on the way to RGBA, and La goes only to LA.
        image = image.convert("LA" if image.mode == "La" else "RGBA") if alpha else image
        image = image.convert(("L" if gray else "RGB") + ("A" if alpha else ""))
    else:
        raise ImageError(f"{name} has pixels of mode {image.mode}; 8-bit gray, color and palette can be upscaled.")
    return Raster(np.asarray(image), info)


def validate_output(
    path: Path, *, width: int, height: int, alpha: bool, bits: int = 8, quality: int | None = None
) -> None:
    """Check that an image of this size and kind can be written to `path`, before any work is done.

    Raises:
        ImageError: the suffix is unknown, its format cannot hold the image, a library for it is missing, or the
            folder is not to be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ImageError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; use {', '.join(SUFFIXES)}.")
    validate_path(path)
    name, _, limit = _FORMATS[path.suffix.lower()]
    if max(width, height) > limit:
        raise ImageError(f"{path}: {name} holds at most {limit} pixels a side, this is {width} x {height}; use .png.")
    if alpha and name in ("JPEG", "BMP"):
        raise ImageError(f"{path}: {name} cannot hold transparency; use .png, .webp or .tif.")
    if bits > 8 and name == "TIFF" and not importlib.util.find_spec("tifffile"):
        raise ImageError(f"{path}: a TIFF of {bits} bits needs tifffile; pip install 'srgan-hub[tiff]', or use .png.")
    if name == "AVIF" and not features.check("avif"):
        raise ImageError(f"{path}: this version of Pillow writes no AVIF; update it, or use .webp.")
    if quality is not None and (name not in ("JPEG", "WEBP", "AVIF") or not 1 <= quality <= 100):
        raise ImageError(f"{path}: expected a quality from 1 to 100 and .jpg, .webp or .avif, got {quality}.")


def validate_path(path: Path) -> None:
    """Check that a file of this name can be written. ImageError if not."""
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise ImageError(f"{path} cannot be written: {path.parent} is not a folder that you may write to.")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise ImageError(f"{path} cannot be written: {error.strerror}.") from error


def save_image(image: Raster | Image.Image, path: Path, *, overwrite: bool = True, quality: int | None = None) -> None:
    """Write an image by its suffix, aside first and then renamed: the file is whole or not there.

    Args:
        image: with 16 bits a channel it is written so where the format is PNG or TIFF; others hold 8.
        path: where it goes.
        overwrite: replace a file that is there by then.
        quality: of a JPEG, AVIF or WebP, 1 to 100; by default 95, 90, and a WebP without loss.

    Raises:
        ImageError: the format cannot hold it, the place cannot be written, or the file is there.
    """
    raster = from_pil(image) if isinstance(image, Image.Image) else image
    name, options, _ = _FORMATS.get(path.suffix.lower(), ("", {}, 0))
    if raster.bits > 8 and path.suffix.lower() not in png16.SUFFIXES:
        logger.warning("%s: %s holds 8 bits per channel of %d", path, name, raster.bits)
        raster = raster.with_bits(8)
    validate_output(
        path, width=raster.width, height=raster.height, alpha=raster.alpha, bits=raster.bits, quality=quality
    )
    if quality is not None:
        options = {**options, "quality": quality, **({"lossless": False} if name == "WEBP" else {})}
    raster = replace(raster, info=update_dimensions(raster.info, raster.width, raster.height))
    with atomic_output(path, overwrite=overwrite) as tmp_path:
        if raster.bits > 8:
            png16.write(raster, tmp_path, kind=name, name=str(path))
            return
        pil_image = raster.to_pil()
        try:
            pil_image.save(tmp_path, format=name, **{**options, **pil_save_kwargs(pil_image.info, name, str(path))})
        except pillow_fixes.DECODE_ERRORS as error:
            if isinstance(error, OSError):  # no fault of the image
                raise
            logger.warning("%s: EXIF data and resolution left out, which %s cannot hold: %s", path, name, error)
            pil_image.save(tmp_path, format=name, **options, icc_profile=pil_image.info.get("icc_profile"))


@contextmanager
def atomic_output(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Make an empty file for the block to fill, which gets the name when the block ends. ImageError if that fails."""
    try:
        with atomic_write(path, overwrite=overwrite) as tmp_path:
            yield tmp_path
    except FileExistsError:
        raise ImageError(f"{path} exists already; set overwrite to replace it.") from None
    except pillow_fixes.DECODE_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"{path} cannot be written: {reason}.") from error


def _load(image: ImageFile.ImageFile, name: str, path: Path | None = None) -> Image.Image | np.ndarray:
    """Decode an opened file: as an array if it is of 16 bits a channel, and `path` says where it lies."""
    fault = pillow_fixes.unsupported_reason(image)
    if fault:
        raise ImageError(f"{name} {fault}.")
    bits = pillow_fixes.bit_depth(image)
    levels = png16.read(image, path) if path and bits > 8 else None
    if levels is not None:
        return levels
    loaded = pillow_fixes.decode(image)
    if bits > 8 and not loaded.mode.startswith("I;16"):
        logger.warning("%s has %d bits per channel and is read with 8", name, bits)
    return loaded


def _turn(array: np.ndarray, turn: Image.Transpose | None) -> np.ndarray:
    """Transpose (H, W, C) as Pillow transposes an image."""
    match turn:
        case Image.Transpose.FLIP_LEFT_RIGHT:
            return array[:, ::-1]
        case Image.Transpose.FLIP_TOP_BOTTOM:
            return array[::-1]
        case Image.Transpose.ROTATE_180:
            return array[::-1, ::-1]
        case Image.Transpose.TRANSPOSE:
            return array.swapaxes(0, 1)
        case Image.Transpose.TRANSVERSE:
            return array[::-1, ::-1].swapaxes(0, 1)
        case Image.Transpose.ROTATE_90:
            return np.rot90(array)
        case Image.Transpose.ROTATE_270:
            return np.rot90(array, -1)
    return array


def _check_size(image: Image.Image, path: Path, max_pixels: int | None) -> None:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ImageError(
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


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB")) or image


def _gray_palette(image: Image.Image) -> bool:
    colors = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    used = colors[[index for _, index in image.getcolors() or [] if isinstance(index, int) and index < len(colors)]]
    return bool((used == used[:, :1]).all())
