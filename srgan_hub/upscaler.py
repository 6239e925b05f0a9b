"""Upscale images with a generator: fused once, streamed, on the device and in the precision that suit."""

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

from .backends.base import Backend, create_backend, select_backend
from .backends.openvino_backend import OpenVINOBackend
from .devices import copy_to_cpu, preferred_dtype, resolve_device
from .images import decode
from .images.lazy import LazyRows
from .images.metadata import update_dimensions
from .images.raster import Raster
from .images.tensors import TensorImage
from .network.fusion import fuse
from .network.layers import weights_sha256
from .network.streaming import receptive_field_radius
from .resize import SizeLike, TargetSize, downscale_rows

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip

ProgressCallback = Callable[[int, int], None]
Array = TypeVar("Array", np.ndarray, Tensor)
ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


class Upscaler:
    """A generator prepared for many images. Threads may share one: all state of an image belongs to its call.

    Args:
        generator: from `build_generator`; it is copied.
        scale: its scale.
        dtype: "auto", "fp32", "bf16" or "fp16". "auto" takes bf16 for 8-bit images where the device has it in
            hardware, and float32 otherwise.
        device: "auto" (cuda, then mps, then cpu) or any torch device.
        strip_height: LR rows that go through the network at once, the measure of the memory it takes. By default they
            are as many as make the backend's `pixels`.
        backend: "torch", on any device; "openvino", on a CPU, with the extra [openvino]; or "auto", which takes
            the one that is faster, see `select_backend`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        generator: nn.Sequential,
        *,
        scale: int,
        dtype: str = "auto",
        device: str | torch.device = "auto",
        strip_height: int | None = None,
        backend: str = "auto",
    ) -> None:
        if dtype not in ("auto", *DTYPES):
            raise ValueError(f"Expected a dtype out of auto, {', '.join(DTYPES)}, got {dtype!r}.")
        if strip_height is not None and (type(strip_height) is not int or strip_height < 1):
            raise ValueError(f"Expected strip_height as a positive integer, got {strip_height!r}.")
        self.scale = scale
        self.dtype = dtype
        self.device = resolve_device(device)
        self.strip_height = strip_height
        self.backend = select_backend(backend, self.device)
        self._may_fall_back = backend == "auto" and self.backend == "openvino"
        if self.backend == "openvino" and dtype == "fp16":
            if backend == "openvino":
                raise ValueError("Expected dtype fp32 or bf16 with the backend openvino, got 'fp16'.")
            self.backend = "torch"
        fused = fuse(generator).to(self.device).to(memory_format=torch.channels_last)
        # The last layer runs in float32, behind the check that half precision has not overflowed.
        self._backbone, self._output_activation = fused[:-1], fused[-1]
        self._backends: dict[tuple[str, torch.dtype], Backend] = {}
        self._lock = threading.Lock()
        self.receptive_field = receptive_field_radius(fused)

    @overload
    def upscale(
        self, image: Array, *, size: SizeLike | None = None, progress: ProgressCallback | None = None
    ) -> Array: ...
    @overload
    def upscale(
        self,
        image: str | os.PathLike[str] | Image.Image,
        *,
        size: SizeLike | None = None,
        progress: ProgressCallback | None = None,
    ) -> Image.Image: ...
    def upscale(
        self, image: ImageInput, *, size: SizeLike | None = None, progress: ProgressCallback | None = None
    ) -> Tensor | np.ndarray | Image.Image:
        """Upscale an image.

        Args:
            image: a path; a PIL image; an array (H, W) or (H, W, C) of uint8 or uint16; or a float tensor
                (3, H, W) or (N, 3, H, W) in [0, 1], RGB.
            size: of the result, `scale` times the image by default: "2x" or the like, the longest side in pixels, or
                (width, height), of which one may be None. It is the whole result, reduced by `resize.resize`
                row by row. Not for tensors.
            progress: called with (rows done, all rows) of the image that is being upscaled, after each strip.

        Returns:
            The same kind, `scale` times as high and wide or of `size`; a PIL image for a path. Gray stays gray,
            transparency is kept, and a PIL image keeps its color profile, EXIF data and resolution. Gray of 16 bits is
            an image of mode I;16; other images have 8 bits, since Pillow has no modes for more.

        Raises:
            ImageError: the file or image cannot be used; the message says why.
            ValueError: the array or tensor has a wrong shape, type or range, or the size is larger than the network's.
        """
        if isinstance(image, Tensor):
            return self._upscale_tensor(image, size, progress)
        images: list[Any] = [image]
        return self.upscale_batch(images, size=size, progress=progress)[0]

    @overload
    def upscale_batch(
        self, images: Sequence[np.ndarray], *, size: SizeLike | None = None, progress: ProgressCallback | None = None
    ) -> list[np.ndarray]: ...
    @overload
    def upscale_batch(
        self,
        images: Sequence[str | os.PathLike[str] | Image.Image],
        *,
        size: SizeLike | None = None,
        progress: ProgressCallback | None = None,
    ) -> list[Image.Image]: ...
    def upscale_batch(
        self, images: Sequence[Any], *, size: SizeLike | None = None, progress: ProgressCallback | None = None
    ) -> list[Any]:
        """Upscale images of one size together, which is faster where they are small; see `batch_size`.

        Args:
            images: as for `upscale`, but for tensors, which have a batch dimension. All of one shape and type.
            size: as for `upscale`.
            progress: called with (rows done, all rows) of each image, after each strip.

        Returns:
            What `upscale` gives for each, in their order.

        Raises:
            ImageError: a file or image cannot be used; the message says why.
            ValueError: the shapes or types differ or are wrong.
        """
        arrays, infos = zip(*map(_to_array, images), strict=True)
        kinds = {(array.shape, array.dtype) for array in arrays}
        if len(kinds) > 1:
            raise ValueError(f"Expected images of one shape and type, got {', '.join(sorted(map(str, kinds)))}.")
        height, width, *channels = arrays[0].shape
        batch = [TensorImage(array, self.scale) for array in arrays]
        wide, high = TargetSize.parse(size).resolve(width, height, scale=self.scale)
        results = np.empty((len(batch), high, wide, *channels), arrays[0].dtype)
        done = 0
        for rows in self._stream_arrays(batch, (wide, high)):
            results[:, done : done + rows.shape[1]] = rows
            done += rows.shape[1]
            if progress:
                progress(done * height // high, height)
        return [
            result if info is None else Raster(result, update_dimensions(info, wide, high)).to_pil()
            for result, info in zip(results, infos, strict=True)
        ]

    def fingerprint(self) -> str:
        """Return a hash of what results depend on beside the image: weights, precision and backend."""
        facts = f"{self.scale} {self.dtype} {self.device.type} {self.backend} {weights_sha256(self._backbone)}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def max_batch_size(self, height: int, width: int) -> int:
        """Return how many images of this size `upscale_batch` takes at once within the memory of this upscaler."""
        pixels = self.strip_height * width if self.strip_height else self._backend_for(torch.float32).strip_pixels
        return max(1, pixels // (height * width))

    @overload
    def stream(self, image: Tensor, *, size: SizeLike | None = None) -> Iterator[Tensor]: ...
    @overload
    def stream(
        self, image: str | os.PathLike[str] | Image.Image | np.ndarray | LazyRows, *, size: SizeLike | None = None
    ) -> Iterator[np.ndarray]: ...
    def stream(
        self, image: ImageInput | LazyRows, *, size: SizeLike | None = None
    ) -> Iterator[Tensor] | Iterator[np.ndarray]:
        """Upscale an image and yield the result strip by strip, from top to bottom.

        Args:
            image, size: as for `upscale`; or the rows of an image that is not in memory.

        Yields:
            Arrays (rows, width, C), of the image's type; for a tensor, tensors (..., 3, rows, W * scale).

        Raises:
            As for `upscale`.
        """
        if isinstance(image, Tensor):
            if size is not None:
                raise ValueError("Expected a size for an image, got a tensor; resize its result.")
            lr = _check_tensor(image)
            strips = self._stream_with_recovery(lr, lambda rows: rows, torch.float32, len(lr))
            for sr in copy_to_cpu(strips, self.device) if image.device.type == "cpu" else strips:
                yield sr.to(image).reshape(*image.shape[:-2], *sr.shape[-2:])
            return
        pixels = (
            TensorImage.of_rows(image, self.scale)
            if isinstance(image, LazyRows)
            else TensorImage(_to_array(image)[0], self.scale)
        )
        fitted = TargetSize.parse(size).resolve(pixels.lr.shape[3], pixels.lr.shape[2], scale=self.scale)
        for rows in self._stream_arrays([pixels], fitted):
            yield rows[0]

    def _upscale_tensor(self, image: Tensor, size: SizeLike | None, progress: ProgressCallback | None) -> Tensor:
        *batch, height, width = image.shape
        result = image.new_empty(*batch, height * self.scale, width * self.scale)
        done = 0
        for rows in self.stream(image, size=size):
            result[..., done : done + rows.shape[-2], :] = rows
            done += rows.shape[-2]
            if progress:
                progress(done // self.scale, height)
        return result

    def _stream_arrays(self, batch: Sequence[TensorImage], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield strips (N, rows, width, ...) of the results, of this width and height, of N images alike."""
        lr: Any = torch.cat([pixels.lr for pixels in batch]) if len(batch) > 1 else batch[0].lr  # type: ignore[misc]
        inputs = [pixels.num_inputs for pixels in batch]

        def to_input(rows: Tensor) -> Tensor:
            return torch.cat([pixels.to_input(each) for pixels, each in zip(batch, rows.split(1), strict=True)])

        def levels() -> Iterator[Tensor]:
            top = 0
            for sr in self._stream_with_recovery(lr, to_input, preferred, sum(inputs)):
                parts = zip(batch, sr.split(inputs), strict=True)
                yield torch.stack([pixels.from_output(each, top) for pixels, each in parts])
                top += sr.shape[2]

        preferred = torch.float32 if batch[0].max_value > 255 else preferred_dtype(self.device)
        strips = copy_to_cpu(levels(), self.device)
        first = batch[0]
        whole = first.lr.shape[3] * self.scale, first.lr.shape[2] * self.scale
        if size != whole:
            strips = downscale_rows(strips, whole, size, max_value=first.max_value, alpha=first.channels in (2, 4))
        for rows in strips:
            yield first.to_numpy(rows)

    def _stream_with_recovery(
        self, lr: Tensor | LazyRows, to_input: Callable[[Tensor], Tensor], preferred: torch.dtype, inputs: int
    ) -> Iterator[Tensor]:
        """Yield strips of the output in float32 on the device; `to_input` makes `inputs` images of `lr`.

        Where memory runs out, the image goes on from there with half the strip; where half precision overflows, in
        float32. Either way the stream begins again with the LR rows that the next output row depends on.
        """
        compute_dtype = DTYPES.get(self.dtype, preferred)
        width = inputs * lr.shape[3]
        height = lr.shape[2]
        backend = self._backend_for(compute_dtype, width, height)
        strip_height = self.strip_height or (
            height if width * height <= backend.whole_image_pixels else max(1, backend.strip_pixels // width)
        )
        top = 0
        while top < lr.shape[2] * self.scale:
            first = max(0, top // self.scale - self.receptive_field)
            strip_height = min(strip_height, lr.shape[2] - first)
            try:
                for logits in self._run_backbone(
                    self._backend_for(compute_dtype, width, height),
                    lr[:, :, first:],
                    to_input,
                    strip_height,
                    top - first * self.scale,
                ):
                    if compute_dtype != torch.float32 and not logits.isfinite().all():
                        logger.warning("row %d overflowed in %s; going on in float32", top, compute_dtype)
                        compute_dtype = torch.float32
                        break
                    yield self._output_activation(logits.float())
                    top += logits.shape[2]
            except (RuntimeError, MemoryError) as error:
                if strip_height == 1 or not _is_out_of_memory(error):
                    raise
                strip_height = -(-strip_height // 2)
                logger.warning("out of memory at row %d: going on with strips of %d rows", top, strip_height)

    def _run_backbone(
        self,
        backend: Backend,
        lr: Tensor | LazyRows,
        to_input: Callable[[Tensor], Tensor],
        strip_height: int,
        skip: int,
    ) -> Iterator[Tensor]:
        """Yield strips of what the last layer is given, but for the first `skip` rows of all."""

        def prepare(rows: Any) -> Tensor:
            return to_input(rows.to(self.device)).float()  # to the device as few bytes as they have

        for logits in backend.stream(lr, strip_height=strip_height, to_input=prepare):
            if skip < logits.shape[2]:
                yield logits[:, :, skip:]
            skip = max(0, skip - logits.shape[2])

    def _backend_for(self, dtype: torch.dtype, width: int = 1, height: int = 1) -> Backend:
        name = (
            "torch" if self._may_fall_back and not OpenVINOBackend.is_faster_for(width, height, dtype) else self.backend
        )
        with self._lock:
            if (name, dtype) not in self._backends:
                self._backends[name, dtype] = create_backend(name, self._backbone, scale=self.scale, dtype=dtype)
            return self._backends[name, dtype]


def _to_array(image: Any) -> tuple[np.ndarray, dict[Any, Any] | None]:
    """Return an image's pixels, and what an image of the result must carry, unless it came as an array."""
    if isinstance(image, np.ndarray):
        return image, None
    if isinstance(image, (str, os.PathLike)):
        raster = decode.load_raster(Path(image))
        if raster.bits > 8 and raster.array.ndim == 3:
            logger.warning("%s has %d bits per channel, its image 8; pass an array to keep them", image, raster.bits)
    elif isinstance(image, Image.Image):
        raster = decode.from_pil(image)
    else:
        raise ValueError(f"Expected a path, PIL image, array or tensor, got {type(image).__name__}.")
    return raster.array, raster.info


def _check_tensor(image: Tensor) -> Tensor:
    if not image.is_floating_point() or image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
        raise ValueError(
            f"Expected a float tensor (3, H, W) or (N, 3, H, W) in [0, 1], got {image.dtype} {tuple(image.shape)}."
        )
    lowest, highest = image.aminmax()
    if not (lowest >= -1e-3 and highest <= 1 + 1e-3):
        raise ValueError(f"Expected values in [0, 1], got {lowest:.4g} to {highest:.4g}; divide by 255 or clamp first.")
    return image.detach().reshape(-1, *image.shape[-3:])


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(
        words in str(error) for words in ("allocate memory", "bad_alloc")
    )
