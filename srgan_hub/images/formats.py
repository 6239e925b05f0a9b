"""Supported formats and what each can store."""

import importlib.util
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Format:
    """A file format.

    A feature is "image" (single images), "high bit depth" (more than 8 bits per channel), "float", "alpha", "gray" and
    "gray with alpha" (not stored as RGB), "streaming" (files larger than memory), or a field of `Metadata`; "comment"
    is the text "Comment" alone.

    Args:
        suffixes: Suffixes that are written, the default first.
        read_suffixes: Further suffixes that are read.
        pillow: Pillow's name; empty if Pillow does not know the format.
        stores: Features that are read and written.
        reads: Features that are only read.
        media: Kinds of media that are stored, see `Opened.kind`.
        save: Keyword arguments of `Image.save`.
        quality: Whether a quality from 1 to 100 can be set.
        max_side: Largest width and height in pixels.
        package: Python package that the format, or its part that `Image.save` does not write, requires.
        extra: Requirement that installs the package.
        signature: Regular expression of the first bytes, for formats that are identified ahead of Pillow.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    read_suffixes: tuple[str, ...] = ()
    pillow: str = ""
    stores: Collection[str] = ()
    reads: Collection[str] = ()
    media: tuple[str, ...] = ()
    save: dict[str, Any] = field(default_factory=dict)
    quality: bool = False
    max_side: int = 2**31 - 1
    package: str = ""
    extra: str = ""
    signature: bytes = b""

    @property
    def install_hint(self) -> str:
        """Command that installs the package."""
        return f"pip install '{self.extra}'"

    def is_available(self) -> bool:
        """Return whether the package is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None


_GRAY = ("gray", "gray with alpha")
_COLOR_METADATA = ("icc_profile", "exif", "xmp")
# fmt: off
PNG = Format("PNG", (".png", ".apng"), pillow="PNG", media=("animation",),
             stores=("image", "high bit depth", "alpha", *_GRAY, *_COLOR_METADATA, "dpi", "text", "color_chunks",
                     "cicp"))
JPEG = Format("JPEG", (".jpg", ".jpeg"), (".jfif", ".jpe", ".mpo"), pillow="JPEG", max_side=65_535, quality=True,
              stores=("image", "gray", *_COLOR_METADATA, "iptc", "dpi", "comment"),
              save={"quality": 95, "subsampling": "4:4:4"})
WEBP = Format("WebP", (".webp",), pillow="WEBP", media=("animation",), max_side=16_383, quality=True,
              stores=("image", "alpha", *_COLOR_METADATA), save={"lossless": True, "exact": True})
AVIF = Format("AVIF", (".avif",), pillow="AVIF", media=("animation",), max_side=65_535, quality=True,
              stores=("image", "alpha", *_COLOR_METADATA, "cicp"), reads=("high bit depth",),
              save={"quality": 90, "subsampling": "4:4:4"})
BMP = Format("BMP", (".bmp",), (".dib",), pillow="BMP", stores=("image", "dpi"), reads=("alpha",))
TIFF = Format("TIFF, BigTIFF", (".tif", ".tiff"), pillow="TIFF", media=("pages", "channels", "rows"),
              stores=("image", "high bit depth", "float", "alpha", *_GRAY, "streaming", *_COLOR_METADATA, "iptc", "dpi",
                      "comment"),
              save={"compression": "tiff_adobe_deflate"}, package="tifffile", extra="srgan-hub[tiff]",
              signature=rb"II[*+]\0|MM\0[*+]")
GIF = Format("GIF", (".gif",), pillow="GIF", media=("animation",), max_side=65_535, stores=("alpha", "comment"),
             reads=("image",), signature=rb"GIF8[79]a")
HEIC = Format("HEIC", (), (".heic", ".heif", ".hif"), pillow="HEIF", package="pillow_heif", extra="srgan-hub[heif]",
              reads=("image", "high bit depth", "alpha", *_COLOR_METADATA, "cicp"),
              signature=rb".{4}ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)")
# The plugin's license is the GPL: it is used where it is installed, and no extra of this package.
JPEG_XL = Format("JPEG XL", (), (".jxl",), pillow="JXL", reads=("image", "alpha"), package="pillow_jxl",
                 extra="pillow-jxl-plugin", signature=rb"\xff\x0a|\0\0\0\x0cJXL ")
VIDEO = Format("MP4, MOV, MKV, WebM", (".mp4", ".m4v", ".mov", ".mkv", ".webm"),
               (".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".nut"), media=("video",),
               stores=("high bit depth", "streaming"), max_side=65_535, package="av", extra="srgan-hub[video]",
               signature=rb".{4}(ftyp(?!avi[fs]|hei|hev|mi[af]|msf1|crx|j[px])|moov|mdat|wide|free|skip|pnot)|OggS"
               rb"|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV\x01|\x30\x26\xb2\x75\x8e\x66\xcf\x11|nut/multimedia"
               rb"|\0\0\1[\xb3\xba]|(?!GIF8)(.{4})?G.{187}(.{4})?G.{187}(.{4})?G")
FORMATS = (
    PNG, JPEG, WEBP, AVIF, BMP, TIFF, GIF, HEIC, JPEG_XL,
    Format("JPEG 2000", (), (".jp2", ".j2k", ".jpx", ".jpf"), pillow="JPEG2000", reads=("image", "alpha", "comment")),
    Format("PBM, PGM, PPM", (), (".pbm", ".pgm", ".pnm", ".ppm"), pillow="PPM", reads=("image",)),
    Format("PSD", (), (".psd",), pillow="PSD", reads=("image", "alpha")),
    Format("TGA", (), (".tga",), pillow="TGA", reads=("image", "alpha")),
    Format("DDS", (), (".dds",), pillow="DDS", reads=("image", "alpha")),
    Format("ICO, ICNS", (), (".ico", ".icns"), pillow="ICO", reads=("image", "alpha")),
    Format("SGI", (), (".sgi",), pillow="SGI", reads=("image", "alpha")),
    Format("QOI", (), (".qoi",), pillow="QOI", reads=("image", "alpha")),
    Format("PCX", (), (".pcx",), pillow="PCX", reads=("image",)),
    VIDEO,
)
# fmt: on
# Suffixes of single images that are written, and of files that directories are searched for.
WRITE_SUFFIXES = tuple(suffix for each in FORMATS if "image" in each.stores for suffix in each.suffixes)
READ_SUFFIXES = tuple(suffix for each in FORMATS if each.pillow for suffix in (*each.suffixes, *each.read_suffixes))


def media_suffixes(kind: str, pillow: str | None = None) -> tuple[str, ...]:
    """Return the suffixes of files that store this kind of media, those of Pillow's format `pillow` first."""
    found = sorted((each for each in FORMATS if kind in each.media), key=lambda each: each.pillow != pillow)
    return tuple(suffix for each in found for suffix in each.suffixes)


def identify(start: bytes) -> Format | None:
    """Return the format whose signature these first bytes of a file have."""
    return next((each for each in FORMATS if each.signature and re.match(each.signature, start, re.DOTALL)), None)


def find_format(suffix: str) -> Format | None:
    """Return the format of files with this suffix."""
    return next((each for each in FORMATS if suffix.lower() in (*each.suffixes, *each.read_suffixes)), None)
