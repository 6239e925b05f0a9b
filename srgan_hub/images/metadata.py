"""Image metadata (ICC, EXIF, XMP, IPTC, text, DPI): read, sanitize and write per format."""

import logging
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from PIL import ExifTags, Image, PngImagePlugin

from . import iptc as iptc_iim
from . import pillow_fixes
from . import xmp as xmp_packet
from .color import Cicp, read_cicp
from .errors import DECODE_ERRORS, describe
from .exif import EXIF, GPS, MAKER_NOTE, Exif, add_to_tiff
from .formats import Format

logger = logging.getLogger(__name__)

_SRGB_GAMMA = (45_455).to_bytes(4, "big")
# What JPEG stores; PNG and BMP store a little more.
_MAX_DPI = 65_535
# The longest that a JPEG stores in one segment.
_JPEG_LIMITS = {"exif": 65_533, "xmp": 65_504, "iptc": 65_504, "comment": 65_533}
# Tags that describe how a TIFF stores its own pixels; EXIF data may hold them for other pixels.
_STORAGE_TAGS = {
    *range(254, 267), *(273, 274, 284, 301), *range(277, 282), *range(290, 294), *range(317, 348), *range(512, 533),
}  # fmt: skip
# Tags that describe the content and author of a TIFF; others would be wrong in a larger image, such as a map's.
_DESCRIPTIVE_TAGS = {269, 270, 271, 272, 305, 306, 315, 316, 33432, *range(40091, 40096)}
_XMP_KEY = "XML:com.adobe.xmp"
_XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 700, 33723, 34377
# Tags that do not apply to other pixels, positions in the file, a map's coordinates, and what is stored elsewhere.
_STALE_TAGS = {
    274, 273, 279, 330, 513, 514, 33550, 33922, 34264, 34735, 34736, 34737, _XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG
}  # fmt: skip
# Widths and heights, in any directory of EXIF data.
_WIDTH_TAGS, _HEIGHT_TAGS = (256, 40962, 0x1001), (257, 40963, 0x1002)
_PANORAMA_XMP = "http://ns.google.com/photos/1.0/panorama/"
_WIDTH_XMP = {f"{xmp_packet.TIFF}ImageWidth", f"{xmp_packet.EXIF}PixelXDimension"}
_HEIGHT_XMP = {f"{xmp_packet.TIFF}ImageLength", f"{xmp_packet.EXIF}PixelYDimension"}
# XMP properties, with their namespaces, and texts of any vendor that tell where the image was made.
_LOCATION = re.compile(
    r"(?i)gps|makernote|geo(?!m)|location|latitude|longitude|altitude|[/#:](lat|long|lon|lng|alt)$"
    r"|(^|[/#:])(city|country\w*|province\w*|worldregion|coverage|photoshop/1\.0/state)$"
)
# XMP properties that announce parts of the file which an upscaled image does not have.
_PARTS = {
    "motion photo video": r"/MotionPhoto|/MicroVideo",
    "gain map": r"/hdr-gain-map/|/HDRGainMap/",
    "depth image": r"/photos/1\.0/depthmap/|/photos/dd/1\.0/|/depthBlurEffect/|/pixeldatainfo/",
    "original image": r"/photos/1\.0/image/",
    "sound": r"/photos/1\.0/audio/",
    "attached files": r"/photos/1\.0/container/",
    "extended XMP": r"/xmp/note/HasExtendedXMP$",
}
_RAW_PROFILE = "Raw profile type "  # of ImageMagick, in hexadecimal
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE_STARTS = {
    "exif": (b"Exif\0\0", b"II*\0", b"MM\0*"),
    "xmp": (_XMP_START, b"<"),
    "iptc": (b"8BIM", b"Photoshop 3.0\0", b"\x1c"),
}
# Texts by ImageMagick that repeat EXIF data of other pixels.
_STALE_TEXT = re.compile(r"(?i)(exif|tiff):(thumbnail|orientation|.*(width|height|length|dimension))")
_WORDS = {
    "icc_profile": "color profile", "exif": "EXIF data", "xmp": "XMP", "iptc": "IPTC",
    "color_chunks": "gamma and primaries", "comment": "a comment", "text": "text",
}  # fmt: skip
_NOT_TEXT = (_XMP_KEY, "compression", "xmp", "software")  # keys of `info` whose values may be strings


@dataclass(frozen=True)
class Metadata:
    """Metadata that an image of another size keeps.

    Args:
        icc_profile: Color profile.
        exif: EXIF data without orientation and thumbnail.
        xmp: XMP packet with orientation 1 and without thumbnails.
        iptc: IPTC-IIM records.
        text: Texts by keyword; "Comment" is a JPEG's, TIFF's or GIF's comment.
        dpi: Horizontal and vertical resolution in dots per inch.
        cicp: CICP code points (ITU-T H.273), which override the profile: color primaries, transfer characteristics and
            matrix, which is 0, and whether the range is full.
        color_chunks: The chunks gAMA, cHRM, mDCV and cLLI of a PNG by name.
        software: Program that wrote the image.
        size: Width and height of the image with corrected orientation, in pixels.
        stripped_too: What `stripped` removed beyond what was asked, for a warning.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    cicp: Cicp | None = None
    color_chunks: dict[bytes, bytes] = field(default_factory=dict)
    software: str | None = None
    size: tuple[int, int] | None = None
    stripped_too: tuple[str, ...] = ()

    @property
    def is_panorama(self) -> bool:
        """Whether XMP declares a full equirectangular panorama of 360 by 180 degrees."""
        found: dict[str, str] = {}
        with suppress(*DECODE_ERRORS):
            found = xmp_packet.properties(self.xmp or b"")
        sides = [
            (found.get(f"{_PANORAMA_XMP}FullPano{side}Pixels"), f"{_PANORAMA_XMP}CroppedAreaImage{side}Pixels")
            for side in ("Width", "Height")
        ]
        is_full = all(found.get(cropped, full) == full for full, cropped in sides)
        return is_full and found.get(f"{_PANORAMA_XMP}ProjectionType") == "equirectangular"

    def hints(self, wrap: str | None) -> list[str]:
        """Return what a user should know of an image that is upscaled with `wrap`, as `Raster.warnings`."""
        if self.is_panorama and "x" not in (wrap or ""):
            return ["is a 360° panorama, whose sides will not meet without a seam; set `wrap` to x"]
        return []

    def to_info(self) -> dict[str, Any]:
        """Return the metadata as Pillow's `info`."""
        names = [each.name for each in fields(self) if each.name not in ("size", "stripped_too")]
        return {name: value for name in names if (value := getattr(self, name))}

    def stripped(self, what: Literal["all", "gps"] | None) -> "Metadata":
        """Return the metadata without everything but colors, without the location, or unchanged."""
        if what == "all":
            return Metadata(icc_profile=self.icc_profile, cicp=self.cicp, color_chunks=self.color_chunks)
        if what is None:
            return self
        exif, xmp, too = self.exif, self.xmp, []
        if exif:
            loaded = Exif.load(exif)
            too += ["maker notes, which may contain the location"] if MAKER_NOTE in loaded.groups.get(EXIF, {}) else []
            loaded.remove({GPS, MAKER_NOTE})
            exif = loaded.tobytes()
        if xmp:
            try:
                xmp = xmp_packet.edit(xmp, lambda name, value: None if _LOCATION.search(name) else value)
            except DECODE_ERRORS:
                xmp = None
                too.append("invalid XMP, which may contain the location")
        return replace(
            self,
            exif=exif or None,
            xmp=xmp,
            iptc=iptc_iim.select(self.iptc or b"", iptc_iim.LOCATION) or None,
            text={key: value for key, value in self.text.items() if not _LOCATION.search(key)},
            stripped_too=tuple(too),
        )

    def resized(self, width: int, height: int) -> "Metadata":
        """Return the metadata with this size where EXIF data and XMP contain one, and sizes of a panorama scaled."""
        across, down = (new / old for new, old in zip((width, height), self.size or (width, height), strict=True))
        exif, xmp = self.exif, self.xmp
        if exif:
            loaded = Exif.load(exif)
            loaded.update_numbers({**dict.fromkeys(_WIDTH_TAGS, width), **dict.fromkeys(_HEIGHT_TAGS, height)})
            exif = loaded.tobytes()

        def resize(name: str, value: str) -> str:
            if name in _WIDTH_XMP or name in _HEIGHT_XMP:
                return str(width if name in _WIDTH_XMP else height)
            side = re.search("Width|Left|Height|Top", name) if name.startswith(_PANORAMA_XMP) else None
            with suppress(ValueError):
                return str(round(float(value) * (across if side[0] in ("Width", "Left") else down))) if side else value
            return value

        if xmp:
            with suppress(*DECODE_ERRORS):
                xmp = xmp_packet.edit(xmp, resize)
        return replace(self, exif=exif, xmp=xmp, size=(width, height))


def read_metadata(image: Image.Image) -> tuple[int, Metadata, list[str]]:
    """Read metadata from `image.info` and a TIFF's tags.

    Returns:
        The EXIF orientation, the metadata, and warnings about what is dropped: invalid parts, and parts of the file
            that an upscaled image does not have.
    """
    if image.format == "PNG":
        image.load()  # chunks may follow the pixels
    if image.format != "TIFF":
        return parse_metadata(image.info, image.size, image.format)
    return parse_metadata(image.info, image.size, image.format, lambda: _read_tiff(image))


def parse_metadata(
    info: dict[Any, Any],
    size: tuple[int, int],
    file_format: str | None,
    read_tags: Callable[[], Exif] | None = None,
) -> tuple[int, Metadata, list[str]]:
    """Parse metadata of an image.

    Args:
        info: As Pillow's `info`.
        size: Width and height as decoded.
        file_format: Pillow's name of the format, None for an image from memory.
        read_tags: Reads the tags of a TIFF, whose orientation decoding corrects.

    Returns:
        As `read_metadata`.
    """
    is_tiff = read_tags is not None
    text = {**info["text"]} if isinstance(info.get("text"), dict) else {}
    text |= {key: value for key, value in info.items() if isinstance(value, str) and isinstance(key, str)}
    profiles, warnings = _read_raw_profiles(text)
    xmp = info.get("xmp") or info.get(_XMP_KEY) or profiles.get("xmp")
    iptc = info.get("iptc") or info.get("photoshop", {}).get(iptc_iim.RESOURCE) or profiles.get("iptc")
    data, exif, orientation = info.get("exif") or profiles.get("exif"), None, None
    try:
        exif = Exif.load(data) if data else read_tags() if read_tags else None
    except DECODE_ERRORS as error:
        warnings.append(f"dropped corrupt EXIF data: {describe(error)}")
    if exif:
        # A TIFF is turned by decoding it, and programs do not read the orientation in a profile of type APP1.
        if not is_tiff and (info.get("exif") or f"{_RAW_PROFILE}exif" in info):
            orientation = exif.number(ExifTags.Base.Orientation)
        xmp = xmp or exif.value(_XMP_TAG)
        iptc = iptc or exif.value(_IPTC_TAG) or exif.value(_PHOTOSHOP_TAG)
        exif.remove(_STALE_TAGS)
        if is_tiff:
            exif.groups[0] = {tag: value for tag, value in exif.groups[0].items() if tag in _DESCRIPTIVE_TAGS}
    parts: list[str] = []
    if xmp:
        xmp, turned, parts, invalid = _read_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp))
        warnings += invalid
        if orientation is None and file_format not in ("TIFF", "AVIF", "HEIF"):  # where it does not count
            orientation = turned
    if iptc and not (iptc := iptc_iim.select(iptc_iim.find(bytes(iptc)), iptc_iim.STALE)):
        warnings.append("dropped corrupt IPTC data")
    parts += ["depth image"] if info.get("depth_images") else []
    parts += ["gain map" if "gainmap" in kind.lower() else "auxiliary image" for kind in info.get("aux", ())]
    parts += ["further images"] if file_format == "MPO" else []
    if parts:
        warnings.append(f"left out: {', '.join(dict.fromkeys(parts))}")

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
    cicp = None
    try:
        cicp = read_cicp(info)
    except (KeyError, TypeError, ValueError) as error:
        warnings.append(f"dropped invalid CICP code points: {describe(error)}")
    metadata = Metadata(
        icc_profile=profile if isinstance(profile := info.get("icc_profile"), bytes) else None,
        exif=exif.tobytes() or None if exif else None,
        xmp=xmp or None,
        iptc=iptc or None,
        text={key: str(value) for key, value in text.items() if value and key not in _NOT_TEXT},
        dpi=dpi,
        cicp=cicp,
        color_chunks=info.get("color_chunks") or {},
        software=info.get("software"),
        size=size[::-1] if orientation in (5, 6, 7, 8) else size,
    )
    return orientation or 1, metadata, warnings


def _read_raw_profiles(text: dict[str, str]) -> tuple[dict[str, bytes], list[str]]:
    """Take profiles, and texts that do not apply to other pixels, as ImageMagick writes them, out of the texts.

    Returns:
        The profiles by "exif", "xmp" and "iptc", and warnings.
    """
    found: dict[str, bytes] = {}
    warnings = []
    for key in [*text]:
        if key.startswith(_RAW_PROFILE):
            try:
                data = bytes.fromhex("".join(text.pop(key).split()[2:]))  # after its name and length
            except ValueError:
                data = b""
            kind = next((kind for kind, starts in _PROFILE_STARTS.items() if data.startswith(starts)), None)
            if kind:
                found.setdefault(kind, data.removeprefix(_XMP_START))
            else:
                warnings.append(f"dropped the text '{key}', which is no EXIF data, XMP or IPTC")
        elif _STALE_TEXT.match(key):
            del text[key]
    return found, warnings


def _read_tiff(image: Image.Image) -> Exif:
    """Return the tags of the current page of a TIFF, which may be decoded already."""
    file, name = image.getexif().fp, getattr(image, "filename", "")
    with open(name, "rb") if file.closed else nullcontext(file) as stream:  # noqa: PTH123  # a name, no path
        position = stream.tell()
        exif = Exif.read(stream, pillow_fixes.tiff_tags(image).offset)
        stream.seek(position)
    return exif


def _read_xmp(packet: bytes) -> tuple[bytes | None, int | None, list[str], list[str]]:
    """Clean an XMP packet.

    Returns:
        The packet with orientation 1, without thumbnails and what announces parts that will be gone, or None if it is
            invalid; the orientation; the names of these parts; warnings.
    """
    parts: list[str] = []
    orientation: list[int] = []

    def clean(name: str, value: str) -> str | None:
        if part := next((part for part, pattern in _PARTS.items() if re.search(pattern, name)), None):
            parts.append(part)
            return None
        if name == f"{xmp_packet.TIFF}Orientation":
            orientation.append(int(value) if value.strip().isdecimal() else 1)
            return "1"
        return None if re.search("(?i)/thumbnails?$", name) else value

    try:
        return xmp_packet.edit(packet, clean), next(iter(orientation), None), parts, []
    except UnicodeDecodeError:
        return None, None, [], ["dropped XMP that is not UTF-8"]
    except DECODE_ERRORS:  # which nobody reads
        return packet, None, [], []


def pil_save_kwargs(metadata: Metadata, file_format: Format, path: Path) -> dict[str, Any]:
    """Return keyword arguments of `Image.save` that write metadata; what `file_format` cannot store is logged."""
    stores, name = file_format.stores, file_format.pillow
    info = metadata.to_info()
    kwargs: dict[str, Any] = {key: info[key] for key in ("exif", "dpi", "xmp", "iptc") if key in info and key in stores}
    if metadata.icc_profile:
        kwargs["icc_profile"] = metadata.icc_profile
    if name == "AVIF" and metadata.cicp:  # of the bitstream; `write_nclx` sets those of the container
        primaries, transfer = map(str, metadata.cicp[:2])
        kwargs["advanced"] = {"color-primaries": primaries, "transfer-characteristics": transfer}
    if "comment" in stores and "Comment" in metadata.text:
        kwargs["comment"] = metadata.text["Comment"].encode()
    warn_dropped(metadata, stores, file_format.name, path)
    if name == "PNG":
        kwargs["pnginfo"] = png_info(metadata)
        kwargs.pop("xmp", None)
    elif name == "GIF":
        kwargs.setdefault("comment", metadata.software or "")
    elif "exif" in stores and metadata.software:
        exif = Exif.load(metadata.exif) if metadata.exif else Exif()
        exif.set_text(ExifTags.Base.Software, metadata.software)
        kwargs["exif"] = exif.tobytes()
    if name == "JPEG":
        for key in [key for key, limit in _JPEG_LIMITS.items() if len(kwargs.get(key, b"")) > limit]:
            logger.warning("'%s': dropped %s that is longer than JPEG stores", path, _WORDS[key])
            del kwargs[key]
        if "iptc" in kwargs:
            kwargs["extra"] = iptc_iim.to_segment(kwargs.pop("iptc"))
    if name == "TIFF":
        kwargs = {key: value for key, value in kwargs.items() if key in ("dpi", "icc_profile")}
    return kwargs


def add_tiff_tags(path: Path, pages: Iterable[Metadata]) -> None:
    """Add metadata other than profile and resolution to the pages of a TIFF."""
    found = []
    for metadata in pages:
        exif = Exif.load(metadata.exif) if metadata.exif else Exif()
        first = exif.groups[0] = {tag: v for tag, v in exif.groups.get(0, {}).items() if tag not in _STORAGE_TAGS}
        exif.set_text(ExifTags.Base.Software, metadata.software)
        if ExifTags.Base.ImageDescription not in first:
            exif.set_text(ExifTags.Base.ImageDescription, metadata.text.get("Comment"))
        for tag, kind, data in ((_XMP_TAG, 1, metadata.xmp), (_IPTC_TAG, 7, metadata.iptc)):
            if data:
                first[tag] = kind, data
        found.append(exif)
    add_to_tiff(path, found)


def warn_dropped(metadata: Metadata, stores: Collection[str], format_name: str, path: Path) -> None:
    """Log the metadata that a format does not store, except for values that every reader assumes."""
    if "comment" in stores:
        metadata = replace(metadata, text={key: value for key, value in metadata.text.items() if key != "Comment"})
    info = metadata.to_info()
    gamma = metadata.color_chunks.get(b"gAMA", _SRGB_GAMMA)
    if gamma == _SRGB_GAMMA:
        info.pop("color_chunks", None)
    if b"sRGB" in (metadata.icc_profile or b"").replace(b"\0", b""):  # its name, in ASCII or UTF-16
        del info["icc_profile"]
    dropped = [word for key, word in _WORDS.items() if key in info and key not in stores]
    if dropped and dropped[-1] == "text":
        dropped[-1] = f"text ({', '.join(metadata.text)})"
    if dropped:
        logger.warning("'%s': dropped metadata that %s cannot store: %s", path, format_name, ", ".join(dropped))
    if metadata.stripped_too:
        logger.warning("'%s': dropped %s", path, ", ".join(metadata.stripped_too))


def png_info(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Return the chunks of a PNG with metadata other than profile, EXIF data and resolution."""
    chunks = PngImagePlugin.PngInfo()
    if metadata.cicp:
        chunks.add(b"cICP", bytes(metadata.cicp))
    for name, data in metadata.color_chunks.items():
        chunks.add(name, data)
    text = metadata.text | ({"Software": metadata.software} if metadata.software else {})
    for key, value in text.items():
        chunks.add_text(key, value)
    if metadata.xmp:
        chunks.add_itxt(_XMP_KEY, metadata.xmp.decode(errors="replace"))
    return chunks
