"""Files of several pictures: which kind one is of, and how its results get into their place."""

import importlib.util
from pathlib import Path

from . import animation, decode, files, large, pages
from .film import Film

# What a result is written as where a file of this kind comes in; the others become the first.
_VIDEOS = {".mp4": ".mp4", ".m4v": ".m4v", ".mov": ".mov", ".mkv": ".mkv", ".webm": ".webm"}
VIDEO_SUFFIXES = (*_VIDEOS, ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".nut")


def open_film(path: Path, *, max_pixels: int | None) -> Film | None:
    """Open a file of several pictures; None if it holds one. Arguments and errors as for `files.read`."""
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        if not importlib.util.find_spec("av"):
            raise files.PictureError(f"{path} is a video, which needs PyAV; pip install 'srgan-hub[video]'.")
        from .video import Video

        return Video(path, max_pixels)
    with files.open_header(path, max_pixels=max_pixels, several=True) as image:
        if image.format in animation.FORMATS and getattr(image, "n_frames", 1) > 1:
            return animation.Animation(path, image)
        if image.format == "TIFF" and len(numbers := decode.pages(image)) > 1:
            return pages.Pages(path, numbers, max_pixels)
    return None


def suffix_of(path: Path) -> str:
    """Return the suffix of a file's result where none is named: .png, but for several pictures and large ones."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return _VIDEOS.get(suffix, ".mp4")
    if suffix not in (".gif", ".tif", ".tiff"):  # others become .png anyway
        return ".png"
    try:
        film = open_film(path, max_pixels=None)
        if suffix != ".gif" and not film and large.open_large(path, max_pixels=None):
            return suffix
    except files.PictureError:  # which is said when it is read
        return ".png"
    return film.suffixes[0] if film else ".png"


def check(film: Film, path: Path, *, width: int, height: int, quality: int | None) -> None:
    """Check that a film's results, of this size at most, can be written to `path`, as `files.check_output` does."""
    if path.suffix.lower() not in film.suffixes:
        raise files.PictureError(
            f"{path}: expected {' or '.join(film.suffixes)} for {film.kind}, got {path.suffix or 'no suffix'}."
        )
    files.check_place(path)
    limit = film.limits.get(path.suffix.lower(), 65_535)
    if max(width, height) > limit:
        raise files.PictureError(f"{path}: it holds at most {limit} pixels a side, this is {width} x {height}.")
    lossy = film.lossy
    if quality is not None and not (path.suffix.lower() in lossy and 1 <= quality <= 100):
        raise files.PictureError(
            f"{path}: expected a quality from 1 to 100 and {' or '.join(lossy) or 'one picture'}, got {quality}."
        )
