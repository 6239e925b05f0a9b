"""Upscale pictures with a generator: fused once, streamed, on the device and in the precision that suit."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .devices import fast_dtype, find_device, to_host
from .engines.engine import Engine, choose_engine, make_engine
from .engines.openvino import OpenVINOEngine
from .network.fuse import fuse
from .network.layers import hash_weights
from .network.stream import receptive_radius
from .pictures import files
from .pictures.carried import fit
from .pictures.pixels import Pixels
from .pictures.raster import Raster
from .pictures.rows import Rows
from .pictures.sizes import Size, SizeLike, reduce_rows

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Progress = Callable[[int, int], None]
Array = TypeVar("Array", np.ndarray, Tensor)
Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


class Upscaler:
    """A generator prepared for many pictures. Threads may share one: all state of a picture belongs to its call.

    Args:
        generator: from `build_generator`; it is copied.
        scale: its scale.
        precision: "auto", "fp32", "bf16" or "fp16". "auto" takes bf16 for 8-bit pictures where the device has it in
            hardware, and float32 otherwise.
        device: "auto" (cuda, then mps, then cpu) or any torch device.
        band: LR rows that go through the network at once, the measure of the memory it takes. By default they are as
            many as make the engine's `pixels`.
        engine: "torch", on any device; "openvino", on a processor, with the extra [openvino]; or "auto", which takes
            the one that is faster, see `choose_engine`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        generator: nn.Sequential,
        *,
        scale: int,
        precision: str = "auto",
        device: str | torch.device = "auto",
        band: int | None = None,
        engine: str = "auto",
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"Expected a precision out of auto, {', '.join(PRECISIONS)}, got {precision!r}.")
        if band is not None and (type(band) is not int or band < 1):
            raise ValueError(f"Expected band as a positive integer, got {band!r}.")
        self.scale = scale
        self.precision = precision
        self.device = find_device(device)
        self.band = band
        self.engine = choose_engine(engine, self.device)
        self._auto = engine == "auto" and self.engine == "openvino"
        if self.engine == "openvino" and precision == "fp16":
            if engine == "openvino":
                raise ValueError("Expected precision fp32 or bf16 with the engine openvino, got 'fp16'.")
            self.engine = "torch"
        fused = fuse(generator).to(self.device).to(memory_format=torch.channels_last)
        # The last layer runs in float32, behind the check that half precision has not overflowed.
        self._fused, self._to_range = fused[:-1], fused[-1]
        self._engines: dict[tuple[str, torch.dtype], Engine] = {}
        self._lock = threading.Lock()
        self.radius = receptive_radius(fused)

    @overload
    def upscale(self, picture: Array, *, size: SizeLike | None = None, progress: Progress | None = None) -> Array: ...
    @overload
    def upscale(
        self,
        picture: str | os.PathLike[str] | Image.Image,
        *,
        size: SizeLike | None = None,
        progress: Progress | None = None,
    ) -> Image.Image: ...
    def upscale(
        self, picture: Picture, *, size: SizeLike | None = None, progress: Progress | None = None
    ) -> Tensor | np.ndarray | Image.Image:
        """Enlarge a picture.

        Args:
            picture: a path; a PIL image; an array (H, W) or (H, W, C) of uint8 or uint16; or a float tensor
                (3, H, W) or (N, 3, H, W) in [0, 1], RGB.
            size: of the result, `scale` times the picture by default: "2x" or the like, the longest side in pixels, or
                (width, height), of which one may be None. It is the whole result, reduced by `pictures.resize.bicubic`
                row by row. Not for tensors.
            progress: called with (rows done, all rows) of the picture that is being enlarged, after each band.

        Returns:
            The same kind, `scale` times as high and wide or of `size`; a PIL image for a path. Gray stays gray,
            transparency is kept, and a PIL image keeps its colour profile, EXIF data and resolution. Gray of 16 bits is
            an image of mode I;16; other images have 8 bits, since Pillow has no modes for more.

        Raises:
            PictureError: the file or image cannot be used; the message says why.
            ValueError: the array or tensor has a wrong shape, type or range, or the size is larger than the network's.
        """
        if isinstance(picture, Tensor):
            return self._upscale_tensor(picture, size, progress)
        pictures: list[Any] = [picture]
        return self.upscale_batch(pictures, size=size, progress=progress)[0]

    @overload
    def upscale_batch(
        self, pictures: Sequence[np.ndarray], *, size: SizeLike | None = None, progress: Progress | None = None
    ) -> list[np.ndarray]: ...
    @overload
    def upscale_batch(
        self,
        pictures: Sequence[str | os.PathLike[str] | Image.Image],
        *,
        size: SizeLike | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image]: ...
    def upscale_batch(
        self, pictures: Sequence[Any], *, size: SizeLike | None = None, progress: Progress | None = None
    ) -> list[Any]:
        """Enlarge pictures of one size together, which is faster where they are small; see `batch_size`.

        Args:
            pictures: as for `upscale`, but for tensors, which have a batch dimension. All of one shape and type.
            size: as for `upscale`.
            progress: called with (rows done, all rows) of each picture, after each band.

        Returns:
            What `upscale` gives for each, in their order.

        Raises:
            PictureError: a file or image cannot be used; the message says why.
            ValueError: the shapes or types differ or are wrong.
        """
        arrays, infos = zip(*map(_read, pictures), strict=True)
        kinds = {(array.shape, array.dtype) for array in arrays}
        if len(kinds) > 1:
            raise ValueError(f"Expected pictures of one shape and type, got {', '.join(sorted(map(str, kinds)))}.")
        height, width, *channels = arrays[0].shape
        batch = [Pixels(array, self.scale) for array in arrays]
        wide, high = Size.parse(size).fit(width, height, scale=self.scale)
        results = np.empty((len(batch), high, wide, *channels), arrays[0].dtype)
        done = 0
        for rows in self._stream_pixels(batch, (wide, high)):
            results[:, done : done + rows.shape[1]] = rows
            done += rows.shape[1]
            if progress:
                progress(done * height // high, height)
        return [
            result if info is None else Raster(result, fit(info, wide, high)).to_image()
            for result, info in zip(results, infos, strict=True)
        ]

    def fingerprint(self) -> str:
        """Return a hash of what results depend on beside the picture: weights, precision and engine."""
        facts = f"{self.scale} {self.precision} {self.device.type} {self.engine} {hash_weights(self._fused)}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def batch_size(self, height: int, width: int) -> int:
        """Return how many pictures of this size `upscale_batch` takes at once within the memory of this upscaler."""
        pixels = self.band * width if self.band else self._engine(torch.float32).pixels
        return max(1, pixels // (height * width))

    @overload
    def stream(self, picture: Tensor, *, size: SizeLike | None = None) -> Iterator[Tensor]: ...
    @overload
    def stream(
        self, picture: str | os.PathLike[str] | Image.Image | np.ndarray | Rows, *, size: SizeLike | None = None
    ) -> Iterator[np.ndarray]: ...
    def stream(
        self, picture: Picture | Rows, *, size: SizeLike | None = None
    ) -> Iterator[Tensor] | Iterator[np.ndarray]:
        """Enlarge a picture and yield the result band by band, from top to bottom.

        Args:
            picture, size: as for `upscale`; or the rows of a picture that is not in memory.

        Yields:
            Arrays (rows, width, C), of the picture's type; for a tensor, tensors (..., 3, rows, W * scale).

        Raises:
            As for `upscale`.
        """
        if isinstance(picture, Tensor):
            if size is not None:
                raise ValueError("Expected a size for a picture, got a tensor; resize its result.")
            lr = _check_tensor(picture)
            bands = self._stream(lr, lambda rows: rows, torch.float32, len(lr))
            for sr in to_host(bands, self.device) if picture.device.type == "cpu" else bands:
                yield sr.to(picture).reshape(*picture.shape[:-2], *sr.shape[-2:])
            return
        pixels = (
            Pixels.of_rows(picture, self.scale) if isinstance(picture, Rows) else Pixels(_read(picture)[0], self.scale)
        )
        fitted = Size.parse(size).fit(pixels.lr.shape[3], pixels.lr.shape[2], scale=self.scale)
        for rows in self._stream_pixels([pixels], fitted):
            yield rows[0]

    def _upscale_tensor(self, picture: Tensor, size: SizeLike | None, progress: Progress | None) -> Tensor:
        *batch, height, width = picture.shape
        result = picture.new_empty(*batch, height * self.scale, width * self.scale)
        done = 0
        for rows in self.stream(picture, size=size):
            result[..., done : done + rows.shape[-2], :] = rows
            done += rows.shape[-2]
            if progress:
                progress(done // self.scale, height)
        return result

    def _stream_pixels(self, batch: Sequence[Pixels], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield bands (N, rows, width, ...) of the results, of this width and height, of N pictures alike."""
        lr: Any = torch.cat([pixels.lr for pixels in batch]) if len(batch) > 1 else batch[0].lr  # type: ignore[misc]
        inputs = [pixels.inputs for pixels in batch]

        def load(rows: Tensor) -> Tensor:
            return torch.cat([pixels.load(each) for pixels, each in zip(batch, rows.split(1), strict=True)])

        def levels() -> Iterator[Tensor]:
            top = 0
            for sr in self._stream(lr, load, preferred, sum(inputs)):
                parts = zip(batch, sr.split(inputs), strict=True)
                yield torch.stack([pixels.save(each, top) for pixels, each in parts])
                top += sr.shape[2]

        preferred = torch.float32 if batch[0].levels > 255 else fast_dtype(self.device)
        bands = to_host(levels(), self.device)
        first = batch[0]
        whole = first.lr.shape[3] * self.scale, first.lr.shape[2] * self.scale
        if size != whole:
            bands = reduce_rows(bands, whole, size, levels=first.levels, alpha=first.channels in (2, 4))
        for rows in bands:
            yield first.to_array(rows)

    def _stream(
        self, lr: Tensor | Rows, load: Callable[[Tensor], Tensor], preferred: torch.dtype, inputs: int
    ) -> Iterator[Tensor]:
        """Yield bands of the output in float32 on the device; `load` makes `inputs` pictures of `lr`.

        Where memory runs out, the picture goes on from there with half the band; where half precision overflows, in
        float32. Either way the stream begins anew with the LR rows that the next output row depends on.
        """
        dtype = PRECISIONS.get(self.precision, preferred)
        width = inputs * lr.shape[3]
        height = lr.shape[2]
        engine = self._engine(dtype, width, height)
        band = self.band or (height if width * height <= engine.small else max(1, engine.pixels // width))
        top = 0
        while top < lr.shape[2] * self.scale:
            first = max(0, top // self.scale - self.radius)
            band = min(band, lr.shape[2] - first)
            try:
                for logits in self._logits(
                    self._engine(dtype, width, height), lr[:, :, first:], load, band, top - first * self.scale
                ):
                    if dtype != torch.float32 and not logits.isfinite().all():
                        logger.warning("row %d overflowed in %s; going on in float32", top, dtype)
                        dtype = torch.float32
                        break
                    yield self._to_range(logits.float())
                    top += logits.shape[2]
            except (RuntimeError, MemoryError) as error:
                if band == 1 or not _is_out_of_memory(error):
                    raise
                band = -(-band // 2)
                logger.warning("out of memory at row %d: going on with bands of %d rows", top, band)

    def _logits(
        self, engine: Engine, lr: Tensor | Rows, load: Callable[[Tensor], Tensor], band: int, skip: int
    ) -> Iterator[Tensor]:
        """Yield bands of what the last layer is given, but for the first `skip` rows of all."""

        def prepare(rows: Any) -> Tensor:
            return load(rows.to(self.device)).float()  # to the device as few bytes as they have

        for logits in engine.stream(lr, band=band, load=prepare):
            if skip < logits.shape[2]:
                yield logits[:, :, skip:]
            skip = max(0, skip - logits.shape[2])

    def _engine(self, dtype: torch.dtype, width: int = 1, height: int = 1) -> Engine:
        name = "torch" if self._auto and not OpenVINOEngine.repays(width, height, dtype) else self.engine
        with self._lock:
            if (name, dtype) not in self._engines:
                self._engines[name, dtype] = make_engine(name, self._fused, scale=self.scale, dtype=dtype)
            return self._engines[name, dtype]


def _read(picture: Any) -> tuple[np.ndarray, dict[Any, Any] | None]:
    """Return a picture's pixels, and what an image of the result must carry, unless it came as an array."""
    if isinstance(picture, np.ndarray):
        return picture, None
    if isinstance(picture, (str, os.PathLike)):
        raster = files.read(Path(picture))
        if raster.bits > 8 and raster.array.ndim == 3:
            logger.warning("%s has %d bits per channel, its image 8; pass an array to keep them", picture, raster.bits)
    elif isinstance(picture, Image.Image):
        raster = files.from_image(picture)
    else:
        raise ValueError(f"Expected a path, PIL image, array or tensor, got {type(picture).__name__}.")
    return raster.array, raster.info


def _check_tensor(picture: Tensor) -> Tensor:
    if not picture.is_floating_point() or picture.ndim not in (3, 4) or picture.shape[-3] != 3 or picture.numel() == 0:
        raise ValueError(
            f"Expected a float tensor (3, H, W) or (N, 3, H, W) in [0, 1], got {picture.dtype} {tuple(picture.shape)}."
        )
    lowest, highest = picture.aminmax()
    if not (lowest >= -1e-3 and highest <= 1 + 1e-3):
        raise ValueError(f"Expected values in [0, 1], got {lowest:.4g} to {highest:.4g}; divide by 255 or clamp first.")
    return picture.detach().reshape(-1, *picture.shape[-3:])


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(
        words in str(error) for words in ("allocate memory", "bad_alloc")
    )
