"""Image metadata (ICC, EXIF, XMP, text, DPI): read, sanitize and write per format."""

import logging
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from PIL import ExifTags, Image, PngImagePlugin

from .errors import DECODE_ERRORS, describe
from .formats import Format

logger = logging.getLogger(__name__)

_SRGB_GAMMA = (45_455).to_bytes(4, "big")
# What JPEG stores; PNG and BMP store a little more.
_MAX_DPI = 65_535
# Tags that describe how a TIFF stores its own pixels; EXIF data may hold them for other pixels.
_STORAGE_TAGS = {
    *range(254, 267), *(273, 274, 284, 301), *range(277, 282), *range(290, 294), *range(317, 348), *range(512, 533),
}  # fmt: skip
# Tags that describe the content and author of a TIFF; others would be wrong in a larger image, such as a map's.
_DESCRIPTIVE_TAGS = {269, 270, 271, 272, 305, 306, 315, 316, 33432, *range(40091, 40096)}
_NESTED_IFDS = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
_XMP_KEY = "XML:com.adobe.xmp"
_XMP_TAG = 700
_NOT_TEXT = (_XMP_KEY, "compression", "xmp", "software")  # keys of `info` whose values may be strings


@dataclass(frozen=True)
class Metadata:
    """Metadata that an image of another size keeps.

    Args:
        icc_profile: Color profile.
        exif: EXIF data without orientation and thumbnail.
        xmp: XMP packet with orientation 1 and without thumbnails.
        text: Texts by keyword; "Comment" is a JPEG's, TIFF's or GIF's comment.
        dpi: Horizontal and vertical resolution in dots per inch.
        color_chunks: The chunks gAMA, cHRM and cICP of a PNG by name.
        software: Program that wrote the image.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    color_chunks: dict[bytes, bytes] = field(default_factory=dict)
    software: str | None = None

    def to_info(self) -> dict[str, Any]:
        """Return the metadata as Pillow's `info`."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}

    def stripped(self, what: Literal["all", "gps"] | None) -> "Metadata":
        """Return the metadata without everything but colors, without the GPS location, or unchanged."""
        if what == "all":
            return Metadata(icc_profile=self.icc_profile, color_chunks=self.color_chunks)
        if what is None:
            return self
        exif, xmp = self.exif, self.xmp
        if exif and (loaded := _load_exif(exif)).pop(ExifTags.IFD.GPSInfo, None) is not None:
            exif = loaded.tobytes()
        if xmp:
            text = xmp.decode(errors="surrogateescape")
            text = re.sub(r"\s*<(exif:GPS\w+)\b.*?(/>|</\1>)", "", text, flags=re.DOTALL)
            text = re.sub(r"\s*exif:GPS\w+=(\"[^\"]*\"|'[^']*')", "", text)
            xmp = text.encode(errors="surrogateescape")
        return replace(self, exif=exif, xmp=xmp)

    def resized(self, width: int, height: int) -> "Metadata":
        """Return the metadata with this size where EXIF data and XMP contain one."""
        exif, xmp = self.exif, self.xmp
        if exif:
            loaded = _load_exif(exif)
            nested = loaded.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in loaded else {}
            inner = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
            outer = {ExifTags.Base.ImageWidth: width, ExifTags.Base.ImageLength: height}
            if inner.keys() & nested.keys() or outer.keys() & loaded.keys():
                nested.update({tag: size for tag, size in inner.items() if tag in nested})
                loaded.update({tag: size for tag, size in outer.items() if tag in loaded})
                exif = loaded.tobytes()
        if xmp:
            names = {"tiff:ImageWidth": width, "tiff:ImageLength": height}
            xmp = _update_xmp(xmp, {**names, "exif:PixelXDimension": width, "exif:PixelYDimension": height})
        return replace(self, exif=exif, xmp=xmp)


def read_metadata(image: Image.Image) -> tuple[int, Metadata, list[str]]:
    """Read metadata from `image.info` and a TIFF's tags.

    Returns:
        The EXIF orientation, the metadata, and warnings about invalid parts, which are dropped.
    """
    warnings = []
    info, orientation, exif = image.info, 1, None
    try:
        # Pillow also takes the orientation from XMP, which AVIF readers must not.
        tags = _load_exif(info.get("exif") or b"") if image.format == "AVIF" else image.getexif()
        orientation = tags.get(ExifTags.Base.Orientation, 1)
        exif = _encode_exif(image)
    except DECODE_ERRORS as error:
        warnings.append(f"dropped corrupt EXIF data: {describe(error)}")
    xmp = info.get("xmp") or info.get(_XMP_KEY)
    if xmp:  # Pillow also takes the orientation from XMP
        xmp = _update_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp), {"tiff:Orientation": 1})
    text = {**info["text"]} if isinstance(info.get("text"), dict) else {}
    text |= {key: value for key, value in info.items() if isinstance(value, str) and isinstance(key, str)}
    if isinstance(comment := info.get("comment"), bytes):
        text["Comment"] = comment.decode(errors="replace").rstrip("\0")
    dpi = None
    resolution = info.get("dpi") or (0, 0)  # a BMP's unknown one
    with suppress(ArithmeticError, TypeError, ValueError):
        across, down = (float(each) for each in resolution)
        if 0 < across <= _MAX_DPI and 0 < down <= _MAX_DPI:
            dpi = across, down
    if dpi is None and resolution != (0, 0):
        warnings.append(f"dropped invalid resolution {resolution}")
    metadata = Metadata(
        icc_profile=profile if isinstance(profile := info.get("icc_profile"), bytes) else None,
        exif=exif or None,
        xmp=xmp or None,
        text={key: str(value) for key, value in text.items() if value and key not in _NOT_TEXT},
        dpi=dpi,
        color_chunks=info.get("color_chunks") or {},
        software=info.get("software"),
    )
    return orientation, metadata, warnings


def pil_save_kwargs(metadata: Metadata, file_format: Format, path: Path) -> dict[str, Any]:
    """Return keyword arguments of `Image.save` that write metadata; what `file_format` cannot store is logged."""
    stores, name = file_format.stores, file_format.pillow
    info = metadata.to_info()
    kwargs: dict[str, Any] = {key: info[key] for key in ("exif", "dpi", "xmp") if key in info and key in stores}
    if metadata.icc_profile:
        kwargs["icc_profile"] = metadata.icc_profile
    text = dict(metadata.text)
    if "comment" in stores and "Comment" in text:
        kwargs["comment"] = text.pop("Comment")
    warn_dropped(replace(metadata, text=text), stores, file_format.name, path)
    if name == "PNG":
        kwargs["pnginfo"] = png_info(metadata)
        kwargs.pop("xmp", None)
    elif name == "GIF":
        kwargs.setdefault("comment", metadata.software or "")
    elif "exif" in stores and (metadata.software or name == "TIFF"):
        exif = kwargs["exif"] = _load_exif(kwargs.get("exif", b""))
        if metadata.software:
            exif[ExifTags.Base.Software] = metadata.software
    if name == "TIFF":
        exif = kwargs["exif"]
        for tag in _STORAGE_TAGS.intersection(exif):
            del exif[tag]
        if "xmp" in kwargs:
            exif[_XMP_TAG] = kwargs.pop("xmp")
        if "comment" in kwargs:
            exif.setdefault(ExifTags.Base.ImageDescription, kwargs.pop("comment"))
        if ExifTags.IFD.Exif in exif and ExifTags.IFD.Interop in (nested := exif.get_ifd(ExifTags.IFD.Exif)):
            nested[ExifTags.IFD.Interop] = exif.get_ifd(ExifTags.IFD.Interop)
        if _NESTED_IFDS & exif.keys():
            kwargs["compression"] = None  # Pillow writes nested directories only into uncompressed files
    return kwargs


def warn_dropped(metadata: Metadata, stores: Collection[str], format_name: str, path: Path) -> None:
    """Log the metadata that a format does not store, except for values that every reader assumes."""
    info = metadata.to_info()
    gamma = metadata.color_chunks.get(b"gAMA", _SRGB_GAMMA)
    if b"cICP" not in metadata.color_chunks and gamma == _SRGB_GAMMA:
        info.pop("color_chunks", None)
    words = {"exif": "EXIF data", "xmp": "XMP", "color_chunks": "gamma and primaries", "text": "text"}
    dropped = [word for key, word in words.items() if key in info and key not in stores]
    if dropped and dropped[-1] == "text":
        dropped[-1] = f"text ({', '.join(metadata.text)})"
    if dropped:
        logger.warning("'%s': dropped metadata that %s cannot store: %s", path, format_name, ", ".join(dropped))


def png_info(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Return the chunks of a PNG with metadata other than profile, EXIF data and resolution."""
    chunks = PngImagePlugin.PngInfo()
    for name, data in metadata.color_chunks.items():
        chunks.add(name, data)
    text = metadata.text | ({"Software": metadata.software} if metadata.software else {})
    for key, value in text.items():
        chunks.add_text(key, value)
    if metadata.xmp:
        chunks.add_itxt(_XMP_KEY, metadata.xmp.decode(errors="replace"))
    return chunks


def _load_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    for tag in _NESTED_IFDS & exif.keys():  # unread ones would not be written; reading a missing one would add it
        exif.get_ifd(tag)
    return exif


def _encode_exif(image: Image.Image) -> bytes | None:
    """Return an image's EXIF data without orientation and thumbnail."""
    exif = Image.Exif()
    if data := image.info.get("exif"):
        exif = _load_exif(data)
        if not exif:
            raise ValueError("no readable tags")
    elif image.format == "TIFF":
        stored = image.getexif()
        exif.update({tag: value for tag, value in stored.items() if tag in _DESCRIPTIVE_TAGS})
        exif.update({tag: dict(nested) for tag in _NESTED_IFDS if (nested := stored.get_ifd(tag))})
    if not exif:
        return None
    exif.pop(ExifTags.Base.Orientation, None)
    return exif.tobytes()


def _update_xmp(xmp: bytes, values: dict[str, int]) -> bytes:
    """Replace the values of properties that the packet contains, and remove thumbnails."""
    text = xmp.decode(errors="surrogateescape")
    for name, value in values.items():
        text = re.sub(rf"(\b{name}=[\"'])\d+", rf"\g<1>{value}", text)
        text = re.sub(rf"(<{name}>)\s*\d+", rf"\g<1>{value}", text)
    text = re.sub(r"\s*<(\w+:Thumbnails)\b.*?</\1>", "", text, flags=re.DOTALL)
    return text.encode(errors="surrogateescape")
