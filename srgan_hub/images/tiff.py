"""TIFF by tifffile: classification, reading of images that Pillow lacks, and writing of 16 bits per channel."""

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from .errors import DECODE_ERRORS, ImageError
from .exif import Exif
from .formats import TIFF
from .metadata import Metadata, add_tiff_tags, parse_metadata, warn_dropped
from .raster import Raster, correct_orientation

MAX_PAGES = 10_000
GEO_KEYS = 34_735  # tag of a GeoTIFF
_MAX_TAGS = 1_000  # of a directory; tifffile reads corrupt ones for minutes
# Colors by photometric interpretation; what is more are extra channels.
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
_DECODED = (0, 1, 2, 3)  # gray with white as 0, or as the largest value, RGB, and palettes


def count_pages(file: BinaryIO, path: Path) -> tuple[int, bool]:
    """Follow the chain of a TIFF's directories.

    Returns:
        The number of directories that have a plausible length, and whether the chain ends in one that has not.

    Raises:
        ImageError: The chain is a loop, or has more than `MAX_PAGES` directories.
    """
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    count_type, offset_type, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    seen: set[int] = set()
    with suppress(OSError, OverflowError, struct.error):
        (offset,) = struct.unpack_from(f"{order}{offset_type}", start, 8 if big else 4)
        while offset:
            if offset in seen:
                raise ImageError(f"'{path}' is corrupt: its directories form a loop.")
            file.seek(offset)
            (count,) = struct.unpack(f"{order}{count_type}", file.read(struct.calcsize(count_type)))
            if not 0 < count <= _MAX_TAGS:
                return len(seen), True
            file.seek(count * entry, os.SEEK_CUR)
            (following,) = struct.unpack(f"{order}{offset_type}", file.read(struct.calcsize(offset_type)))
            seen.add(offset)
            if len(seen) > MAX_PAGES:
                raise ImageError(f"'{path}' has more than {MAX_PAGES:,} pages; split it.")
            offset = following
        return len(seen), False
    return len(seen), True


def open_pages(file: BinaryIO, count: int) -> dict[int, Any]:
    """Return the first `count` of tifffile's pages of a TIFF by their indices, without thumbnails and masks.

    There are none if tifffile is not installed, or if the file is corrupt, which Pillow then reports.
    """
    if not count or not TIFF.is_available():
        return {}
    import tifffile

    try:
        file.seek(0)
        stored = cast(Any, tifffile.TiffFile(file).pages)
        pages = {index: stored[index].aspage() for index in range(count)}
        return {index: page for index, page in pages.items() if not page.subfiletype & (1 | 4)} or pages
    except DECODE_ERRORS:
        return {}


def stores_channels(page: Any) -> bool:
    """Return whether a page contains values without a known white, or channels that are neither colors nor alpha."""
    if page.dtype is not None and (page.dtype.kind not in "bu" or page.dtype.itemsize > 2):
        return True
    extra = page.samplesperpixel - _COLORS.get(page.photometric, page.samplesperpixel)
    return bool(extra > 1 or (extra == 1 and not set(page.extrasamples) & {1, 2}))


def stores_rows(page: Any) -> bool:
    """Return whether a page is gray or RGB of 8 or 16 bits that can be decoded row by row as it is."""
    channels = page.samplesperpixel
    return (
        str(page.dtype) in ("uint8", "uint16")
        and page.bitspersample in (8, 16)
        and (channels, page.photometric) in ((1, 1), (3, 2))
        and page.planarconfig == 1
        and page.tags.valueof("Orientation", 1) == 1
    )


def is_unsupported_by_pillow(page: Any) -> bool:
    """Return whether a page is gray, RGB or a palette, with or without alpha, that tifffile decodes, but not Pillow."""
    bits, channels, photometric = page.bitspersample, page.samplesperpixel, page.photometric
    if photometric not in _DECODED or page.dtype is None or not isinstance(bits, int) or bits > 16:
        return False
    if channels == 1:
        return bits not in (1, 2, 4, 8) and (photometric, bits) != (1, 16)
    is_plain = page.planarconfig == 1 and 1 not in page.extrasamples  # colors that are multiplied by alpha
    return not is_plain or (photometric, bits) not in ((1, 8), (2, 8), (2, 16))


def load(page: Any, file: BinaryIO) -> Raster:
    """Decode a gray, RGB or palette page by tifffile, with corrected orientation, to the full range of 8 or 16 bits."""
    if page.photometric not in _DECODED:
        raise ValueError("its pages differ in kind")
    values = page.asarray()
    values = values[..., None] if page.samplesperpixel == 1 else values
    values = np.moveaxis(values, 0, -1) if page.planarconfig == 2 and page.samplesperpixel > 1 else values
    top, full = 2**page.bitspersample - 1, 255 if page.bitspersample <= 8 else 65_535
    array = values if top == full else (values.astype(np.uint32) * full + top // 2) // top
    if page.photometric == 0:
        array[..., 0] = full - array[..., 0]
    if page.photometric == 3:
        palette = page.colormap.T.astype(np.uint32)
        palette *= 257 if palette.max() < 256 else 1  # written with 8 bits
        colors, alpha = palette[values[..., 0].astype(np.intp)], array[..., 1:].astype(np.uint32)
        array, full = np.dstack([colors, alpha * (65_535 // full)]), 65_535
    if 1 in page.extrasamples:
        array = array.astype(np.uint32)
        alpha = np.maximum(array[..., -1:], 1)
        array[..., :-1] = np.minimum((array[..., :-1] * full + alpha // 2) // alpha, full)
    array = array[..., 0] if array.shape[-1] == 1 else array
    array = correct_orientation(array, page.tags.valueof("Orientation", 1))
    inches = {2: 1.0, 3: 2.54}.get(page.resolutionunit, 0) if "XResolution" in page.tags else 0
    info = {"icc_profile": page.iccprofile or None, "dpi": tuple(each * inches for each in page.resolution)}
    size = array.shape[1], array.shape[0]
    _, metadata, warnings = parse_metadata(info, size, "TIFF", lambda: Exif.read(file, page.offset))
    return Raster(array.astype(np.uint8 if full == 255 else np.uint16), metadata, warnings)


def write_tiff(rasters: Iterable[Raster], path: Path, *, target: Path) -> None:
    """Write images as the pages of a TIFF at `path`, whose final path `target` is named in warnings."""
    import tifffile

    written = []
    with tifffile.TiffWriter(path) as file:
        for raster in rasters:
            metadata = raster.metadata.resized(raster.width, raster.height)
            written.append(metadata)
            channels = 1 if raster.array.ndim == 2 else raster.array.shape[2]
            file.write(
                raster.array,
                photometric="rgb" if channels > 2 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=["unassalpha"] if raster.has_alpha else None,
                compression="zlib",
                **metadata_kwargs(metadata, target),
            )
    add_tiff_tags(path, written)


def metadata_kwargs(metadata: Metadata, target: Path) -> dict[str, Any]:
    """Return keyword arguments of tifffile that write metadata, without `add_tiff_tags`; log what is dropped."""
    warn_dropped(metadata, TIFF.stores, TIFF.name, target)
    return {
        "iccprofile": metadata.icc_profile,
        "resolution": metadata.dpi,
        "resolutionunit": "INCH" if metadata.dpi else None,
        "software": False,
        "metadata": None,
    }
