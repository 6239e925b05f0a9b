"""Animated GIF, APNG, WebP and AVIF: composed frames, their durations, and the number of repetitions."""

import io
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import GifImagePlugin, Image, ImageFile

from . import formats, pillow_fixes
from .color import write_nclx
from .encode import fit_colors, pil_format_kwargs, save_pil
from .errors import ImageError, wrap_decode_errors
from .media import MediaReader, MediaWriter
from .metadata import pil_save_kwargs, read_metadata
from .raster import Raster

FORMATS = ("GIF", "PNG", "WEBP", "AVIF", "FLI")
_MIN_FRAME = 8  # bytes of a file per frame


class AnimationReader(MediaReader):
    """Reader of frames. Arguments as for `Opened`.

    Attributes:
        plays: How often the animation plays, 0 for endlessly.
        default_image: Whether the first frame of an APNG is only for programs that show no animations.
        durations: Milliseconds per frame, known after `decode`.
        has_alpha: Whether a frame is transparent somewhere, known after `decode`.
    """

    kind: ClassVar[str] = "animation"

    def __init__(
        self, path: Path, file: BinaryIO, image: ImageFile.ImageFile, max_pixels: int | None, count: int
    ) -> None:
        super().__init__(path, file, image, max_pixels, count)
        size = os.fstat(file.fileno()).st_size
        if count > size // _MIN_FRAME:
            raise ImageError(f"'{path}' is corrupt: its header declares {count} frames in {size} bytes.")
        self._animation = image
        pillow_fixes.read_color_chunks(image)
        _, self.metadata, warnings = read_metadata(image)
        self.warnings += warnings
        self.default_image = bool(image.info.get("default_image"))
        loop = 0 if image.format in ("AVIF", "FLI") else image.info.get("loop")  # which these do not store
        # GIF counts repetitions.
        self.plays = 1 if loop is None else loop + 1 if image.format == "GIF" and loop else loop
        self.durations: list[int] = []
        self.has_alpha = False
        self._frames: list[tuple[bytes, tuple[int, ...]]] = []

    def read(self, first: int = 0) -> Iterator[Raster]:
        """Yield the frames, with alpha if one of them has it."""
        self.decode()
        for data, shape in self._frames[first:]:
            array = np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape)
            yield Raster(array if self.has_alpha else array[:, :, :3], self.metadata)

    def decode(self) -> None:
        """Decode and compress all frames, once: the last one may have alpha, which the first must then have too."""
        if self._frames:
            return
        with wrap_decode_errors(self.path):
            frames = self._compose_gif() if self._animation.format == "GIF" else self._seek_frames()
            for _, (image, duration) in zip(range(self.count), frames, strict=True):
                frame = np.asarray(image)
                self.durations.append(round(float(duration or 0)))
                self.has_alpha |= bool((frame[:, :, 3] < 255).any())
                self._frames.append((zlib.compress(frame.tobytes(), 1), frame.shape))

    def _seek_frames(self) -> Iterator[tuple[Image.Image, float | None]]:
        """Yield frames as Pillow composes them, RGBA, and their durations."""
        image = self._animation
        for index in range(self.count):
            image.seek(index)
            pillow_fixes.check_size(*image.size, self.path, self._max_pixels)
            yield image.convert("RGBA"), image.info.get("duration")

    def _compose_gif(self) -> Iterator[tuple[Image.Image, float | None]]:
        """Yield the same for a GIF, composed as browsers do: an area that is bare or disposed of is transparent."""
        self.file.seek(0)
        canvas = Image.new("RGBA", (self.width, self.height))
        for data in _split_gif(self.file.read()):
            frame = GifImagePlugin.GifImageFile(io.BytesIO(data))
            pillow_fixes.check_size(*frame.size, self.path, self._max_pixels)
            box = frame.tile[0].extents or (0, 0, *frame.size)
            disposal, before = frame.disposal_method, canvas.copy()
            part = frame.convert("RGBA").crop(box)
            canvas.paste(part, box[:2], part)
            yield canvas, frame.info.get("duration")
            if disposal == 2:
                canvas.paste((0, 0, 0, 0), box)
            elif disposal == 3:
                canvas = before


def _split_gif(data: bytes) -> Iterator[bytes]:
    """Yield each frame of a GIF, with the extensions ahead of it, as a GIF of its own."""
    start = at = 13 + _gif_palette_size(data[10])
    head = data[:start]
    while at < len(data) and data[at : at + 1] != b";":
        kind = data[at : at + 1]
        if kind not in (b"!", b","):  # Pillow and browsers skip it, too
            at += 1
            continue
        at += 2 if kind == b"!" else 11 + _gif_palette_size(data[at + 9])
        while data[at]:
            at += data[at] + 1
        at += 1
        if kind == b",":
            yield head + data[start:at] + b";"
            start = at


def _gif_palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


class AnimationWriter(MediaWriter):
    """Writer of frames: GIF with 256 colors each, AVIF lossy, others lossless unless a quality is set."""

    reader: AnimationReader

    def write(self, pieces: Iterator[Raster]) -> None:
        """Write the frames."""
        reader, output = self.reader, self.output
        reader.decode()
        target = formats.find_format(output.path.suffix)
        assert target is not None
        name, alpha, plays, durations = target.pillow, reader.has_alpha, reader.plays, reader.durations
        if name == "GIF" and alpha:
            pieces = (_binarize_alpha(frame) for frame in pieces)
        if reader.default_image:
            durations = durations[1:]
            if name != "PNG":
                next(pieces)
        first = fit_colors(next(pieces), target, output.path)
        kwargs: dict[str, Any] = {"duration": durations, **pil_format_kwargs(target, output.options.quality)}
        if name == "GIF":
            # It counts hundredths of a second. A transparent pixel must not show the frame before.
            kwargs["duration"] = np.diff(np.rint(np.cumsum(durations) / 10) * 10, prepend=0).astype(int).tolist()
            kwargs |= {"loop": {0: 0, 1: None}.get(plays, plays - 1), "disposal": 2 if alpha else 1}
        elif name == "PNG":
            kwargs |= {"loop": plays, "default_image": reader.default_image}
        elif name == "WEBP":
            kwargs["loop"] = plays
        images: Iterable[Image.Image] = (Image.fromarray(frame.fit_colors(target.stores).array) for frame in pieces)
        if name == "PNG":  # which Pillow iterates over twice
            images = list(images)
        kwargs |= pil_save_kwargs(first.metadata.resized(first.width, first.height), target, output.path)
        image = Image.fromarray(first.array)
        save_pil(image, self.path, format=name, save_all=True, append_images=images, **kwargs)
        if name == "AVIF" and first.metadata.cicp:
            write_nclx(self.path, first.metadata.cicp)


def _binarize_alpha(frame: Raster) -> Raster:
    """Make each pixel opaque or transparent, whichever is nearer; GIF has no partial transparency."""
    frame = frame.with_bits(8)
    alpha = np.where(frame.array[:, :, 3:] > 127, np.uint8(255), np.uint8(0))
    return replace(frame, array=np.dstack([frame.array[:, :, :3], alpha]))
