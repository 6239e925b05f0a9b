"""What a larger copy of an image keeps of it: profile, EXIF data, XMP, text, resolution, where they are valid."""

import logging
import re
from collections.abc import Collection
from typing import Any, Protocol

from PIL import ExifTags, Image, PngImagePlugin

from .pillow_fixes import DECODE_ERRORS

logger = logging.getLogger(__name__)

_SRGB_GAMMA = (45_455).to_bytes(4, "big")
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
# These say what a TIFF shows and who made it; others would be wrong for a larger copy, such as a map's.
_DESCRIPTIVE_TAGS = {269, 270, 271, 272, 305, 306, 315, 316, 33432, *range(40091, 40096)}
_NESTED = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
# A PNG's chunks that say what its numbers mean as colors.
_COLOR_CHUNKS = (b"gAMA", b"cHRM", b"cICP")
_XMP_KEY = "XML:com.adobe.xmp"
_XMP_TAG = 700
# What each of Pillow's formats holds of what is carried; all hold the color profile but BMP.
_HOLDS = {
    "PNG": {"exif", "dpi", "xmp", "text", "color"},
    "JPEG": {"exif", "dpi", "xmp", "comment"},
    "TIFF": {"exif", "dpi", "xmp", "comment"},
    "WEBP": {"exif", "xmp"},
    "AVIF": {"exif", "xmp"},
    "GIF": {"comment"},
    "BMP": {"dpi"},
}


class HasInfo(Protocol):
    """An image that carries something: a PIL image, or one of this package's kinds."""

    info: dict[Any, Any]


def read_metadata(image: Image.Image, name: str) -> tuple[Image.Transpose | None, dict[Any, Any]]:
    """Return the turn that puts an image upright, and what a larger copy keeps of what it carries.

    That is, where the image has it: icc_profile, exif (upright, without its thumbnail) and xmp, bytes; dpi, a pair;
    text, a dictionary; color, chunks of a PNG by their names. What is broken is left out with a warning that begins
    with `name`.
    """
    info: dict[Any, Any] = {}
    if isinstance(image.info.get("icc_profile"), bytes):
        info["icc_profile"] = image.info["icc_profile"]
    turn = None
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        if encoded := _encode_exif(image):
            info["exif"] = encoded
    except DECODE_ERRORS as error:
        logger.warning("%s: broken EXIF data left out: %s", name, error)
    xmp = image.info.get("xmp") or image.info.get(_XMP_KEY)
    if xmp:
        # Upright at once: Pillow looks here, too, for how an image is turned.
        info["xmp"] = _set_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp), {"tiff:Orientation": 1})
    # What this function has put there before, and what Pillow has.
    text = {**kept} if isinstance(kept := image.info.get("text"), dict) else {}
    text |= {key: value for key, value in image.info.items() if isinstance(value, str) and isinstance(key, str)}
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        text["Comment"] = comment.decode(errors="replace").rstrip("\0")
    info |= {key: image.info[key] for key in ("color", "software") if key in image.info}
    ours = (_XMP_KEY, "compression", "xmp", "software")
    text = {key: str(value) for key, value in text.items() if value and key not in ours}
    if text:
        info["text"] = text
    if image.format == "PNG" and (color := _color_chunks(image)):
        info["color"] = color
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


def strip(image: HasInfo, *, gps: bool = False) -> None:
    """Drop what an image carries, or with `gps` only the place out of its EXIF data and XMP.

    What says how its colors look stays: the profile, and a PNG's chunks.
    """
    if not gps:
        image.info = {key: value for key, value in image.info.items() if key in ("icc_profile", "color")}
        return
    if image.info.get("exif"):
        exif = _load_exif(image.info["exif"])
        if exif.pop(ExifTags.IFD.GPSInfo, None) is not None:
            image.info["exif"] = exif.tobytes()
    if image.info.get("xmp"):
        text = image.info["xmp"].decode(errors="surrogateescape")
        text = re.sub(r"\s*<(exif:GPS\w+)\b.*?(/>|</\1>)", "", text, flags=re.DOTALL)
        text = re.sub(r"\s*exif:GPS\w+=(\"[^\"]*\"|'[^']*')", "", text)
        image.info["xmp"] = text.encode(errors="surrogateescape")


def set_software(image: HasInfo, program: str) -> None:
    """Note the program that made an image; it goes where the format has a place for that."""
    image.info["software"] = program


def update_dimensions(info: dict[Any, Any], width: int, height: int) -> dict[Any, Any]:
    """Return what is carried for a copy of this size: EXIF data and XMP state the new one."""
    info = dict(info)
    if info.get("exif"):
        exif = _load_exif(info["exif"])
        nested = exif.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in exif else {}
        sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
        outer = {ExifTags.Base.ImageWidth: width, ExifTags.Base.ImageLength: height}
        if sizes.keys() & nested.keys() or outer.keys() & exif.keys():
            nested.update({tag: size for tag, size in sizes.items() if tag in nested})
            exif.update({tag: size for tag, size in outer.items() if tag in exif})
            info["exif"] = exif.tobytes()
    if info.get("xmp"):
        names = {"tiff:ImageWidth": width, "tiff:ImageLength": height}
        names |= {"exif:PixelXDimension": width, "exif:PixelYDimension": height}
        info["xmp"] = _set_xmp(info["xmp"], names)
    return info


def pil_save_kwargs(info: dict[Any, Any], kind: str, name: str) -> dict[str, Any]:
    """Return the options of `Image.save` that write what is carried into a file of Pillow's `kind`.

    What it cannot hold is said in one line that begins with `name`.
    """
    holds = _HOLDS[kind]
    options = {key: info[key] for key in ("icc_profile", "exif", "dpi", "xmp") if info.get(key)}
    options = {key: value for key, value in options.items() if key == "icc_profile" or key in holds}
    text = dict(info.get("text") or {})
    if "comment" in holds and "Comment" in text:
        options["comment"] = text.pop("Comment")
    warn_dropped({**info, "text": text}, holds, kind, name)
    if kind == "PNG":
        options["pnginfo"] = png_info(info)
        options.pop("xmp", None)
    elif kind == "GIF":
        options.setdefault("comment", info.get("software", ""))
    elif kind != "BMP" and (info.get("software") or kind == "TIFF"):
        exif = options["exif"] = _load_exif(options.get("exif", b""))
        if info.get("software"):
            exif[ExifTags.Base.Software] = info["software"]
    if kind == "TIFF":
        exif = options["exif"]
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        if "xmp" in options:
            exif[_XMP_TAG] = options.pop("xmp")
        if "comment" in options:
            exif.setdefault(ExifTags.Base.ImageDescription, options.pop("comment"))
        if ExifTags.IFD.Exif in exif and ExifTags.IFD.Interop in (nested := exif.get_ifd(ExifTags.IFD.Exif)):
            nested[ExifTags.IFD.Interop] = exif.get_ifd(ExifTags.IFD.Interop)
        if _NESTED & exif.keys():
            options["compression"] = None  # without it Pillow cannot write nested directories
    return options


def warn_dropped(info: dict[Any, Any], holds: Collection[str], kind: str, name: str) -> None:
    """Say in one line what a format cannot hold of what an image carries."""
    words = {"exif": "EXIF data", "xmp": "XMP", "dpi": "resolution", "color": "gamma and primaries"}
    lost = [word for key, word in words.items() if info.get(key) and key not in holds and not _is_usual(info, key)]
    if info.get("text") and "text" not in holds:
        lost.append(f"text ({', '.join(info['text'])})")
    if lost:
        logger.warning("%s: left out, which %s cannot hold: %s", name, kind, ", ".join(lost))


def png_info(info: dict[Any, Any]) -> PngImagePlugin.PngInfo:
    """Return the chunks of a PNG that hold what is carried, but for profile, EXIF data and resolution."""
    chunks = PngImagePlugin.PngInfo()
    for name, data in (info.get("color") or {}).items():
        chunks.add(name, data)
    text = dict(info.get("text") or {})
    if info.get("software"):
        text["Software"] = info["software"]
    for key, value in text.items():
        # Latin-1 is what a plain text chunk holds.
        plain = value.encode("latin-1", "ignore").decode("latin-1") == value
        (chunks.add_text if plain else chunks.add_itxt)(key, value)
    if info.get("xmp"):
        chunks.add_itxt(_XMP_KEY, info["xmp"].decode(errors="replace"))
    return chunks


def _load_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    for tag in _NESTED & exif.keys():  # or they would not be written again; asking for one that is missing would add it
        exif.get_ifd(tag)
    return exif


def _encode_exif(image: Image.Image) -> bytes | None:
    """Return an image's EXIF data upright and without thumbnail, None if there is none. Fails if it is broken."""
    data = image.info.get("exif")
    if not data and image.format != "TIFF":
        return None
    if data:
        exif = _load_exif(data)
        if not exif:
            raise ValueError("nothing in it can be read")
    else:
        exif, stored = Image.Exif(), image.getexif()
        exif.update({tag: value for tag, value in stored.items() if tag in _DESCRIPTIVE_TAGS})
        exif.update({tag: dict(nested) for tag in _NESTED if (nested := stored.get_ifd(tag))})
        if not exif:
            return None
    exif.pop(ExifTags.Base.Orientation, None)
    return exif.tobytes()


def _color_chunks(image: Image.Image) -> dict[bytes, bytes]:
    """Read the chunks that come before a PNG's pixels and say what its numbers mean."""
    found: dict[bytes, bytes] = {}
    file = getattr(image, "filename", "")
    if not file:
        return found
    with open(file, "rb") as stream:  # noqa: PTH123  # Pillow gives a name, not a path
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
            data = stream.read(int.from_bytes(head[:4], "big"))
            if head[4:] in _COLOR_CHUNKS:
                found[head[4:]] = data
            stream.seek(4, 1)
    return found


def _is_usual(info: dict[Any, Any], key: str) -> bool:
    """Return whether what is lost is what everybody assumes: sRGB's gamma, or a density of 72 dots per inch."""
    if key == "color":
        return b"cICP" not in info[key] and info[key].get(b"gAMA", _SRGB_GAMMA) == _SRGB_GAMMA
    return key == "dpi"


def _set_xmp(xmp: bytes, values: dict[str, int]) -> bytes:
    """Return XMP with other numbers where it has these properties, and without thumbnails."""
    text = xmp.decode(errors="surrogateescape")
    for name, value in values.items():
        text = re.sub(rf"(\b{name}=[\"'])\d+", rf"\g<1>{value}", text)
        text = re.sub(rf"(<{name}>)\s*\d+", rf"\g<1>{value}", text)
    text = re.sub(r"\s*<(\w+:Thumbnails)\b.*?</\1>", "", text, flags=re.DOTALL)
    return text.encode(errors="surrogateescape")
