"""16-bit PNG reading and writing; also 16-bit TIFF, AVIF and HEIC reading, of which Pillow keeps 8 bits."""

import importlib.util
import struct
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ImageFile, TiffImagePlugin
from PIL.PngImagePlugin import putchunk

from .errors import DECODE_ERRORS
from .metadata import png_info
from .pillow_fixes import bit_depth, raw_mode, tiff_tags
from .raster import Raster

_ROWS = 64  # that are compressed at a time
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def decode16(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray | None:
    """Decode a PNG, TIFF, AVIF or HEIC of more than 8 bits and two to four channels, which Pillow opened from `file`.

    Pillow unpacks 16-bit PNG and TIFF in two byte orders, and keeps the upper byte of each value. The file is decoded
    in both: one gives the upper bytes, the other the lower ones.

    Returns:
        (H, W, C), uint16; None if the file is of another kind.
    """
    if bit_depth(image) <= 8:
        return None
    if image.format in ("AVIF", "HEIF"):
        return _decode_heif_avif(image, file)
    mode, _, order = raw_mode(image).partition(";16")
    if image.format not in ("PNG", "TIFF") or order not in ("B", "L", "N") or mode not in ("LA", "RGB", "RGBA"):
        return None
    if image.format == "TIFF" and tiff_tags(image).get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        return None  # Separate channels are unpacked in another way.
    if mode == "LA":  # as four bytes per pixel
        return _decode_as(image, "RGBA").copy().view(">u2").astype(np.uint16)
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    index, plugin = image.tell(), type(image)
    upper = _decode_as(image, f"{mode};16{order}").astype(np.uint16) << 8
    file.seek(0)
    again = plugin(file)
    again.seek(index)
    values = upper | _decode_as(again, f"{mode};16{'B' if order == 'L' else 'L'}")
    if (key := image.info.get("transparency")) is not None and mode == "RGB":
        values = np.dstack([values, np.where((values == key).all(-1), 0, 65_535).astype(np.uint16)])
    return values


def _decode_as(image: ImageFile.ImageFile, raw: str) -> np.ndarray:
    """Decode an opened file with another raw mode of Pillow's."""
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def _decode_heif_avif(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray | None:
    """Decode AVIF without alpha by PyAV, and HEIC by pillow-heif, to the full range of 16 bits."""
    bits = bit_depth(image)
    file.seek(0)
    if image.format == "HEIF":
        import pillow_heif

        values = np.asarray(pillow_heif.open_heif(file, convert_hdr_to_8bit=False)) >> (16 - bits)
    elif importlib.util.find_spec("av") and not image.has_transparency_data:
        import av

        try:
            with av.open(file, "r") as container:
                frame = next(container.decode(video=0))
                values = np.asarray(frame.to_ndarray(format="rgb48le"), np.uint16) >> (16 - bits)
        except (*DECODE_ERRORS, StopIteration):  # such as a color matrix that FFmpeg cannot convert
            return None
    else:
        return None
    if values.shape[:2] != (image.height, image.width):  # of a single tile
        return None
    return np.asarray(values.astype(np.uint32) * 65_535 // (2**bits - 1), np.uint16)


def write_png16(raster: Raster, path: Path) -> None:
    """Write an image of 16 bits per channel as PNG. OSError if the file cannot be written."""
    channels = 1 if raster.array.ndim == 2 else raster.array.shape[2]
    metadata = raster.metadata
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">2I5B", raster.width, raster.height, 16, _COLOR_TYPES[channels], 0, 0, 0)
        putchunk(file, b"IHDR", header)
        if metadata.icc_profile:
            putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(metadata.icc_profile))
        for name, data, *_ in png_info(metadata).chunks:
            putchunk(file, name, data)
        if metadata.dpi:
            putchunk(file, b"pHYs", struct.pack(">2IB", *(round(each / 0.0254) for each in metadata.dpi), 1))
        if metadata.exif:
            putchunk(file, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
        pack = zlib.compressobj()
        above = np.zeros((1, raster.width * channels * 2), np.uint8)
        for top in range(0, raster.height, _ROWS):
            rows = raster.array[top : top + _ROWS]
            values = np.ascontiguousarray(rows, ">u2").view(np.uint8).reshape(len(rows), -1)
            # Filter 2, Up: the difference from the byte above.
            filtered = values - np.vstack([above, values[:-1]])
            above = values[-1:]
            with_filter_type = np.hstack([np.full((len(rows), 1), 2, np.uint8), filtered])
            putchunk(file, b"IDAT", pack.compress(with_filter_type.tobytes()))
        putchunk(file, b"IDAT", pack.flush())
        putchunk(file, b"IEND")
