"""Multi-image TIFF: pages, channels, and tiled files larger than memory.

A file larger than memory is decoded and written by rows, so memory depends on its width alone. The output is a BigTIFF
of compressed tiles. Finished rows of tiles are stored in a hidden directory next to it until it is complete, and an
interrupted run resumes after the last of them.
"""

import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import ImageFile

from . import tiff
from .encode import fit_colors
from .errors import ImageError, wrap_decode_errors
from .formats import TIFF
from .lazy import LazyRows
from .media import MediaReader, MediaWriter, Opened, Output
from .metadata import Metadata, add_tiff_tags, read_metadata
from .raster import Raster
from .tensors import Wrap, inpaint

# Files of this many pixels or more are processed by rows.
LARGE = 16_000_000
_TILE = 256
_NODATA = 42_113  # GDAL's tag of the value of pixels that were not measured
_CHANNEL_TYPES = {"float16", "float32", "float64", "int8", "int16", "int32", "uint8", "uint16", "uint32"}


class TiffImage(Opened):
    """An opened TIFF, with its pages from `tiff.open_pages`, and width and height of each page by its index."""

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        image: ImageFile.ImageFile | None,
        max_pixels: int | None,
        pages: dict[int, Any],
        sizes: dict[int, tuple[int, int]],
    ) -> None:
        super().__init__(path, file, image, max_pixels, len(sizes))
        self.width, self.height = (max(sides) for sides in zip(*sizes.values(), strict=True))
        self._pages, self._indices = pages, [*sizes]

    def _decode(self, page: int | None) -> Raster:
        page = self._indices[0] if page is None else page
        stored = self._pages.get(page)
        if stored and (self._image is None or tiff.is_unsupported_by_pillow(stored)):
            raster = tiff.load(stored, self.file)
        else:
            raster = super()._decode(page)
        raster.warnings += self.warnings
        return raster


class PagesReader(TiffImage, MediaReader):
    """Reader of pages, each with its own size, bit depth and metadata."""

    kind: ClassVar[str] = "pages"

    def read(self, first: int = 0) -> Iterator[Raster]:
        """Yield the pages."""
        for index in self._indices[first:]:
            yield self.load(index)


class PagesWriter(MediaWriter):
    """Writer of pages."""

    def write(self, pieces: Iterator[Raster]) -> None:
        """Write the pages."""
        path = self.output.path
        tiff.write_tiff((fit_colors(piece, TIFF, path) for piece in pieces), self.path, target=path)


@dataclass(frozen=True)
class ChannelStack:
    """The channels of one page.

    Args:
        array: (H, W), (H, W, C) or (C, H, W), integer of at most 32 bits or floating-point.
        bits: Bits per value that are used.
        axis: The axis of the channels; None for (H, W).
        tags: Keyword arguments of tifffile for a page of the same layout.
        nodata: The value of pixels that were not measured, NaN for none.
    """

    array: np.ndarray
    bits: int
    axis: int | None
    tags: dict[str, Any]
    nodata: float = math.nan

    @property
    def value_range(self) -> tuple[float, float]:
        """The range of unsigned integers of at most 16 bits; of other types, that of the valid values."""
        if self.array.dtype in (np.uint8, np.uint16):
            return 0.0, float(2**self.bits - 1)
        valid = self.array[_is_valid(self.array, self.nodata)]
        return (float(valid.min()), float(valid.max())) if valid.size else (0.0, 1.0)

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "ChannelStack":
        """Return the results of a function for each channel (H, W), in the same layout."""
        if self.axis is None:
            return replace(self, array=function(self.array))
        channels = np.moveaxis(self.array, self.axis, 0)
        return replace(self, array=np.stack([function(channel) for channel in channels], self.axis))


class ChannelsReader(TiffImage, MediaReader):
    """Reader of floating-point values, signed and 32-bit integers, and of channels that are not colors."""

    kind: ClassVar[str] = "channels"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        dtypes = {str(page.dtype) for page in self._pages.values()}
        if unsupported := dtypes - _CHANNEL_TYPES:
            names = ", ".join(sorted(unsupported))
            raise ImageError(f"'{self.path}' contains {names}; supported are {', '.join(sorted(_CHANNEL_TYPES))}.")

    def _decode(self, page: int | None) -> Raster:
        kinds = "floating-point values, signed or 32-bit integers, or channels that are not colors"
        raise ImageError(f"'{self.path}' contains {kinds}; use `srgan-hub upscale` or `upscale_files`.")

    def read(self, first: int = 0) -> Iterator[ChannelStack]:
        """Yield the pages."""
        for page in [*self._pages.values()][first:]:
            with wrap_decode_errors(self.path):
                array = page.asarray()
            axis = None if array.ndim == 2 else -1 if page.planarconfig != 2 and page.samplesperpixel > 1 else 0
            is_rgb = page.photometric == 2 and axis is not None and array.shape[axis] == 3
            has_resolution, orientation = "XResolution" in page.tags, page.tags.valueof("Orientation", 1)
            extra = [(274, 3, 1, orientation, True)] if orientation != 1 else []
            nodata = math.nan
            if isinstance(missing := page.tags.valueof(_NODATA), str):
                extra.append((_NODATA, 2, len(missing) + 1, missing, True))
                with suppress(ValueError):
                    nodata = float(missing)
            tags = {
                "photometric": "rgb" if is_rgb else "miniswhite" if page.photometric == 0 else "minisblack",
                "planarconfig": None if axis is None else "separate" if axis == 0 else "contig",
                "resolution": page.resolution if has_resolution else None,
                "resolutionunit": page.resolutionunit if has_resolution else None,
                "extratags": extra,
            }
            yield ChannelStack(array, page.bitspersample, axis, tags, nodata)


class ChannelsWriter(MediaWriter):
    """Writer of pages of the same type and layout."""

    def write(self, pieces: Iterator[ChannelStack]) -> None:
        """Write the pages."""
        import tifffile

        software = self.output.options.apply_to(Metadata()).software or False
        with tifffile.TiffWriter(self.path) as file:
            for piece in pieces:
                file.write(piece.array, compression="zlib", software=software, metadata=None, **piece.tags)


def normalize(
    channel: np.ndarray, low: float, high: float, nodata: float = math.nan, wrap: Wrap | None = None
) -> np.ndarray:
    """Map (H, W) from [low, high] to [0, 1], float32. NaN, infinity and `nodata` are inpainted.

    If there are any and the image wraps, the result is its repetition.
    """
    values = channel.astype(np.float64)
    valid = _is_valid(channel, nodata)
    scaled = np.clip((np.where(valid, values, low) - low) / ((high - low) or 1), 0, 1).astype(np.float32)
    return inpaint(scaled[:, :, None], valid, wrap)[:, :, 0] if valid.any() and not valid.all() else scaled


def denormalize(
    result: np.ndarray, channel: np.ndarray, low: float, high: float, nodata: float = math.nan
) -> np.ndarray:
    """Map an upscaled channel in [0, 1] back to the range and type of `channel`, with its invalid values."""
    values = result.astype(np.float64) * (high - low) + low
    if channel.dtype.kind in "iu":
        limits = np.iinfo(channel.dtype)
        values = np.clip(values.round(), limits.min, limits.max)
    rows, columns = (np.arange(new) * old // new for new, old in zip(values.shape, channel.shape, strict=True))
    nearest = channel[rows][:, columns]
    return np.where(_is_valid(nearest, nodata), values.astype(channel.dtype), nearest)


def _is_valid(array: np.ndarray, nodata: float) -> np.ndarray:
    with np.errstate(over="ignore"):  # a value that the type cannot hold
        return np.isfinite(array) & (array != nodata)


class RowsReader(TiffImage, MediaReader):
    """Reader of the rows of a file larger than memory. Arguments as for `TiffImage`, of one page."""

    kind: ClassVar[str] = "rows"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        (index,) = self._indices
        self._page, image = self._pages[index], self._image
        assert image is not None
        image.seek(index)
        _, self.metadata, self.warnings = read_metadata(image)
        self.bits = int(self._page.bitspersample)
        self._chunk: tuple[int, np.ndarray] | None = None
        dtype = np.dtype(self._page.dtype.newbyteorder("="))
        self.rows = LazyRows(self._read, self.width, self._page.samplesperpixel, dtype, 0, self.height)

    def read(self, first: int = 0) -> Iterator[LazyRows]:
        """Yield the rows from this one on."""
        yield self.rows[:, :, first:]

    def _read(self, first: int, last: int) -> np.ndarray:
        """Decode rows, and cache the last row of tiles or strip, which the next rows are likely in."""
        height = self._page.chunks[0] if self._page.is_tiled else min(self._page.rowsperstrip, self.height)
        parts = []
        for number in range(first // height, -(-last // height)):
            if self._chunk is None or self._chunk[0] != number:
                self._chunk = number, self._decode_chunk(number, height)
            top = number * height
            parts.append(self._chunk[1][max(0, first - top) : last - top])
        return np.concatenate(parts)

    def _decode_chunk(self, number: int, height: int) -> np.ndarray:
        """Decode a row of tiles or a strip, (rows, W, C)."""
        page = self._page
        across = -(-self.width // page.chunks[1])
        rows = np.zeros((min(height, self.height - number * height), self.width, self.rows.channels), self.rows.dtype)
        for index in range(number * across, (number + 1) * across):
            if page.databytecounts[index]:
                self.file.seek(page.dataoffsets[index])
                data = self.file.read(page.databytecounts[index])
                with wrap_decode_errors(self.path):
                    part, (_, _, _, left, _), _ = page.decode(data, index, jpegtables=page.jpegtables)
                    part = part[0, : len(rows), : self.width - left].reshape(len(rows), -1, self.rows.channels)
                rows[:, left : left + part.shape[1]] = part
        return rows


class RowsWriter(MediaWriter):
    """Writer of rows, into a BigTIFF of tiles. `done` counts rows of the output."""

    reader: RowsReader

    def __init__(self, reader: RowsReader, path: Path, output: Output) -> None:
        super().__init__(reader, path, output)
        bits = output.options.bit_depth or reader.bits
        shape = (output.height, output.width, reader.rows.channels)
        directory = self._make_work_directory("rows", shape, bits)
        try:
            self._spool = TileSpool(directory, shape, np.dtype(f"uint{bits}"), resume=output.resumable)
        except BaseException:
            super().close()  # its lock
            raise
        self.done = self._spool.done

    def close(self) -> None:
        """Close the finished rows."""
        self._spool.close()
        super().close()

    def write(self, pieces: Iterator[np.ndarray]) -> None:
        """Write strips of rows (rows, width) or (rows, width, C), beginning with the row `done`."""
        import tifffile

        self._spool.fill(pieces)
        output, is_rgb = self.output, self.reader.rows.channels > 1
        metadata = output.options.apply_to(self.reader.metadata).resized(output.width, output.height)
        if metadata.dpi:
            across, down = (each * output.width / self.reader.width for each in metadata.dpi)
            metadata = replace(metadata, dpi=(across, down))
        pixel = np.zeros((1, 1, 3) if is_rgb else (1, 1), np.uint8)
        metadata = fit_colors(Raster(pixel, metadata), TIFF, output.path).metadata
        tifffile.imwrite(
            self.path,
            self._spool.tiles(),
            shape=self._spool.shape if is_rgb else self._spool.shape[:2],
            dtype=self._spool.dtype,
            photometric="rgb" if is_rgb else "minisblack",
            planarconfig="contig" if is_rgb else None,
            bigtiff=True,
            tile=(_TILE, _TILE),
            compression="zlib",
            **tiff.metadata_kwargs(metadata, output.path),
        )
        add_tiff_tags(self.path, [metadata])
        self._spool.close()
        shutil.rmtree(self._spool.directory)


class TileSpool:
    """Finished compressed tiles of an output of shape (H, W, C).

    Args:
        directory: An empty directory, or that of an interrupted run.
        resume: Keep complete rows of tiles that the directory contains. `done` is the number of finished rows.
    """

    def __init__(self, directory: Path, shape: tuple[int, int, int], dtype: np.dtype, *, resume: bool) -> None:
        self.directory, self.shape, self.dtype = directory, shape, dtype
        self._data = (directory / "tiles").open("a+b")
        # Sizes of the tiles, a line per row of tiles.
        self._index = (directory / "index").open("a+", encoding="ascii", errors="replace")
        self._index.seek(0)
        complete, total = [], 0
        for line in self._index if resume else ():
            size = 0
            with suppress(ValueError):  # after a power failure
                size = sum(json.loads(line)) if line.endswith("\n") else 0
            if not size or total + size > self._data.seek(0, os.SEEK_END):
                break
            complete.append(line)
            total += size
        self._data.truncate(total)
        self._index.truncate(0)
        self._index.write("".join(complete))
        self._index.flush()
        self.done = min(len(complete) * _TILE, shape[0])

    def fill(self, strips: Iterator[np.ndarray]) -> None:
        """Add strips of rows."""
        _, width, channels = self.shape
        pending = np.empty((0, width, channels), self.dtype)
        for strip in strips:
            pending = np.concatenate([pending, strip.reshape(len(strip), width, channels)])
            while len(pending) >= _TILE:
                self._add(pending[:_TILE])
                pending = pending[_TILE:]
        if len(pending):
            self._add(pending)

    def tiles(self) -> Iterator[bytes]:
        """Yield the compressed tiles in their order."""
        self._data.seek(0)
        self._index.seek(0)
        for line in self._index:
            for size in json.loads(line):
                yield self._data.read(size)

    def close(self) -> None:
        """Close the files."""
        self._data.close()
        self._index.close()

    def _add(self, rows: np.ndarray) -> None:
        _, width, channels = self.shape
        padded = np.zeros((_TILE, -(-width // _TILE) * _TILE, channels), self.dtype)
        padded[: len(rows), :width] = rows
        tiles = [zlib.compress(part.tobytes()) for part in np.split(padded, padded.shape[1] // _TILE, axis=1)]
        self._data.write(b"".join(tiles))
        self._data.flush()
        self._index.write(json.dumps([*map(len, tiles)]) + "\n")
        self._index.flush()
