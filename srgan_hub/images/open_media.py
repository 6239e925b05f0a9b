"""Which kind of source a file is, and whether its result can go where it shall."""

import importlib.util
from pathlib import Path

from . import animation, decode, pillow_fixes, png16, tiff_channels, tiff_pages, tiff_tiled
from .media import Media, OutputOptions

# What a result is written as where a file of this kind comes in; the others become the first.
_VIDEOS = {".mp4": ".mp4", ".m4v": ".m4v", ".mov": ".mov", ".mkv": ".mkv", ".webm": ".webm"}
VIDEO_SUFFIXES = (*_VIDEOS, ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".nut")


def open_media(
    path: Path, suffix: str, *, max_pixels: int | None, value_range: tuple[float, float] | None = None
) -> Media | None:
    """Open what is not read at once; None if `decode.load_raster` reads it.

    Args:
        path: the file.
        suffix: of the result; a large TIFF that becomes something else is read at once.
        max_pixels: as for `decode.load_raster`.
        value_range: what black and white mean in floats, by default the lowest and the highest number.

    Raises:
        ImageError: as `decode.load_raster`.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        if not importlib.util.find_spec("av"):
            raise decode.ImageError(f"{path} is a video, which needs PyAV; pip install 'srgan-hub[video]'.")
        from .video import Video

        return Video(path, max_pixels)
    if found := tiff_channels.open_planes(path, max_pixels=max_pixels, value_range=value_range):
        return found
    if png16.load_tiff16(path, None, max_pixels):
        return None
    with decode.open_image(path, max_pixels=max_pixels, several=True) as image:
        if image.format in animation.FORMATS and getattr(image, "n_frames", 1) > 1:
            return animation.Animation(path, image)
        if image.format == "TIFF" and len(numbers := pillow_fixes.page_indices(image)) > 1:
            return tiff_pages.MultiPageTiff(path, numbers, max_pixels)
        if suffix.lower() in tiff_tiled.TiledTiff.suffixes and tiff_tiled.is_large(image):
            return tiff_tiled.TiledTiff(path, image)
    return None


def default_suffix(path: Path) -> str:
    """Return the suffix of a file's result where none is named: .png, but for several images and large ones."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return _VIDEOS.get(suffix, ".mp4")
    if suffix not in (".gif", ".tif", ".tiff"):  # others become .png anyway
        return ".png"
    try:
        source = open_media(path, suffix, max_pixels=None)
    except decode.ImageError:  # which is said when it is read
        return ".png"
    return source.suffixes[0] if source else ".png"


def validate(source: Media, output: OutputOptions) -> None:
    """Check that a source's result can be written where it shall, as `decode.validate_output` does."""
    path, quality = output.path, output.quality
    if path.suffix.lower() not in source.suffixes:
        raise decode.ImageError(
            f"{path}: expected {' or '.join(source.suffixes)} for {source.kind}, got {path.suffix or 'no suffix'}."
        )
    decode.validate_path(path)
    if path.suffix.lower() in tiff_pages.MultiPageTiff.suffixes and not importlib.util.find_spec("tifffile"):
        raise decode.ImageError(f"{path}: {source.kind} needs tifffile; pip install 'srgan-hub[tiff]'.")
    limit = source.max_side.get(path.suffix.lower(), 65_535)
    if max(output.width, output.height) > limit:
        raise decode.ImageError(
            f"{path}: it holds at most {limit} pixels a side, this is {output.width} x {output.height}."
        )
    lossy = source.lossy
    if quality is not None and not (path.suffix.lower() in lossy and 1 <= quality <= 100):
        raise decode.ImageError(
            f"{path}: expected a quality from 1 to 100 and {' or '.join(lossy) or 'one image'}, got {quality}."
        )
