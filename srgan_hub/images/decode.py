"""Open and decode image files."""

import importlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from . import animation, formats, pillow_fixes, tiff, tiff_media
from .errors import ImageError, describe, wrap_decode_errors
from .media import Opened
from .raster import Raster
from .tensors import inpaint
from .tiff_media import ChannelsReader, PagesReader, RowsReader, TiffImage

# 8000 x 8000 pixels; upscaled 4 times, that is a gigapixel.
MAX_PIXELS = 64_000_000
_START = 400  # bytes that identify a file


def open_image(
    path: Path, *, max_pixels: int | None = MAX_PIXELS, allow_truncated: bool = False, file: BinaryIO | None = None
) -> Opened:
    """Open an image, animation or video, and classify it by its bytes.

    Args:
        path: The file.
        max_pixels: The largest width times height, checked before and after decoding. Pillow refuses TIFFs, and some
            images within files, of more than twice `PIL.Image.MAX_IMAGE_PIXELS` regardless.
        allow_truncated: Read what is there of an image whose file is cut off, with a warning.
        file: The content, if it is open already; it is closed with the image. `path` is then only its name.

    Returns:
        The opened file; a `MediaReader` if it is to be upscaled piece by piece.

    Raises:
        ImageError: The file is missing, not an image, corrupt, of an unsupported kind or too large.
    """
    try:
        file = file or path.open("rb")
    except FileNotFoundError:
        raise ImageError(f"'{path}' does not exist.") from None
    except IsADirectoryError:
        raise ImageError(f"'{path}' is a directory; pass the images in it.") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"Cannot open '{path}': {describe(error)}.") from error
    try:
        with wrap_decode_errors(path):
            opened = _classify(path, file, max_pixels)
        opened.allow_truncated = allow_truncated
        pillow_fixes.check_size(opened.width, opened.height, path, max_pixels)
    except BaseException:
        file.close()
        raise
    return opened


def load_raster(
    path: Path, *, max_pixels: int | None = MAX_PIXELS, page: int | None = None, allow_truncated: bool = False
) -> Raster:
    """Decode an image file, with corrected orientation, to gray or RGB, with alpha if present, of 8 or 16 bits.

    Args:
        path, max_pixels, allow_truncated: As for `open_image`.
        page: Index of the image, required for an animation or a TIFF of several pages.

    Raises:
        ImageError: As for `open_image`; or it cannot be decoded, or `page` is required.
    """
    with open_image(path, max_pixels=max_pixels, allow_truncated=allow_truncated) as opened:
        return opened.load(page)


def load_image(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """Decode an image file, as `load_raster` does, to a PIL image of mode L, LA, RGB or RGBA."""
    return load_raster(path, max_pixels=max_pixels).fit_colors().with_bits(8).to_pil()


def load_rgb(
    path: Path, *, max_pixels: int | None = MAX_PIXELS, file: BinaryIO | None = None
) -> tuple[np.ndarray, list[str]]:
    """Decode an image file to the colors that the network sees when it is upscaled, as uint8 (H, W, 3).

    Gray becomes three equal channels, fully transparent pixels get the colors around them, 16 bits are rounded to 8.

    Returns:
        The array, and warnings about what it lacks, without the file's name.

    Raises:
        ImageError: As for `load_raster`.
    """
    with open_image(path, max_pixels=max_pixels, file=file) as opened:
        raster = opened.load().fit_colors()
    warnings = list(raster.warnings)
    if raster.bits > 8:
        warnings.append(f"{raster.bits} bits per channel are rounded to 8")
    array = raster.with_bits(8).array
    array = array[:, :, None] if array.ndim == 2 else array
    colors = array[:, :, : 1 if array.shape[2] < 3 else 3]
    if raster.has_alpha and not array[:, :, -1].all():
        warnings.append("transparent pixels get the colors around them")
        colors = inpaint(colors, array[:, :, -1])
    return np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:2], 3))), warnings


def default_suffix(path: Path) -> str:
    """Return the suffix of an upscaled file, whatever that of the input.

    It is .png, but that of a video, an animated GIF, or a multi-page, floating-point or large TIFF.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            found = formats.identify(file.read(_START))
            if found is formats.VIDEO:
                return suffix if suffix in found.suffixes else found.suffixes[0]
            if found in (formats.GIF, formats.TIFF):  # others become .png
                return _classify(path, file, None).default_suffix
    except Exception:  # reported when the file is upscaled
        return ".png"
    return ".png"


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory; False for a name that no file can have."""
    try:
        return path.is_dir()
    except OSError:
        return False


@dataclass
class Listing:
    """Content of a directory and its subdirectories.

    Args:
        images: Paths of images in the order of their names.
        left_out: Why the other paths are left out.
        errors: Errors of directories that cannot be read, with their `filename`.
    """

    images: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    errors: list[OSError] = field(default_factory=list)


def list_directory(
    directory: Path, exclude: Path | None = None, suffixes: Sequence[str] = formats.READ_SUFFIXES
) -> Listing:
    """List the images below a directory by their suffixes, and everything else except for a directory `exclude`."""
    found = Listing()
    excluded = exclude and os.path.realpath(exclude)
    for root, directories, files in os.walk(directory, onerror=found.errors.append):
        for name in directories[:]:
            path = Path(root, name)
            if name.startswith("."):
                found.left_out[path] = "hidden"
            elif os.path.islink(path):  # noqa: PTH114  # which may raise
                found.left_out[path] = "linked (links to directories are not followed)"
            elif os.path.realpath(path) != excluded:
                continue
            directories.remove(name)
        for path in (Path(root, name) for name in files):
            if reason := _left_out_reason(path, suffixes):
                found.left_out[path] = reason
            else:
                found.images.append(path)
    found.images.sort(key=lambda path: path.relative_to(directory).as_posix())
    return found


def _left_out_reason(path: Path, suffixes: Sequence[str]) -> str | None:
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "hidden"
    if formats.find_format(suffix) is formats.VIDEO:
        return f"{suffix} (pass videos as files)"
    if suffix not in suffixes:
        return f"{suffix or 'without suffix'} (not an image format)"
    try:
        return None if stat.S_ISREG(path.stat().st_mode) else "special (not a regular file)"
    except OSError:  # reported when it is opened
        return None


def find_images(directory: Path, exclude: Path | None, suffixes: Sequence[str]) -> list[Path]:
    """List image files as `list_directory` does. OSError if a directory cannot be read."""
    found = list_directory(directory, exclude, suffixes)
    if found.errors:
        raise found.errors[0]
    return [path for path in found.images if path.is_file()]


def _classify(path: Path, file: BinaryIO, max_pixels: int | None) -> Opened:
    file.seek(0)
    start = file.read(_START)
    if not start:
        raise ImageError(f"'{path}' is empty (0 bytes).")
    found = formats.identify(start)
    if found is formats.TIFF:
        return _open_tiff(path, file, max_pixels)
    if found is formats.VIDEO:
        if not found.is_available():
            raise ImageError(f"'{path}' is a video, which requires the `av` package: {found.install_hint}.")
        from .video import VideoReader

        return VideoReader(path, file, max_pixels)
    if found and found.package and found.is_available():
        plugin = importlib.import_module(found.package)  # which registers JPEG XL
        if found is formats.HEIC:
            plugin.register_heif_opener()
    image = pillow_fixes.open_pil(file, path, max_pixels)
    count = pillow_fixes.count_images(image)
    if count > 1 and image.format in animation.FORMATS:
        return animation.AnimationReader(path, file, image, max_pixels, count)
    return Opened(path, file, image, max_pixels, count)


def _open_tiff(path: Path, file: BinaryIO, max_pixels: int | None) -> Opened:
    count, is_cut = tiff.count_pages(file, path)
    pages = tiff.open_pages(file, count)
    sizes = {index: (page.imagewidth, page.imagelength) for index, page in pages.items()}
    image: ImageFile.ImageFile | None = None
    kind: type[TiffImage] = ChannelsReader
    if not any(map(tiff.stores_channels, pages.values())):
        if not (pages and tiff.is_unsupported_by_pillow(next(iter(pages.values())))):
            image = pillow_fixes.open_pil(file, path, max_pixels)
            sizes = pillow_fixes.page_sizes(image, count)
        if not sizes:
            raise ImageError(f"'{path}' contains no image.")
        ((width, height), *others) = sizes.values()
        by_rows = image and pages and width * height >= tiff_media.LARGE and all(map(tiff.stores_rows, pages.values()))
        kind = PagesReader if others else RowsReader if by_rows else TiffImage
    opened = kind(path, file, image, max_pixels, pages, sizes)
    if any(tiff.GEO_KEYS in page.tags for page in pages.values()):
        opened.warnings.append("its georeference is not kept; docs/scientific.md has a recipe that keeps it")
    if is_cut:
        opened.warnings.append(f"the chain of its pages ends in a corrupt directory after page {len(sizes)}")
    return opened
