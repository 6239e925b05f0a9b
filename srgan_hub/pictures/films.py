"""Files of several pictures: which kind one is of, and how its results get into their place."""

from collections.abc import Iterable
from pathlib import Path

from ..replacing import replacing
from . import animation, decode, files, pages
from .film import Film
from .raster import Raster


def open_film(path: Path, *, max_pixels: int | None) -> Film | None:
    """Open a file of several pictures; None if it holds one. Arguments and errors as for `files.read`."""
    with files.open_header(path, max_pixels=max_pixels, several=True) as image:
        if image.format in animation.FORMATS and getattr(image, "n_frames", 1) > 1:
            return animation.Animation(path, image)
        if image.format == "TIFF" and len(numbers := decode.pages(image)) > 1:
            return pages.Pages(path, numbers, max_pixels)
    return None


def suffix_of(path: Path) -> str:
    """Return the suffix of the result of a file where none is named: .png, unless it holds several pictures."""
    if path.suffix.lower() not in (".gif", ".tif", ".tiff"):  # others become .png anyway
        return ".png"
    try:
        film = open_film(path, max_pixels=None)
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


def write(film: Film, results: Iterable[Raster], path: Path, *, overwrite: bool, quality: int | None) -> None:
    """Write a film's results, aside first and then renamed, as `files.write` does."""
    try:
        with replacing(path, overwrite=overwrite) as aside:
            film.write(results, aside, path.suffix.lower(), quality)
    except FileExistsError:
        raise files.PictureError(f"{path} exists already; set overwrite to replace it.") from None
