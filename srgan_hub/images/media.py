"""Opened image files, and the base classes of readers and writers of media that are not loaded as one image."""

import hashlib
import os
import re
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from PIL import ImageFile

from ..fileio import lock_directory, remove_unlocked
from . import formats, pillow_fixes, png16, repair
from .encode import SaveOptions
from .errors import DECODE_ERRORS, ImageError, TruncatedImageError, describe, wrap_decode_errors
from .metadata import read_metadata
from .raster import Raster, correct_orientation

# Directories of interrupted runs, named by the output, and hashes of output, input and settings.
_WORK_DIRECTORY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9a-f]{8})-[0-9a-f]{8}\.(segments|rows)", re.DOTALL)
_ABANDONED = 7 * 24 * 3600  # seconds


class Opened(AbstractContextManager["Opened"]):
    """An opened and classified image file; a context manager that closes it.

    Args:
        path: The path, for messages.
        file: The file, through which all reading goes.
        image: The file as opened by Pillow, if Pillow identifies it.
        max_pixels: The largest width times height.
        count: Number of images.

    Attributes:
        kind: "image", "animation", "video", or of a TIFF "pages", "channels" (floating point, signed or 32-bit
            integers, or channels that are not colors) or "rows" (larger than a run should load).
        width, height: Size of the largest image, in pixels.
        warnings: Messages about reading, without the file's name.
        allow_truncated: Whether `load` fills in what a truncated file lacks.
    """

    kind: ClassVar[str] = "image"

    def __init__(
        self, path: Path, file: BinaryIO, image: ImageFile.ImageFile | None, max_pixels: int | None, count: int = 1
    ) -> None:
        self.path, self.file, self.count = path, file, count
        self.warnings: list[str] = list(getattr(image, "warnings", ()))
        self.allow_truncated = False
        self._image, self._max_pixels = image, max_pixels
        self.width, self.height = image.size if image else (0, 0)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @property
    def default_suffix(self) -> str:
        """Suffix of the upscaled file."""
        name = self._image.format if self._image else None
        return ".png" if self.kind == "image" else formats.media_suffixes(self.kind, name)[0]

    def load(self, page: int | None = None) -> Raster:
        """Decode one image; `page` is its index, by default the primary image's. ImageError if that fails.

        It is required if there are several images that are upscaled as a whole.
        """
        warnings = list(self.warnings) if self.kind == "image" else []
        if page is None and self.count > 1:
            if self.kind != "image":
                hint = "`upscale_files` and `srgan-hub upscale` upscale all of them"
                raise ImageError(f"'{self.path}' contains {self.count} images; {hint}.")
            warnings.append(f"contains {self.count} images, of which the primary one is read")
        with wrap_decode_errors(self.path):
            try:
                raster = self._decode(page)
            except ImageError:
                raise
            except DECODE_ERRORS as error:
                raster = self._decode_completed(page, error)
        raster.warnings[:0] = warnings
        return raster

    def _decode_completed(self, page: int | None, error: Exception) -> Raster:
        """Decode a file that ends too early, or raise the error of decoding it as it is."""
        found = self._image and repair.complete(self.file, self._image, allow_truncated=self.allow_truncated)
        if not found:
            if "truncated" in str(error) and not self.allow_truncated:
                reason = f"the file is truncated ({describe(error)}); `allow_truncated` reads what is there"
                raise TruncatedImageError(f"Cannot decode '{self.path}': {reason}.") from error
            raise error
        self.file.close()
        self.file, warning = found
        self._image = pillow_fixes.open_pil(self.file, self.path, self._max_pixels)
        raster = self._decode(page)
        raster.warnings.insert(0, warning)
        return raster

    def _decode(self, page: int | None) -> Raster:
        image = self._image
        if image is None:
            raise ImageError(f"'{self.path}' contains {self.kind}; use `srgan-hub upscale` or `upscale_files`.")
        if page is not None:  # Pillow leaves metadata of one page in the next one
            self.file.seek(0)
            image = type(image)(self.file)
            image.seek(page)
            pillow_fixes.check_size(*image.size, self.path, self._max_pixels)
        pillow_fixes.read_color_chunks(image)
        if image.format != "PNG" and (reason := pillow_fixes.unsupported_reason(image)):
            raise ImageError(f"'{self.path}' {reason}.")
        if (array := png16.decode16(image, self.file)) is not None:
            orientation, metadata, warnings = read_metadata(image)
            return Raster(correct_orientation(array, orientation), metadata, warnings)
        raster = Raster.from_pil(image, name=f"'{self.path}'")
        # An icon may contain another image than its header declares.
        pillow_fixes.check_size(raster.width, raster.height, self.path, self._max_pixels)
        return raster


class MediaReader(Opened):
    """An opened file that is upscaled piece by piece. A piece that cannot be decoded raises `ImageError`."""

    @abstractmethod
    def read(self, first: int = 0) -> Iterator[Any]:
        """Yield the pieces from number `first` on: frames or pages (`Raster`), `ChannelStack`s, or one `LazyRows`."""


@dataclass(frozen=True)
class Output:
    """Destination of upscaled media.

    Args:
        path: Final path.
        width, height: Size of the largest upscaled image, in pixels.
        options: How it is saved.
        resumable: Whether upscaling by rows can resume.
        key: Identifies everything other than the input file that affects the pixels.
    """

    path: Path
    width: int
    height: int
    options: SaveOptions
    resumable: bool = True
    key: str = ""


class MediaWriter(AbstractContextManager["MediaWriter"]):
    """Writer of one kind of media; a context manager that closes its files.

    Args:
        reader: The source, of which metadata and the like are copied.
        path: Temporary file to write.
        output: The destination.

    Attributes:
        done: Number of pieces that an interrupted run has finished; `write` expects the pieces after them.
        restart_interval: Number of frames after which upscaling must restart for resumed results to be identical.
    """

    done: int = 0
    restart_interval: int | None = None
    _directory: Path | None = None
    _lock: int | None = None

    def __init__(self, reader: Any, path: Path, output: Output) -> None:
        self.reader, self.path, self.output = reader, path, output

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close files; what is finished stays for resumption unless `write` has returned."""
        if self._directory:
            with suppress(OSError):  # not empty
                self._directory.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @abstractmethod
    def write(self, pieces: Iterator[Any]) -> None:
        """Write upscaled pieces as they come, and complete the file."""

    def _make_work_directory(self, kind: str, *settings: object) -> Path:
        """Create and lock the hidden directory next to the output where a run with equal settings left pieces.

        Those of interrupted runs for the same output or input with other settings are removed, and abandoned ones.
        """
        output, source = self.output.path, self.reader.path.stat()
        keys = (
            output.name,
            (source.st_dev, source.st_ino),
            (source.st_size, source.st_mtime_ns, self.output.key, settings),
        )
        hashes = [hashlib.sha256(repr(key).encode()).hexdigest()[:8] for key in keys]
        self._directory = directory = output.with_name(f".{output.name[:50]}.{'-'.join(hashes)}.{kind}")
        try:
            self._lock = lock_directory(directory)
        except BlockingIOError:
            raise ImageError(f"'{output}' is being written by another process; wait until it has finished.") from None
        os.utime(directory)
        for other in output.parent.iterdir():
            match = _WORK_DIRECTORY.fullmatch(other.name)
            with suppress(FileNotFoundError):  # removed meanwhile
                if match and other != directory:
                    is_replaced = match[1] == hashes[0] or match[2] == hashes[1]
                    if is_replaced or time.time() - other.stat().st_mtime > _ABANDONED:
                        remove_unlocked(other)
        return directory
