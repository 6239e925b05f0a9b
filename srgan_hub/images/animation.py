"""Animated GIF, APNG, WebP and AVIF: composed frames, their durations, and the number of repetitions."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image, ImageFile

from . import formats, pillow_fixes
from .encode import pil_format_kwargs, save_pil
from .errors import wrap_decode_errors
from .media import MediaReader, MediaWriter
from .metadata import pil_save_kwargs, read_metadata
from .raster import Raster

FORMATS = ("GIF", "PNG", "WEBP", "AVIF")


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
        self._animation = image
        pillow_fixes.read_color_chunks(image)
        _, self.metadata, self.warnings = read_metadata(image)
        self.default_image = bool(image.info.get("default_image"))
        loop = 0 if image.format == "AVIF" else image.info.get("loop")  # which AVIF does not store
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
        image = self._animation
        with wrap_decode_errors(self.path):
            for index in range(self.count):
                image.seek(index)
                pillow_fixes.check_size(*image.size, self.path, self._max_pixels)
                frame = np.asarray(image.convert("RGBA"))
                self.durations.append(round(float(image.info.get("duration") or 0)))
                self.has_alpha |= bool((frame[:, :, 3] < 255).any())
                self._frames.append((zlib.compress(frame.tobytes(), 1), frame.shape))


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
        first = next(pieces)
        kwargs: dict[str, Any] = {"duration": durations, **pil_format_kwargs(target, output.options.quality)}
        if name == "GIF":
            # A transparent pixel must not show the frame before.
            kwargs |= {"loop": {0: 0, 1: None}.get(plays, plays - 1), "disposal": 2 if alpha else 1}
        elif name == "PNG":
            kwargs |= {"loop": plays, "default_image": reader.default_image}
        elif name == "WEBP":
            kwargs["loop"] = plays
        images: Iterable[Image.Image] = (frame.to_pil() for frame in pieces)
        if name == "PNG":  # which Pillow iterates over twice
            images = list(images)
        kwargs |= pil_save_kwargs(first.metadata.resized(first.width, first.height), target, output.path)
        save_pil(first.to_pil(), self.path, format=name, save_all=True, append_images=images, **kwargs)


def _binarize_alpha(frame: Raster) -> Raster:
    """Make each pixel opaque or transparent, whichever is nearer; GIF has no partial transparency."""
    frame = frame.with_bits(8)
    alpha = np.where(frame.array[:, :, 3:] > 127, np.uint8(255), np.uint8(0))
    return replace(frame, array=np.dstack([frame.array[:, :, :3], alpha]))
