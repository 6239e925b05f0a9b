"""Workarounds for formats that Pillow identifies by a limited size, or decodes incorrectly or lossily."""

import re
import struct
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from . import formats, repair
from .errors import DECODE_ERRORS, ImageError, describe

_COLOR_CHUNKS = (b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI")
_AVIF_HEADER = 2**20  # bytes to search; a profile may come first
_CODESTREAM_LIMIT = 2**24  # bytes of a JPEG 2000 to search; a color profile may come first
MODES = ("1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_UNSUPPORTED = {
    "CUR": "is a mouse cursor, whose transparency cannot be decoded; convert it to PNG",
    "EPS": "is a vector graphic; convert it to PNG in the size you need",
    "FITS": "is a FITS file, whose values are not 8-bit; read it with astropy and pass the array",
    "WMF": "is a vector graphic; convert it to PNG in the size you need",
}
_READERS: dict[str, Any] = {"PNG": repair.PngFile, "BMP": repair.BmpFile}
# Image formats that Pillow does not know, by their first bytes.
_UNKNOWN_FORMATS = {
    rb"\x76\x2f\x31\x01": "OpenEXR",
    rb"#\?R": "Radiance HDR",
    rb"II\xbc\x01": "JPEG XR",
    rb"II(\x1a\0|R[OS]|U\0)|FUJIFILMCCD-RAW|\0MRM|.{4}ftypcrx": "camera raw",
    rb"gimp xcf": "GIMP",
    rb"P7\s": "PAM",
    rb"AT&TFORM": "DjVu",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--((?!-->).)*-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg": "SVG",
}


def open_pil(file: BinaryIO, path: Path, max_pixels: int | None) -> ImageFile.ImageFile:
    """Identify an image file as `Image.open` does, but with `max_pixels` as limit instead of Pillow's global one."""
    file.seek(0)
    start = file.read(1024)
    failures = []
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in Image.ID:
            accepted: bool | str = False
            factory, accept = Image.OPEN[name]
            with suppress(*DECODE_ERRORS):  # of a file that is shorter than what is looked for
                accepted = accept(start[:16]) if accept else True
            if not accepted or isinstance(accepted, str):
                continue
            try:
                if name == "ICO":  # which is decoded by opening it
                    _check_icon(file, path, max_pixels)
                file.seek(0)
                image: Any = _READERS.get(name, factory)(file, "")
                check_size(image.width, image.height, path, max_pixels)
                if name == "ICNS":
                    _check_mac_icon(image, file, path, max_pixels)
                return image
            except ImageError:
                raise
            except DECODE_ERRORS as error:
                # The first bytes of some formats are two letters that text files also have.
                if accept and not str(error).lower().startswith(("not a", "cannot identify")):
                    failures.append(f"is corrupt or of an unsupported kind ({name}: {describe(error)})")
    raise ImageError(f"'{path}' {failures[0] if failures else _explain(start)}.")


def check_size(width: int, height: int, path: Path, max_pixels: int | None) -> None:
    """Raise an `ImageError` if an image has more than `max_pixels` pixels."""
    if max_pixels is not None and width * height > max_pixels:
        limit = f"the limit is {max_pixels / 1e6:.3g} million (`max_pixels`)"
        raise ImageError(f"'{path}' has {width} x {height} pixels; {limit}.")


def _check_icon(file: BinaryIO, path: Path, max_pixels: int | None) -> None:
    """Check the sizes of the images in a Windows icon, which its directory does not contain."""
    file.seek(4)
    directory = file.read(16 * int.from_bytes(file.read(2), "little"))
    for at in range(0, len(directory) - 15, 16):
        file.seek(int.from_bytes(directory[at + 12 : at + 16], "little"))
        head = file.read(24).ljust(24, b"\0")
        width, height = struct.unpack(">II", head[16:24])
        if not head.startswith(b"\x89PNG"):  # a BMP with as many rows again of transparency
            width, rows = struct.unpack_from("<HH", head, 4) if head[0] == 12 else struct.unpack_from("<ii", head, 4)
            height = rows // 2
        check_size(abs(width), abs(height), path, max_pixels)


def _check_mac_icon(image: Any, file: BinaryIO, path: Path, max_pixels: int | None) -> None:
    """Check the sizes of PNG and JPEG 2000 images in a macOS icon, which its directory does not contain."""
    for start, length in image.icns.dct.values():
        file.seek(start)
        data = file.read(length)
        if data.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", data, 16)
            check_size(width, height, path, max_pixels)
        elif b"jP  " in data[:12] or data.startswith(b"\xff\x4f"):
            check_size(*_codestream(data)[:2], path, max_pixels)


def _explain(start: bytes) -> str:
    """Return why Pillow does not identify a file with these first bytes, as the end of a sentence."""
    if found := formats.identify(start):
        hint = "convert it to PNG" if found.is_available() else found.install_hint
        return f"is a {found.name} file, which is not supported; {hint}"
    for pattern, name in _UNKNOWN_FORMATS.items():
        if re.match(pattern, start, re.DOTALL):
            return f"is a {name} file, which is not supported; convert it to PNG or JPEG"
    return "is not an image that can be read (PNG, JPEG, WebP, BMP, TIFF and others can)"


def unsupported_reason(image: ImageFile.ImageFile) -> str | None:
    """Return why Pillow would decode an opened file incorrectly, as the end of a sentence, or None."""
    if image.format in _UNSUPPORTED:
        return _UNSUPPORTED[image.format]
    pgm16 = image.format == "PPM" and image.mode == "I"
    if image.mode not in MODES and not image.mode.startswith("I;16") and not pgm16:
        return f"has pixels of mode {image.mode}; supported are 8-bit gray, color and palette, and 16-bit gray"
    if image.format == "PNG" and raw_mode(image) == "RGB;16B" and "transparency" in image.info:
        return "marks a 16-bit color as transparent, which Pillow decodes incorrectly; save it with an alpha channel"
    if image.format == "TIFF":
        return _unsupported_tiff(image)
    if image.format in ("BMP", "DIB"):
        return _unsupported_bmp(image)
    return _unsupported_jpeg2000(image) if image.format == "JPEG2000" else None


def count_images(image: ImageFile.ImageFile) -> int:
    """Return the number of images in an opened file. Previews of an MPO and layers of a PSD are not images."""
    return 1 if image.format in ("MPO", "PSD") else getattr(image, "n_frames", 1)


def page_sizes(image: ImageFile.ImageFile, count: int) -> dict[int, tuple[int, int]]:
    """Return width and height of each of a TIFF's `count` pages, except thumbnails and masks, by its index."""
    found = {}
    for index in range(count):
        with suppress(SyntaxError):  # Pillow does not know the kind, such as a mask, but has read the tags
            image.seek(index)
        if not tiff_tags(image).get(ExifTags.Base.NewSubfileType, 0) & (1 | 4):  # thumbnail, mask
            found[index] = image.size
    return found or {0: image.size}


def bit_depth(image: ImageFile.ImageFile) -> int:
    """Return the bits per channel of an opened file, 8 for fewer."""
    if image.format == "TIFF":
        return max(8, *tiff_tags(image).get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if image.format == "JPEG2000":
        return _codestream(_peek(image, _CODESTREAM_LIMIT))[2]
    if image.format == "AVIF":
        # The AV1 configuration record: its third byte contains high_bitdepth and twelve_bit.
        flags = [match[1][0] for match in re.finditer(rb"av1C..(.)", _peek(image, _AVIF_HEADER), re.DOTALL)]
        return max((12 if flag & 0x20 else 10 if flag & 0x40 else 8 for flag in flags), default=8)
    if image.format == "PPM":
        arguments = image.tile[0][3]
        return 16 if raw_mode(image) == "I;16B" or (isinstance(arguments, tuple) and arguments[1] > 255) else 8
    pattern = {"PNG": ";16", "SGI": ";16|SGI16", "DDS": "BC6H"}.get(image.format or "")
    if image.mode.startswith("I;16") or (pattern and re.search(pattern, str(image.tile))):
        return 16
    return int(image.info.get("bit_depth", 8))  # set by pillow-heif


def decode(image: ImageFile.ImageFile) -> Image.Image:
    """Decode an opened file; correct transparent colors and areas, inverted gray, and gray that Pillow stores as RGBA.

    `unsupported_reason` must have returned None. Gray of more than 8 bits becomes mode I;16 with its full range.
    """
    kind, raw, bits = image.format, raw_mode(image), bit_depth(image)
    alpha = _bmp_alpha(image) if kind in ("BMP", "DIB") and raw == "BGRX" else None
    photometric = tiff_tags(image).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) if kind == "TIFF" else None
    inverted = photometric == 0
    box = image.tile[0].extents if kind == "GIF" else None
    if photometric == 6 and image.mode == "RGB" and image.tile[0].codec_name == "raw":
        _use_libtiff(image)
    if kind == "TIFF":  # which Pillow turns by XMP if it has no orientation of its own
        tiff_tags(image).setdefault(ExifTags.Base.Orientation, 1)
    image.load()
    result: Image.Image = image
    if alpha is not None:
        image.putalpha(alpha)
    elif kind == "PNG" and raw in ("L;2", "L;4") and "transparency" in image.info:
        image.info["transparency"] *= 255 // (2 ** int(raw[2:]) - 1)
    elif kind == "PNG" and raw == "LA;16B":
        result = Image.merge("LA", (image.getchannel("R"), image.getchannel("A")))
    elif box and box != (0, 0, *image.size):  # the bare area of a GIF is transparent
        result = Image.new("RGBA", image.size)
        result.paste(image.convert("RGBA").crop(box), box[:2])
    elif kind == "PPM" and image.mode == "I":
        result = Image.fromarray(np.asarray(image).astype(np.uint16))
    elif kind == "TIFF" and image.mode.startswith("I;16") and (inverted or bits < 16):
        values = (np.asarray(image).astype(np.uint32) * 65_535 // (2**bits - 1)).astype(np.uint16)
        result = Image.fromarray(~values if inverted else values)
    result.info = image.info
    return result


def read_color_chunks(image: Image.Image) -> None:
    """Add to the `info` of a PNG or AVIF its CICP code points as "cicp", and a PNG's other chunks that define colors.

    Those of an AVIF count if it has no profile, and only for colors: the decoder applies matrix and range.
    """
    if image.format not in ("PNG", "AVIF") or "color_chunks" in image.info:
        return
    name, file = getattr(image, "filename", ""), getattr(image, "fp", None)
    if file is None and not name:
        return
    found: dict[bytes, bytes] = {}
    with suppress(OSError), nullcontext(file) if file else open(name, "rb") as stream:  # noqa: PTH123  # a name, no path
        position = stream.tell()
        stream.seek(0)
        start = stream.read(_AVIF_HEADER if image.format == "AVIF" else 8)
        if (match := re.search(rb"colrnclx\0(.)\0(.)", start, re.DOTALL)) and not image.info.get("icc_profile"):
            found[b"cICP"] = match[1] + match[2] + b"\0\1"
        while image.format == "PNG" and len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
            size = int.from_bytes(head[:4], "big")
            if head[4:] in _COLOR_CHUNKS:
                found[head[4:]] = stream.read(size)
                size = 0
            stream.seek(size + 4, 1)
        stream.seek(position)
    image.info["cicp"] = tuple(found.pop(b"cICP", b""))
    image.info["color_chunks"] = found


def _unsupported_tiff(image: ImageFile.ImageFile) -> str | None:
    tags = tiff_tags(image)
    raw = tags.get(TiffImagePlugin.COMPRESSION, 1) == 1
    bits = bit_depth(image)
    if set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}:
        return "stores signed values; convert it to 8 bits or pass an array"
    is_jpeg = tags.get(TiffImagePlugin.COMPRESSION) in (6, 7)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 6 and image.mode == "RGB" and not is_jpeg:
        subsampling = tags.get(TiffImagePlugin.YCBCRSUBSAMPLING)
        raw_size = raw and sum(tags.get(TiffImagePlugin.STRIPBYTECOUNTS, ()))
        if subsampling == (4, 4) or (not subsampling and raw_size == 3 * image.width * image.height):
            return f"stores YCbCr with subsampling {subsampling}, which libtiff decodes incorrectly; convert it to RGB"
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and (
        image.mode in ("LA", "PA") or (bits > 8 and raw and len(image.getbands()) > 1)
    ):
        return f"stores {bits}-bit channels separately, which Pillow decodes incorrectly; save them interleaved"
    if image.mode == "P" and max(tags.get(TiffImagePlugin.COLORMAP, (256,))) < 256:
        return "has a palette that is black or of 8 bits instead of 16; save it again"
    return None


def _unsupported_bmp(image: ImageFile.ImageFile) -> str | None:
    if image.tile and not image.tile[0].codec_name:  # not decoded by Pillow
        return None
    header = _peek(image, 14 + 124)[14 if image.format == "BMP" else 0 :]
    size = int.from_bytes(header[:4], "little")
    bits = int.from_bytes(header[10:12] if size == 12 else header[14:16], "little")
    if repair.is_misread_by_pillow(image, bits):
        kind = "RLE4 compression" if image.info["compression"] == 2 else f"a gray palette of {bits} bits"
        return f"is a BMP with {kind}, which Pillow decodes incorrectly; {formats.VIDEO.install_hint} decodes it"
    if bits == 16 and size >= 56 and header[52:56] != b"\0\0\0\0":
        return "is a 16-bit BMP with transparency, which Pillow decodes incorrectly; save it as PNG"
    return None


def _unsupported_jpeg2000(image: ImageFile.ImageFile) -> str | None:
    width, height, bits, channels = _codestream(_peek(image, _CODESTREAM_LIMIT))
    if (width, height) != image.size:
        return f"is corrupt: its header declares {image.width} x {image.height} pixels, its data {width} x {height}"
    if bits > 16 or (bits > 8 and channels > 1):
        kind = f"{bits} bits and {channels} channels"
        return f"is a JPEG 2000 of {kind}, which Pillow decodes incorrectly; save it as PNG"
    return None


def _use_libtiff(image: Any) -> None:
    """Let libtiff, which knows subsampling, decode an uncompressed TIFF."""
    tags = tiff_tags(image)
    size = tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH]
    image.tile = [ImageFile._Tile("libtiff", (0, 0, *size), 0, ("RGBX", "raw", False, tags.offset))]
    image.use_load_libtiff = True


def tiff_tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the pixel layout in the file; empty if it has none."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _peek(image: ImageFile.ImageFile, size: int) -> bytes:
    if image.fp is None:
        return b""
    position = image.fp.tell()
    image.fp.seek(0)
    start = image.fp.read(size)
    image.fp.seek(position)
    return start


def _codestream(start: bytes) -> tuple[int, int, int, int]:
    """Return width, height, bits of the deepest channel and number of channels of a JPEG 2000 codestream."""
    at = start.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise ValueError("no JPEG 2000 data found")
    right, bottom, left, top = struct.unpack_from(">4I", start, at + 8)
    (channels,) = struct.unpack_from(">H", start, at + 40)
    depths = start[at + 42 : at + 42 + 3 * channels : 3]
    return right - left, bottom - top, max((bits & 0x7F) + 1 for bits in depths), channels


def _bmp_alpha(image: ImageFile.ImageFile) -> Image.Image | None:
    """Return the fourth bytes of an uncompressed 32-bit BMP as alpha unless all are 0, as many programs write them."""
    if image.info["compression"] != 0 or image.fp is None:
        return None
    _, _, offset, arguments = image.tile[0]
    image.fp.seek(offset)
    data = image.fp.read(4 * image.width * image.height)
    if len(data) < 4 * image.width * image.height or not any(data[3::4]):
        return None
    return Image.frombytes("L", image.size, data[3::4], "raw", "L", 0, arguments[-1])  # type: ignore[index]
