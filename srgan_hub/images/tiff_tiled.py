"""TIFF files larger than memory: decoded and written by rows, so that memory depends on the width alone.

Needs tifffile. Results become a BigTIFF of compressed tiles. A run that was killed goes on from the last row of tiles
that it had finished: they lie, with their sizes, in a hidden folder beside the result until it is whole.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from PIL import ExifTags, ImageFile

from . import decode, pillow_fixes
from .lazy import LazyRows
from .media import Media, MediaUpscaler, OutputOptions
from .metadata import read_metadata, set_software, strip, update_dimensions, warn_dropped

# From this many pixels on.
LARGE = 16_000_000
_TILE = 256


def is_large(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened image is a large TIFF, gray or RGB, of 8 or 16 bits, with one page."""
    if image.format != "TIFF" or image.width * image.height < LARGE or not importlib.util.find_spec("tifffile"):
        return False
    pages = pillow_fixes.page_indices(image)
    image.seek(pages[0])
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(ExifTags.Base.BitsPerSample, (1,))
    return (
        len(pages) == 1
        and set(bits) in ({8}, {16})
        and len(bits) in (1, 3)
        and tags.get(ExifTags.Base.PhotometricInterpretation) == (1 if len(bits) == 1 else 2)
        and tags.get(ExifTags.Base.PlanarConfiguration, 1) == 1
        and set(tags.get(ExifTags.Base.SampleFormat, (1,))) == {1}
        and tags.get(ExifTags.Base.Orientation, 1) == 1
    )


class TiledTiff(Media):
    """An opened large TIFF.

    Args:
        path: the file.
        image: the same, opened at the page that counts.
    """

    kind: ClassVar[str] = "a large TIFF"
    suffixes = (".tif", ".tiff")
    max_side: ClassVar[dict[str, int]] = dict.fromkeys(suffixes, 2**31 - 1)

    def __init__(self, path: Path, image: ImageFile.ImageFile) -> None:
        import tifffile

        self.path, self.info = path, read_metadata(image, str(path))[1]
        self._file = cast(Any, tifffile.TiffFile(path))  # whose pages are of two types
        self._page = self._file.pages[image.tell()]
        self.height, self.width = self._page.imagelength, self._page.imagewidth
        self.bits = int(self._page.bitspersample)
        self._chunk: tuple[int, np.ndarray] | None = None
        self.rows = LazyRows(
            self._read,
            self.width,
            self._page.samplesperpixel,
            np.dtype(self._page.dtype.newbyteorder("=")),
            0,
            self.height,
        )

    def _read(self, first: int, last: int) -> np.ndarray:
        """Decode rows, and keep the last row of tiles or strip, of which the next rows will be."""
        height = self._page.chunks[0] if self._page.is_tiled else min(self._page.rowsperstrip, self.height)
        parts = []
        for number in range(first // height, -(-last // height)):
            if self._chunk is None or self._chunk[0] != number:
                self._chunk = number, self._decode(number, height)
            top = number * height
            parts.append(self._chunk[1][max(0, first - top) : last - top])
        return np.concatenate(parts)

    def _decode(self, number: int, height: int) -> np.ndarray:
        """Decode a row of tiles, or a strip: (rows, W, C)."""
        page = self._page
        across = -(-self.width // page.chunks[1])
        rows = np.zeros((min(height, self.height - number * height), self.width, self.rows.channels), self.rows.dtype)
        for index in range(number * across, (number + 1) * across):
            if page.databytecounts[index]:
                self._file.filehandle.seek(page.dataoffsets[index])
                data = self._file.filehandle.read(page.databytecounts[index])
                with decode.wrap_decode_errors(self.path):
                    part, (_, _, _, left, _), _ = page.decode(data, index, jpegtables=page.jpegtables)
                    part = part[0, : len(rows), : self.width - left].reshape(len(rows), -1, self.rows.channels)
                rows[:, left : left + part.shape[1]] = part
        return rows

    def write(self, media_upscaler: MediaUpscaler, tmp_path: Path, output: OutputOptions) -> None:
        """Upscale by rows and write a BigTIFF."""
        import tifffile

        facts = self.path.stat()
        bits, size = output.bit_depth or self.bits, (output.width, output.height)
        plan = repr((facts.st_size, facts.st_mtime_ns, output.key, size, bits)).encode()
        name = f".{output.path.name[:50]}.{hashlib.sha256(plan).hexdigest()[:16]}.rows"
        channels, dtype = self.rows.channels, np.dtype(np.uint8 if bits == 8 else np.uint16)
        if output.strip_metadata:
            strip(self, gps=output.strip_metadata == "gps")
        if output.software and output.strip_metadata != "all":
            set_software(self, output.software)
        warn_dropped(self.info, ("dpi", "xmp"), "a large TIFF", str(output.path))
        store = TileSpool(output.path.with_name(name), (size[1], size[0], channels), dtype)
        try:
            scale = output.scale
            done = store.recover() if size == (self.width * scale, self.height * scale) else store.clear()
            # From where the next row of the result depends on nothing that the network does not see.
            first = max(0, done // scale - output.receptive_field)
            if done < size[1]:
                rows = self.rows
                if bits > self.bits:
                    rows = replace(rows, dtype=dtype, read=lambda a, b: self.rows.read(a, b) * np.uint16(257))
                store.fill(media_upscaler.rows(rows[:, :, first:]), skip=done - first * scale)
            dpi: Any = tuple(each * size[0] / self.width for each in self.info.get("dpi", ()))
            info = update_dimensions(self.info, *size)
            xmp = info.get("xmp")
            tifffile.imwrite(
                tmp_path,
                store.tiles(),
                shape=(size[1], size[0], *([channels] if channels > 1 else [])),
                dtype=dtype,
                photometric="rgb" if channels > 1 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                bigtiff=True,
                tile=(_TILE, _TILE),
                compression="zlib",
                iccprofile=info.get("icc_profile"),
                resolution=dpi or None,
                resolutionunit="INCH" if dpi else None,
                software=info.get("software", False),
                extratags=[(700, 1, len(xmp), xmp, True)] if xmp else (),
                metadata=None,
            )
        finally:
            store.close()
        store.remove()


class TileSpool:
    """The compressed tiles of a result as far as it is finished, and their sizes.

    Args:
        folder: where they lie; it is made if it is not there.
        shape: of the result, (H, W, C).
        dtype: of the result.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        self._folder, self._shape, self._dtype = folder, shape, dtype
        folder.mkdir(exist_ok=True)
        self._data = (folder / "tiles").open("a+b")
        self._index = (folder / "index").open("a+", encoding="utf-8")

    def fill(self, strips: Iterator[np.ndarray], *, skip: int) -> None:
        """Add strips of rows, but for the first rows of all."""
        _, width, channels = self._shape
        waiting = np.empty((0, width, channels), self._dtype)
        for rows in strips:
            fresh = rows.reshape(len(rows), width, channels)[skip:]
            skip = max(0, skip - len(rows))
            waiting = np.concatenate([waiting, fresh])
            while len(waiting) >= _TILE:
                self._add(waiting[:_TILE])
                waiting = waiting[_TILE:]
        if len(waiting):
            self._add(waiting)

    def tiles(self) -> Iterator[bytes]:
        """Yield the compressed tiles in their order."""
        self._data.seek(0)
        self._index.seek(0)
        for line in self._index:
            for length in json.loads(line):
                yield self._data.read(length)

    def close(self) -> None:
        """Close the files."""
        self._data.close()
        self._index.close()

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder)

    def clear(self) -> int:
        """Begin again. Return that no row is finished."""
        self._data.truncate(0)
        self._index.truncate(0)
        return 0

    def recover(self) -> int:
        """Cut off what is not whole. Return how many rows of the result are finished."""
        self._index.seek(0)
        there = self._data.seek(0, os.SEEK_END)
        whole: list[str] = []
        total = 0
        for line in self._index:
            lengths = json.loads(line) if line.endswith("\n") else None
            if lengths is None or total + sum(lengths) > there:
                break
            whole.append(line)
            total += sum(lengths)
        self._data.truncate(total)
        self._index.truncate(0)
        self._index.write("".join(whole))
        self._index.flush()
        return min(len(whole) * _TILE, self._shape[0])

    def _add(self, rows: np.ndarray) -> None:
        padded = np.zeros((_TILE, -(-rows.shape[1] // _TILE) * _TILE, rows.shape[2]), rows.dtype)
        padded[: len(rows), : rows.shape[1]] = rows
        tiles = [zlib.compress(part.tobytes()) for part in np.split(padded, padded.shape[1] // _TILE, axis=1)]
        self._data.write(b"".join(tiles))
        self._data.flush()
        self._index.write(json.dumps([*map(len, tiles)]) + "\n")
        self._index.flush()
