"""Which kind of source a file is, and whether its result can go where it shall."""

import importlib.util
from pathlib import Path

from . import animation, decode, deep, files, large, pages, planes
from .source import Output, Source

# What a result is written as where a file of this kind comes in; the others become the first.
_VIDEOS = {".mp4": ".mp4", ".m4v": ".m4v", ".mov": ".mov", ".mkv": ".mkv", ".webm": ".webm"}
VIDEO_SUFFIXES = (*_VIDEOS, ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".nut")


def open_source(
    path: Path, suffix: str, *, max_pixels: int | None, limits: tuple[float, float] | None = None
) -> Source | None:
    """Open what is not read at once; None if `files.read` reads it.

    Args:
        path: the file.
        suffix: of the result; a large TIFF that becomes something else is read at once.
        max_pixels: as for `files.read`.
        limits: what black and white mean in floats, by default the lowest and the highest number.

    Raises:
        PictureError: as `files.read`.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        if not importlib.util.find_spec("av"):
            raise files.PictureError(f"{path} is a video, which needs PyAV; pip install 'srgan-hub[video]'.")
        from .video import Video

        return Video(path, max_pixels)
    if found := planes.open_planes(path, max_pixels=max_pixels, limits=limits):
        return found
    if deep.read_tiff(path, None, max_pixels):
        return None
    with files.open_header(path, max_pixels=max_pixels, several=True) as image:
        if image.format in animation.FORMATS and getattr(image, "n_frames", 1) > 1:
            return animation.Animation(path, image)
        if image.format == "TIFF" and len(numbers := decode.pages(image)) > 1:
            return pages.Pages(path, numbers, max_pixels)
        if suffix.lower() in large.Large.suffixes and large.is_large(image):
            return large.Large(path, image)
    return None


def suffix_of(path: Path) -> str:
    """Return the suffix of a file's result where none is named: .png, but for several pictures and large ones."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return _VIDEOS.get(suffix, ".mp4")
    if suffix not in (".gif", ".tif", ".tiff"):  # others become .png anyway
        return ".png"
    try:
        source = open_source(path, suffix, max_pixels=None)
    except files.PictureError:  # which is said when it is read
        return ".png"
    return source.suffixes[0] if source else ".png"


def check(source: Source, output: Output) -> None:
    """Check that a source's result can be written where it shall, as `files.check_output` does."""
    path, quality = output.path, output.quality
    if path.suffix.lower() not in source.suffixes:
        raise files.PictureError(
            f"{path}: expected {' or '.join(source.suffixes)} for {source.kind}, got {path.suffix or 'no suffix'}."
        )
    files.check_place(path)
    if path.suffix.lower() in pages.Pages.suffixes and not importlib.util.find_spec("tifffile"):
        raise files.PictureError(f"{path}: {source.kind} needs tifffile; pip install 'srgan-hub[tiff]'.")
    limit = source.limits.get(path.suffix.lower(), 65_535)
    if max(output.width, output.height) > limit:
        raise files.PictureError(
            f"{path}: it holds at most {limit} pixels a side, this is {output.width} x {output.height}."
        )
    lossy = source.lossy
    if quality is not None and not (path.suffix.lower() in lossy and 1 <= quality <= 100):
        raise files.PictureError(
            f"{path}: expected a quality from 1 to 100 and {' or '.join(lossy) or 'one picture'}, got {quality}."
        )
