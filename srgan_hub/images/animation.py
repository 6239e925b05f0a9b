"""Animations: GIF, APNG, WebP and AVIF, with the frames as they are seen, their durations and how often they play."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageFile

from . import decode
from .media import Media, MediaUpscaler, OutputOptions
from .metadata import pil_save_kwargs, read_metadata, update_dimensions
from .raster import Raster

FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
_SUFFIXES = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF"}


class Animation(Media):
    """An opened animation.

    Args:
        path: the file.
        image: opened from it.
    """

    kind: ClassVar[str] = "an animation"
    lossy: ClassVar[tuple[str, ...]] = (".webp", ".avif")
    max_side: ClassVar[dict[str, int]] = {".webp": 16_383}

    def __init__(self, path: Path, image: ImageFile.ImageFile) -> None:
        self.path = path
        self.width, self.height = image.size
        self._info = read_metadata(image, str(path))[1]
        # An APNG may have an image for programs that show no animation.
        self._still = bool(image.info.get("default_image"))
        loop = image.info.get("loop")
        # How often it plays, 0 without end. GIF counts the times that it plays again.
        self._plays = 1 if loop is None else loop + 1 if image.format == "GIF" and loop else loop
        if image.format == "AVIF":  # which does not say
            self._plays = 0
        self._durations, self.alpha = [], False
        for frame in self._decode():
            self._durations.append(float(frame.info.get("duration") or 0))
            self.alpha = self.alpha or frame.getchannel("A").histogram()[255] < self.width * self.height
        self.count = len(self._durations)
        own = next(suffix for suffix, name in _SUFFIXES.items() if name == image.format)
        self.suffixes = (own, *(suffix for suffix in _SUFFIXES if suffix != own))

    def write(self, media_upscaler: MediaUpscaler, tmp_path: Path, output: OutputOptions) -> None:
        """Write the frames: a GIF with 256 colors each, an AVIF with loss, others without unless it is asked for."""
        name, quality = _SUFFIXES[output.path.suffix.lower()], output.quality
        rest = media_upscaler.frames(self._frames(), 0)
        if name == "GIF" and self.alpha:  # which has no half transparency
            rest = (_binarize_alpha(frame) for frame in rest)
        durations = self._durations
        if self._still and name != "PNG":
            next(rest)
            durations = durations[1:]
        first = next(rest)
        options: dict[str, Any] = {"duration": [round(each) for each in durations]}
        if name == "GIF":
            loop = {0: 0, 1: None}.get(self._plays, self._plays - 1)
            # What is transparent in a frame must not show the frame before.
            options |= {"loop": loop, "disposal": 2 if self.alpha else 1}
        elif name == "PNG":
            options |= {"loop": self._plays, "default_image": self._still}
            options["duration"] = options["duration"][1:] if self._still else options["duration"]
        elif name == "WEBP":
            options |= {"loop": self._plays, **({"lossless": True} if quality is None else {"quality": quality})}
        else:
            options |= {"quality": 90 if quality is None else quality, "subsampling": "4:4:4"}
        images: Iterable[Image.Image] = (result.to_pil() for result in rest)
        if name == "PNG":  # which Pillow goes through twice
            images = list(images)
        info = pil_save_kwargs(update_dimensions(first.info, first.width, first.height), name, str(output.path))
        first.to_pil().save(tmp_path, format=name, save_all=True, append_images=images, **options, **info)

    def _frames(self) -> Iterator[Raster]:
        for frame in self._decode():
            array = np.asarray(frame)
            yield Raster(array if self.alpha else array[:, :, :3], dict(self._info))

    def _decode(self) -> Iterator[Image.Image]:
        with decode.wrap_decode_errors(self.path), Image.open(self.path) as image:
            for number in range(image.n_frames):  # type: ignore[attr-defined]
                image.seek(number)
                duration = image.info.get("duration")
                frame = image.convert("RGBA")
                frame.info["duration"] = image.info.get("duration", duration)
                yield frame


def _binarize_alpha(frame: Raster) -> Raster:
    """Make each pixel opaque or transparent, whichever is nearer."""
    frame = frame.with_bits(8)
    alpha = np.where(frame.array[:, :, 3:] > 127, np.uint8(255), np.uint8(0))
    return replace(frame, array=np.dstack([frame.array[:, :, :3], alpha]))
