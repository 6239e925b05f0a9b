"""Images of more than 8 bits a channel with more than one channel, of which Pillow keeps 8 and writes none."""

import importlib.util
import os
import struct
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from .metadata import png_info, warn_dropped
from .pillow_fixes import DECODE_ERRORS, bit_depth
from .raster import Raster

SUFFIXES = (".png", ".tif", ".tiff")
_ROWS = 64  # of a PNG that are packed at once
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def read(image: ImageFile.ImageFile, path: Path) -> np.ndarray | None:
    """Decode an opened PNG, TIFF, AVIF or HEIC of more than 8 bits a channel and two to four channels.

    Where PNG and TIFF have 16 bits, Pillow has two ways to unpack them, one for each order of the bytes, and keeps the
    upper byte: each of them finds the half that the other one drops.

    Args:
        image: opened from `path`; it is decoded and closed.
        path: the file, which is opened once more.

    Returns:
        (H, W, C), uint16; None if the file is of another kind.
    """
    if image.format in ("AVIF", "HEIF"):
        return _decode_heif_avif(image, path)
    arguments = image.tile[0][3] if image.tile else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    mode, _, order = str(raw).partition(";16")
    if image.format not in ("PNG", "TIFF") or order not in ("B", "L", "N") or mode not in ("LA", "RGB", "RGBA"):
        return None
    # Pillow unpacks channels that lie one after the other in its own way.
    if image.format == "TIFF" and image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:  # type: ignore[attr-defined]
        return None
    if mode == "LA":  # as four bytes a pixel
        return _decode(image, "RGBA").copy().view(">u2")
    if order == "N":
        order = "L" if sys.byteorder == "little" else "B"
    with Image.open(path) as again:
        again.seek(image.tell())
        lower = _decode(again, f"{mode};16{'B' if order == 'L' else 'L'}")
    return _decode(image, f"{mode};16{order}").astype(np.uint16) << 8 | lower


def load_tiff16(path: Path, page: int | None, max_pixels: int | None) -> Raster | None:
    """Read, by tifffile, a TIFF of 16 bits a channel that Pillow cannot: channels one after the other, gray with alpha.

    Returns:
        The image; None if the file is of another kind, turned, broken, too large, or tifffile is missing.
    """
    if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file() or not importlib.util.find_spec("tifffile"):
        return None
    import tifffile

    try:
        if not has_valid_ifds(path):
            return None
        with tifffile.TiffFile(path) as file:
            if page is None and len(file.pages) > 1:
                return None
            found = cast(Any, file.pages[page or 0]).aspage()
            channels = {1: 1, 2: 3}.get(found.photometric, 0) + len(found.extrasamples)
            planar = found.planarconfig == 2 and found.samplesperpixel > 1
            if (
                str(found.dtype) != "uint16"
                or not (planar or (found.photometric == 1 and channels == 2))
                or channels != found.samplesperpixel
                or channels not in (2, 3, 4)
                or set(found.extrasamples) - {2}
                or ("Orientation" in found.tags and found.tags["Orientation"].value != 1)
                or (max_pixels is not None and found.imagewidth * found.imagelength > max_pixels)
            ):
                return None
            array = found.asarray()
            info: dict[Any, Any] = {"icc_profile": found.iccprofile} if found.iccprofile else {}
            if "XResolution" in found.tags and found.resolutionunit == 2:
                info["dpi"] = found.resolution
            if 700 in found.tags:
                info["xmp"] = bytes(found.tags[700].value)
            return Raster(np.ascontiguousarray(np.moveaxis(array, 0, -1) if planar else array), info)
    except DECODE_ERRORS:  # Pillow says what is wrong with it
        return None


def has_valid_ifds(path: Path) -> bool:
    """Return whether a TIFF's directories have a length that one may have; tifffile reads broken ones for minutes."""
    with path.open("rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None:
            return False
        big = struct.unpack(f"{order}H", start[2:4])[0] == 43
        count_of, offset_of, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        (offset,) = struct.unpack_from(f"{order}{offset_of}", start, 8 if big else 4)
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            (count,) = struct.unpack(f"{order}{count_of}", file.read(struct.calcsize(count_of)))
            if not 0 < count <= 1_000:
                return False
            file.seek(count * entry, os.SEEK_CUR)
            (offset,) = struct.unpack(f"{order}{offset_of}", file.read(struct.calcsize(offset_of)))
    return bool(seen)


def _decode_heif_avif(image: ImageFile.ImageFile, path: Path) -> np.ndarray | None:
    """Decode AVIF by PyAV, if it has no transparency, and HEIC by pillow-heif; to the full range of 16 bits."""
    bits = bit_depth(image)
    if image.format == "HEIF":
        import pillow_heif

        levels = np.asarray(pillow_heif.open_heif(path, convert_hdr_to_8bit=False)) >> (16 - bits)
    elif importlib.util.find_spec("av") and not image.has_transparency_data:
        import av

        with av.open(str(path)) as file:
            frame = next(file.decode(video=0))
            levels = np.asarray(frame.to_ndarray(format="rgb48le"), np.uint16) >> (16 - bits)
    else:
        return None
    return np.asarray(levels.astype(np.uint32) * 65_535 // (2**bits - 1), np.uint16)


def _decode(image: ImageFile.ImageFile, raw: str) -> np.ndarray:
    """Decode an opened file as if its pixels lay as Pillow's raw mode says."""
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def write(raster: Raster, path: Path, *, kind: str, name: str) -> None:
    """Write an image of 16 bits a channel.

    Args:
        raster: the image.
        path: where it goes.
        kind: "PNG" or "TIFF".
        name: what to call it where something is left out.

    Raises:
        OSError: it cannot be written.
        ModuleNotFoundError: a TIFF needs tifffile.
    """
    if kind == "PNG":
        with path.open("wb") as file:
            _write_png(raster, file)
    else:
        write_tiff([raster], path, name=name)


def write_tiff(rasters: Iterable[Raster], path: Path, *, name: str) -> None:
    """Write images of 8 or 16 bits a channel as the pages of a TIFF. Arguments and errors as for `write`."""
    import tifffile

    with tifffile.TiffWriter(path) as file:
        for raster in rasters:
            channels = 1 if raster.array.ndim == 2 else raster.array.shape[2]
            warn_dropped(raster.info, ("dpi", "xmp"), "a TIFF of 16 bits", name)
            xmp = raster.info.get("xmp")
            file.write(
                raster.array,
                photometric="rgb" if channels > 2 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=["unassalpha"] if raster.alpha else None,
                compression="zlib",
                iccprofile=raster.info.get("icc_profile"),
                resolution=raster.info.get("dpi"),
                resolutionunit="INCH" if "dpi" in raster.info else None,
                software=raster.info.get("software", False),
                extratags=[(700, 1, len(xmp), xmp, True)] if xmp else (),
                metadata=None,
            )


def _write_png(raster: Raster, file: BinaryIO) -> None:
    channels = 1 if raster.array.ndim == 2 else raster.array.shape[2]
    file.write(b"\x89PNG\r\n\x1a\n")
    _write_chunk(file, b"IHDR", struct.pack(">2I5B", raster.width, raster.height, 16, _COLOR_TYPES[channels], 0, 0, 0))
    if "icc_profile" in raster.info:
        _write_chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(raster.info["icc_profile"]))
    for chunk in png_info(raster.info).chunks:
        _write_chunk(file, chunk[0], chunk[1])
    if "dpi" in raster.info:
        _write_chunk(file, b"pHYs", struct.pack(">2IB", *(round(each / 0.0254) for each in raster.info["dpi"]), 1))
    if "exif" in raster.info:
        _write_chunk(file, b"eXIf", raster.info["exif"].removeprefix(b"Exif\0\0"))
    pack = zlib.compressobj()
    above = np.zeros((1, raster.width * channels * 2), np.uint8)
    for top in range(0, raster.height, _ROWS):
        rows = raster.array[top : top + _ROWS]
        levels = np.ascontiguousarray(rows, ">u2").view(np.uint8).reshape(len(rows), -1)
        # Filter 2, Up: each byte less the one above it.
        filtered = levels - np.vstack([above, levels[:-1]])
        above = levels[-1:]
        _write_chunk(
            file, b"IDAT", pack.compress(np.hstack([np.full((len(rows), 1), 2, np.uint8), filtered]).tobytes())
        )
    _write_chunk(file, b"IDAT", pack.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
