"""What a larger copy of a picture keeps of it: colour profile, EXIF data and resolution, where they are valid."""

import logging
from typing import Any

from PIL import ExifTags, Image

from .decode import BROKEN
from .raster import Raster

logger = logging.getLogger(__name__)

# What JPEG holds; PNG and BMP hold a little more.
_MAX_DPI = 65_535
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# These say how a TIFF's own pixels are stored; a camera's EXIF data may say it of other pixels.
_STORAGE_TAGS = {
    *range(254, 267), *(273, 274, 284, 301), *range(277, 282), *range(290, 294), *range(317, 348), *range(512, 533),
}  # fmt: skip


def read_carried(image: Image.Image, name: str) -> tuple[Image.Transpose | None, dict[Any, Any]]:
    """Return the turn that puts an image upright, and icc_profile, exif (orientation reset) and dpi where it has them.

    What is broken is left out with a warning that begins with `name`.
    """
    info: dict[Any, Any] = {}
    if isinstance(image.info.get("icc_profile"), bytes):
        info["icc_profile"] = image.info["icc_profile"]
    turn, data = None, image.info.get("exif")
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        if data:
            exif = Image.Exif()
            exif.load(data)
            if not exif:
                raise ValueError("nothing in it can be read")
            exif.pop(ExifTags.Base.Orientation, None)
            encoded = exif.tobytes()  # fails if anything in it is broken
            info["exif"] = data if turn is None else encoded
    except BROKEN as error:
        logger.warning("%s: broken EXIF data left out: %s", name, error)
    dpi = image.info.get("dpi", ())
    try:
        across, down = (float(each) for each in dpi)
        if not (0 < across <= _MAX_DPI and 0 < down <= _MAX_DPI):
            raise ValueError
        info["dpi"] = (across, down)
    except (ArithmeticError, TypeError, ValueError):
        if dpi and tuple(dpi) != (0, 0):  # which BMP has where it has none
            logger.warning("%s: a resolution of %s dots per inch left out", name, " x ".join(map(str, dpi)))
    return turn, info


def strip(image: Image.Image | Raster, *, gps: bool = False) -> None:
    """Drop a picture's EXIF data and resolution, or with `gps` only the place out of the EXIF data.

    The colour profile stays: without it the colours would be others.
    """
    if not gps:
        image.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    elif image.info.get("exif"):
        exif = Image.Exif()
        exif.load(image.info["exif"])
        exif.get_ifd(ExifTags.IFD.Exif)  # or it would not be written again
        if exif.pop(ExifTags.IFD.GPSInfo, None) is not None:
            image.info["exif"] = exif.tobytes()


def save_options(info: dict[Any, Any], kind: str) -> dict[str, Any]:
    """Return the options of `Image.save` that write what `read_carried` found into a file of Pillow's `kind`."""
    options = {key: info[key] for key in ("icc_profile", "exif", "dpi") if info.get(key)}
    if kind == "TIFF" and "exif" in options:
        exif = options["exif"] = Image.Exif()
        exif.load(info["exif"])
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        nested = exif.get_ifd(ExifTags.IFD.Exif)
        if ExifTags.IFD.Interop in nested:
            nested[ExifTags.IFD.Interop] = exif.get_ifd(ExifTags.IFD.Interop)
        if nested or exif.get_ifd(ExifTags.IFD.GPSInfo):
            options["compression"] = None  # without it Pillow cannot write nested directories
    return options
