"""TIFF by tifffile: classification, reading and writing of images of 16 bits per channel that Pillow lacks."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from .errors import DECODE_ERRORS
from .exif import Exif
from .formats import TIFF
from .metadata import Metadata, add_tiff_tags, parse_metadata, warn_dropped
from .raster import Raster


def open_pages(file: BinaryIO) -> dict[int, Any]:
    """Return tifffile's pages of a TIFF by their indices, without thumbnails and masks.

    There are none if tifffile is not installed, or if the file is corrupt, which Pillow then reports.
    """
    if not TIFF.is_available():
        return {}
    import tifffile

    try:
        if not _has_valid_ifds(file):
            return {}
        pages = {index: page.aspage() for index, page in enumerate(cast(Any, tifffile.TiffFile(file).pages))}
        return {index: page for index, page in pages.items() if not page.subfiletype & (1 | 4)} or pages
    except DECODE_ERRORS:
        return {}


def stores_channels(page: Any) -> bool:
    """Return whether a page contains floating-point values, or channels that are neither colors nor alpha."""
    if page.dtype is not None and page.dtype.kind == "f":
        return True
    colors = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}.get(page.photometric, page.samplesperpixel)
    extra = page.samplesperpixel - colors
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
    """Return whether a page is of 16 bits with separate channels, or gray with alpha, and not rotated."""
    channels = {1: 1, 2: 3}.get(page.photometric, 0) + len(page.extrasamples)
    planar = page.planarconfig == 2 and page.samplesperpixel > 1
    return (
        str(page.dtype) == "uint16"
        and (planar or (page.photometric == 1 and channels == 2))
        and channels == page.samplesperpixel
        and channels in (2, 3, 4)
        and not set(page.extrasamples) - {2}
        and page.tags.valueof("Orientation", 1) == 1
    )


def load16(page: Any) -> Raster:
    """Decode a page that `is_unsupported_by_pillow`."""
    array = page.asarray()
    info = {
        "icc_profile": page.iccprofile or None,
        "dpi": page.resolution if "XResolution" in page.tags and page.resolutionunit == 2 else None,
    }
    size = page.imagewidth, page.imagelength
    _, metadata, warnings = parse_metadata(info, size, "TIFF", lambda: Exif.read(page.parent.filehandle, page.offset))
    array = np.moveaxis(array, 0, -1) if page.planarconfig == 2 else array
    return Raster(np.ascontiguousarray(array), metadata, warnings)


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


def _has_valid_ifds(file: BinaryIO) -> bool:
    """Return whether all directories have a plausible length; tifffile reads corrupt ones for minutes."""
    file.seek(0)
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}[start[:2]]
    big = struct.unpack(f"{order}H", start[2:4])[0] == 43
    count_type, offset_type, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    (offset,) = struct.unpack_from(f"{order}{offset_type}", start, 8 if big else 4)
    seen: set[int] = set()
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        (count,) = struct.unpack(f"{order}{count_type}", file.read(struct.calcsize(count_type)))
        if not 0 < count <= 1_000:
            return False
        file.seek(count * entry, os.SEEK_CUR)
        (offset,) = struct.unpack(f"{order}{offset_type}", file.read(struct.calcsize(offset_type)))
    file.seek(0)
    return bool(seen)
