"""Decode an image file correctly or say why not: all that Pillow reads wrongly or reduces silently is listed here."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from . import plugins

# What Pillow's plugins raise on broken files.
DECODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
# Of a TIFF: more would be a broken chain of them.
_MOST_PAGES = 10_000
_MODES = ("1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_UNSUPPORTED = {
    "CUR": "is a mouse pointer, whose transparency cannot be read; convert it to PNG",
    "EPS": "is a drawing, which has no pixels yet; convert it to PNG in the size you need",
    "FITS": "is a FITS file, whose numbers are no 8-bit levels; read it with astropy and pass the array",
    "WMF": "is a drawing, which has no pixels yet; convert it to PNG in the size you need",
}
# Images that Pillow does not know, by their first bytes.
_OTHERS = {
    rb".{4}ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)": "HEIF",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL",
    rb"\x76\x2f\x31\x01": "OpenEXR",
    rb"#\?R": "Radiance HDR",
    rb"II\xbc\x01": "JPEG XR",
    rb"II(\x1a\0|R[OS]|U\0)|FUJIFILMCCD-RAW|\0MRM": "camera raw",
    rb"gimp xcf": "GIMP",
    rb"P7\s": "PAM",
    rb"AT&TFORM": "DjVu",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg.*?>\s*)*<svg": "SVG",
}


def identify_failure(path: Path) -> str:
    """Return why Pillow opens no image in a file, as the end of a sentence."""
    with path.open("rb") as file:
        start = file.read(1024)
        for name, (factory, accept) in Image.OPEN.items():
            try:
                accepted = accept and accept(start[:16])
            except DECODE_ERRORS:  # shorter than what it looks for
                continue
            if not accepted:
                continue
            try:
                file.seek(0)
                image = factory(file, str(path))
            except Image.DecompressionBombError as error:
                return f"holds far too many pixels: {error}"
            except DECODE_ERRORS as error:
                # Some prefixes are two letters, as a text may have them too; the plugin then says so.
                if not str(error).lower().startswith(("not a", "cannot identify")):
                    return f"is a {name} file that is broken or of an unsupported kind: {error}"
            else:
                return f"has {image.width} x {image.height} pixels"
    for pattern, name in _OTHERS.items():
        if re.match(pattern, start, re.DOTALL):
            return f"is a {name} file, which is not supported; {plugins.install_hint(path)}"
    return "is not an image that can be read (PNG, JPEG, WebP, BMP, TIFF and others can)"


def unsupported_reason(image: ImageFile.ImageFile) -> str | None:
    """Return why an opened file would come out wrong, as the end of a sentence, or None if it comes out right."""
    if image.format in _UNSUPPORTED:
        return _UNSUPPORTED[image.format]
    deep_pgm = image.format == "PPM" and image.mode == "I"
    if image.mode not in _MODES and not image.mode.startswith("I;16") and not deep_pgm:
        return f"has pixels of mode {image.mode}; 8-bit gray, color and palette can be upscaled"
    check = _CHECKS.get(image.format or "")
    return check(image) if check else None


def page_indices(image: ImageFile.ImageFile) -> list[int]:
    """Return the numbers of the images in an opened file, from 0.

    A phone's MPO has a preview behind its image, a PSD its layers, and a TIFF may have smaller copies and masks.
    """
    if image.format in ("MPO", "PSD"):
        return [0]
    if image.format != "TIFF":
        return [*range(getattr(image, "n_frames", 1))]
    found = []
    for number in range(_MOST_PAGES):
        try:
            image.seek(number)
        except EOFError:
            break
        except SyntaxError:  # a kind that Pillow does not know, which masks are; the tags are there all the same
            pass
        # Bits: a smaller copy of another page, and a mask of its transparency.
        if not _tags(image).get(ExifTags.Base.NewSubfileType, 0) & (1 | 4):
            found.append(number)
    return found or [0]


def bit_depth(image: ImageFile.ImageFile) -> int:
    """Return the bits per channel that an opened file has, 8 where it has fewer."""
    if image.format == "TIFF":
        return max(8, *_tags(image).get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if image.format == "JPEG2000":
        return _codestream(image)[2]
    if image.format == "AVIF":
        # The AV1 configuration: its third byte holds high_bitdepth and twelve_bit.
        flags = [match[1][0] for match in re.finditer(rb"av1C..(.)", _peek(image, 65_536), re.DOTALL)]
        return max((12 if flag & 0x20 else 10 if flag & 0x40 else 8 for flag in flags), default=8)
    if image.format == "PPM":
        return 16 if _raw_mode(image) == "I;16B" or (image.tile[0][0] != "raw" and _maximum(image) > 255) else 8
    deep = image.format in ("PNG", "SGI") and re.search(";16|SGI16", str(image.tile))
    if deep or image.mode.startswith("I;16"):
        return 16
    if image.format == "DDS" and "BC6H" in str(image.tile):
        return 16
    return int(image.info.get("bit_depth", 8))  # where pillow-heif puts it


def decode(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened file and correct what Pillow leaves: transparent colors, inverted gray, gray kept in RGBA.

    `unsupported_reason` must have found none. Gray of more than 8 bits becomes mode I;16 with its full range.
    """
    kind, raw, bits = image.format, _raw_mode(image), bit_depth(image)
    alpha = _bmp_alpha(image) if kind in ("BMP", "DIB") and raw == "BGRX" else None
    inverted = kind == "TIFF" and _tags(image).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    image.load()
    if alpha is not None:
        image.putalpha(alpha)
    elif kind == "PNG" and raw in ("L;2", "L;4") and "transparency" in image.info:
        image.info["transparency"] *= 255 // (2 ** int(raw[2:]) - 1)
    elif kind == "PNG" and raw == "LA;16B":
        return _with_info(Image.merge("LA", (image.getchannel("R"), image.getchannel("A"))), image)
    elif kind == "PPM" and image.mode == "I":
        return _with_info(Image.fromarray(np.asarray(image).astype(np.uint16)), image)
    elif kind == "TIFF" and image.mode.startswith("I;16") and (inverted or bits < 16):
        levels = (np.asarray(image).astype(np.uint32) * 65_535 // (2**bits - 1)).astype(np.uint16)
        return _with_info(Image.fromarray(~levels if inverted else levels), image)
    return image


def _tiff(image: ImageFile.ImageFile) -> str | None:
    tags = _tags(image)
    raw = tags.get(TiffImagePlugin.COMPRESSION, 1) == 1
    bits = bit_depth(image)
    if set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}:
        return "holds signed numbers; convert it to 8 bits or pass an array"
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 6 and raw and image.mode == "RGB":
        return "holds uncompressed YCbCr, which cannot be read rightly; convert it to RGB"
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and (
        image.mode in ("LA", "PA") or (bits > 8 and raw and len(image.getbands()) > 1)
    ):
        return f"holds {bits}-bit channels one after the other, which cannot be read rightly; save them interleaved"
    if image.mode == "P" and max(tags.get(TiffImagePlugin.COLORMAP, (256,))) < 256:
        return "has a palette that is black or of 8 bits where TIFF has 16; save it again"
    return None


def _png(image: ImageFile.ImageFile) -> str | None:
    if _raw_mode(image) == "RGB;16B" and "transparency" in image.info:
        return "marks a color of 16 bits as transparent, which cannot be read rightly; save it with an alpha channel"
    return None


def _bmp(image: ImageFile.ImageFile) -> str | None:
    header = _peek(image, 14 + 124)[14 if image.format == "BMP" else 0 :]
    size = int.from_bytes(header[:4], "little")
    bits = int.from_bytes(header[10:12] if size == 12 else header[14:16], "little")
    if image.info["compression"] == 2:
        return "is a BMP with RLE4 compression, which cannot be read rightly; save it as PNG"
    if bits == 16 and size >= 56 and header[52:56] != b"\0\0\0\0":
        return "is a BMP of 16 bits with transparency, which cannot be read rightly; save it as PNG"
    if bits != {"1": 1, "L": 8}.get(image.mode, bits):
        return f"is a BMP with a gray palette of {bits} bits, which cannot be read rightly; save it as PNG"
    return None


def _jpeg2000(image: ImageFile.ImageFile) -> str | None:
    width, height, bits, channels = _codestream(image)
    if (width, height) != image.size:
        return f"is broken: it promises {image.width} x {image.height} pixels and holds {width} x {height}"
    if bits > 16 or (bits > 8 and channels > 1):
        return f"is a JPEG 2000 of {bits} bits and {channels} channels, which cannot be read rightly; save it as PNG"
    return None


_CHECKS: dict[str, Callable[[ImageFile.ImageFile], str | None]] = {
    "BMP": _bmp,
    "DIB": _bmp,
    "JPEG2000": _jpeg2000,
    "PNG": _png,
    "TIFF": _tiff,
}


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of how the pixels lie in the file; empty where it has none."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _maximum(image: ImageFile.ImageFile) -> int:
    arguments = image.tile[0][3]
    return int(arguments[1]) if isinstance(arguments, tuple) else 255


def _peek(image: ImageFile.ImageFile, size: int) -> bytes:
    if image.fp is None:
        return b""
    position = image.fp.tell()
    image.fp.seek(0)
    start = image.fp.read(size)
    image.fp.seek(position)
    return start


def _codestream(image: ImageFile.ImageFile) -> tuple[int, int, int, int]:
    """Return width, height, bits of the deepest channel and channels that a JPEG 2000's own data has."""
    start = _peek(image, 2**24)  # behind a color profile, which may be large
    at = start.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise ValueError("no JPEG 2000 data found")
    right, bottom, left, top = struct.unpack_from(">4I", start, at + 8)
    (channels,) = struct.unpack_from(">H", start, at + 40)
    depths = start[at + 42 : at + 42 + 3 * channels : 3]
    return right - left, bottom - top, max((bits & 0x7F) + 1 for bits in depths), channels


def _bmp_alpha(image: ImageFile.ImageFile) -> Image.Image | None:
    """Return the fourth bytes of an uncompressed 32-bit BMP if they are alpha: many programs leave them at 0."""
    if image.info["compression"] != 0 or image.fp is None:
        return None
    _, _, offset, arguments = image.tile[0]
    image.fp.seek(offset)
    data = image.fp.read(4 * image.width * image.height)
    if len(data) < 4 * image.width * image.height or not any(data[3::4]):
        return None
    return Image.frombytes("L", image.size, data[3::4], "raw", "L", 0, arguments[-1])  # type: ignore[index]


def _with_info(image: Image.Image, source: Image.Image) -> Image.Image:
    image.info = source.info
    return image
