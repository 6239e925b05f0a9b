"""`Upscaler`: run a generator on images, strip by strip, on any supported backend."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .backends.base import Backend, create_backend, select_backend
from .devices import copy_to_cpu, parse_dtype, preferred_dtype, resolve_device
from .images.decode import load_raster
from .images.lazy import LazyRows
from .images.raster import Raster
from .images.tensors import TensorImage
from .network.fusion import fuse
from .network.layers import weights_sha256
from .network.streaming import receptive_field_radius
from .progress import ProgressCallback
from .resize import SizeLike, TargetSize, downscale_rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

Array = TypeVar("Array", np.ndarray, Tensor)
PathOrPil = str | os.PathLike[str] | Image.Image
ImageInput = PathOrPil | np.ndarray | Tensor


class CallOptions(TypedDict, total=False):
    """Keyword arguments of `Upscaler.upscale`."""

    size: SizeLike | None
    progress: ProgressCallback | None


class UpscalerOptions(TypedDict, total=False):
    """Keyword arguments of `Upscaler`."""

    dtype: str | torch.dtype
    device: str | torch.device
    strip_height: int | None
    backend: str


class Upscaler:
    """Run a generator on images. Threads may share an instance: all per-image state is local to the call.

    Args:
        generator: A network from `build_generator`; it is copied.
        scale: The upscaling factor of the generator.
        dtype: "auto", "float32", "bfloat16", "float16" or a `torch.dtype`. "auto" selects bfloat16 for 8-bit images on
            devices with bfloat16 in hardware, and float32 otherwise.
        device: "auto" (cuda, then mps, then cpu) or any torch device.
        strip_height: LR rows per strip, which bounds memory. By default strips have as many rows as the backend
            processes fastest.
        backend: "torch" (any device), "openvino" (CPU, requires the extra [openvino]), or "auto", which selects the
            faster one for each image.

    Raises:
        ValueError: An argument is out of range or unavailable.
    """

    def __init__(
        self,
        generator: nn.Sequential,
        *,
        scale: int,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        strip_height: int | None = None,
        backend: str = "auto",
    ) -> None:
        if strip_height is not None and (type(strip_height) is not int or strip_height < 1):
            raise ValueError(f"`strip_height` must be a positive integer, got {strip_height!r}.")
        self.scale = scale
        self.dtype = parse_dtype(dtype)
        self.device = resolve_device(device)
        self.strip_height = strip_height
        self.backend = select_backend(backend, device=self.device, dtype=self.dtype)
        self._requested_backend = backend
        fused = fuse(generator).to(self.device).to(memory_format=torch.channels_last)
        # The last layer runs in float32, after the check for overflow in half precision.
        self._backbone, self._output_activation = fused[:-1], fused[-1]
        self._backends: dict[tuple[str, torch.dtype], Backend] = {}
        self._lock = threading.Lock()
        self.receptive_field = receptive_field_radius(fused)

    @overload
    def upscale(self, image: Array, **options: "Unpack[CallOptions]") -> Array: ...
    @overload
    def upscale(self, image: PathOrPil, **options: "Unpack[CallOptions]") -> Image.Image: ...
    def upscale(
        self, image: ImageInput, *, size: SizeLike | None = None, progress: ProgressCallback | None = None
    ) -> Tensor | np.ndarray | Image.Image:
        """Upscale an image.

        Args:
            image: A path; a PIL image; a uint8 or uint16 array (H, W) or (H, W, C); or a float tensor (3, H, W) or
                (N, 3, H, W), RGB in [0, 1].
            size: Target size: a factor ("2x"), the longest edge in pixels, or `(width, height)` where one may be
                `None`. Defaults to `scale`. The model always runs at its native scale; smaller targets are bicubically
                downscaled. Not supported for tensors.
            progress: Called with (LR rows done, LR rows in total) after each strip.

        Returns:
            The upscaled image, of the input's type; a PIL image for a path. Grayscale, transparency, and the color
            profile, EXIF data and resolution of PIL images are kept. 16-bit grayscale becomes a PIL image of mode I;16;
            all other PIL images have 8 bits per channel, since Pillow has no modes for more.

        Raises:
            ImageError: The file or image cannot be decoded.
            ValueError: The array or tensor has an unsupported shape, dtype or range, or `size` exceeds the model's.
        """
        if not isinstance(image, Tensor):
            images: list[Any] = [image]
            return self.upscale_batch(images, size=size, progress=progress)[0]
        *batch, height, width = image.shape
        output = image.new_empty(*batch, height * self.scale, width * self.scale)
        done = 0
        for rows in self.stream(image, size=size):
            output[..., done : done + rows.shape[-2], :] = rows
            done += rows.shape[-2]
            if progress:
                progress(done // self.scale, height)
        return output

    @overload
    def upscale_batch(self, images: Sequence[np.ndarray], **options: "Unpack[CallOptions]") -> list[np.ndarray]: ...
    @overload
    def upscale_batch(self, images: Sequence[PathOrPil], **options: "Unpack[CallOptions]") -> list[Image.Image]: ...
    def upscale_batch(
        self, images: Sequence[Any], *, size: SizeLike | None = None, progress: ProgressCallback | None = None
    ) -> list[Any]:
        """Upscale images of one shape and dtype together, which is faster for small images; see `max_batch_size`.

        Arguments and outputs are as for `upscale`, except tensors, which have a batch dimension of their own.

        Raises:
            ImageError: A file or image cannot be decoded.
            ValueError: The shapes or dtypes differ or are unsupported.
        """
        arrays, to_output = zip(*map(_to_array, images), strict=True)
        kinds = {(array.shape, array.dtype) for array in arrays}
        if len(kinds) > 1:
            raise ValueError(f"`images` must have one shape and dtype, got {', '.join(sorted(map(str, kinds)))}.")
        height, width, *channels = arrays[0].shape
        batch = [TensorImage(array, self.scale) for array in arrays]
        target = TargetSize.parse(size).resolve(width, height, scale=self.scale)
        outputs = np.empty((len(batch), target[1], target[0], *channels), arrays[0].dtype)
        done = 0
        for rows in self._stream_arrays(batch, target):
            outputs[:, done : done + rows.shape[1]] = rows
            done += rows.shape[1]
            if progress:
                progress(done * height // target[1], height)
        return [convert(output) for convert, output in zip(to_output, outputs, strict=True)]

    def fingerprint(self) -> str:
        """Return a hash of everything but the image that results depend on: weights, dtype and backend."""
        key = f"{self.scale} {self.dtype} {self.device.type} {self.backend} {weights_sha256(self._backbone)}"
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    def max_batch_size(self, height: int, width: int) -> int:
        """Return how many images of this size `upscale_batch` processes within the memory of one strip."""
        pixels = self.strip_height * width if self.strip_height else self._backend_for(torch.float32).strip_pixels
        return max(1, pixels // (height * width))

    @overload
    def stream(self, image: Tensor, *, size: SizeLike | None = None) -> Iterator[Tensor]: ...
    @overload
    def stream(
        self, image: PathOrPil | np.ndarray | LazyRows, *, size: SizeLike | None = None
    ) -> Iterator[np.ndarray]: ...
    def stream(self, image: ImageInput | LazyRows, *, size: SizeLike | None = None) -> Iterator[Any]:
        """Upscale an image, or lazily decoded rows, and yield the output in strips of rows, from top to bottom.

        Errors are as for `upscale`.

        Yields:
            Arrays (rows, width, C) of the image's dtype; for a tensor, tensors (..., 3, rows, W * scale).
        """
        if isinstance(image, Tensor):
            if size is not None:
                raise ValueError("`size` is not supported for tensors; resize the output instead.")
            lr = _check_tensor(image)
            strips = self._stream_with_recovery(lr, lambda rows: rows, lambda sr, _: sr, torch.float32, len(lr))
            for sr in copy_to_cpu(strips, self.device) if image.device.type == "cpu" else strips:
                yield sr.to(image).reshape(*image.shape[:-2], *sr.shape[-2:])
            return
        if isinstance(image, LazyRows):
            tensor_image = TensorImage.of_rows(image, self.scale)
        else:
            tensor_image = TensorImage(_to_array(image)[0], self.scale)
        height, width = tensor_image.lr.shape[2:]
        target = TargetSize.parse(size).resolve(width, height, scale=self.scale)
        for rows in self._stream_arrays([tensor_image], target):
            yield rows[0]

    def _stream_arrays(self, batch: Sequence[TensorImage], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield strips (N, rows, width, ...) of the outputs for N images of one shape; `size` is width and height."""
        first = batch[0]
        lr: Any = torch.cat([image.lr for image in batch]) if len(batch) > 1 else first.lr  # type: ignore[misc]
        num_inputs = [image.num_inputs for image in batch]

        def to_input(rows: Tensor) -> Tensor:
            return torch.cat([image.to_input(part) for image, part in zip(batch, rows.split(1), strict=True)])

        def from_output(sr: Tensor, top: int) -> Tensor:
            parts = zip(batch, sr.split(num_inputs), strict=True)
            return torch.stack([image.from_output(part, top) for image, part in parts])

        dtype = torch.float32 if first.max_value > 255 else preferred_dtype(self.device)
        strips = copy_to_cpu(self._stream_with_recovery(lr, to_input, from_output, dtype, sum(num_inputs)), self.device)
        full = first.lr.shape[3] * self.scale, first.lr.shape[2] * self.scale
        if size != full:
            strips = downscale_rows(strips, full, size, max_value=first.max_value, alpha=first.channels in (2, 4))
        for rows in strips:
            yield first.to_numpy(rows)

    def _stream_with_recovery(
        self,
        lr: Tensor | LazyRows,
        to_input: Callable[[Tensor], Tensor],
        from_output: Callable[[Tensor, int], Tensor],
        preferred: torch.dtype,
        num_inputs: int,
    ) -> Iterator[Tensor]:
        """Yield strips of the output on the device, converted from float32 by `from_output(sr, top row)`.

        `to_input` converts rows of `lr` to `num_inputs` network inputs; `preferred` is the dtype if none was requested.
        When memory runs out, streaming resumes with half the strip height; on non-finite values in half precision, in
        float32. Either way it restarts at the first LR row that the next output row depends on.
        """

        def prepare(rows: Any) -> Tensor:
            return to_input(rows.to(self.device)).float()  # moved before conversion: integers are smaller

        dtype = self.dtype or preferred
        height, width = lr.shape[2], num_inputs * lr.shape[3]
        backend = self._backend_for(dtype, height, width)
        whole = height * width <= backend.whole_image_pixels
        strip_height = self.strip_height or (height if whole else max(1, backend.strip_pixels // width))
        top = 0
        while top < height * self.scale:
            first = max(0, top // self.scale - self.receptive_field)
            strip_height = min(strip_height, height - first)
            skip = top - first * self.scale  # rows of the receptive field, yielded before
            try:
                for logits in backend.stream(lr[:, :, first:], strip_height=strip_height, to_input=prepare):
                    skipped = min(skip, logits.shape[2])
                    skip -= skipped
                    if skipped == logits.shape[2]:
                        continue
                    sr = logits[:, :, skipped:].float()
                    if dtype != torch.float32 and not sr.isfinite().all():
                        logger.warning("Non-finite values at row %d in %s; falling back to float32.", top, dtype)
                        dtype = torch.float32
                        backend = self._backend_for(dtype, height, width)
                        break
                    yield from_output(self._output_activation(sr), top)
                    top += sr.shape[2]
            except (RuntimeError, MemoryError) as error:
                if strip_height == 1 or not _is_out_of_memory(error):
                    raise
                strip_height = -(-strip_height // 2)
                logger.warning("Out of memory at row %d; retrying with strip_height=%d.", top, strip_height)

    def _backend_for(self, dtype: torch.dtype, height: int = 1, width: int = 1) -> Backend:
        name = select_backend(self._requested_backend, device=self.device, dtype=dtype, shape=(height, width))
        with self._lock:
            if (name, dtype) not in self._backends:
                self._backends[name, dtype] = create_backend(name, self._backbone, scale=self.scale, dtype=dtype)
            return self._backends[name, dtype]


def _to_array(image: Any) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """Return an image's pixels, and a function that converts upscaled pixels to the type that `upscale` returns."""
    if isinstance(image, np.ndarray):
        return image.astype(image.dtype.newbyteorder("="), copy=False), lambda pixels: pixels
    if isinstance(image, (str, os.PathLike)):
        raster = load_raster(Path(image))
        if raster.bits > 8 and raster.array.ndim == 3:
            message = "'%s': %d-bit channels are reduced to 8 bits; pass an array to keep them."
            logger.warning(message, image, raster.bits)
    elif isinstance(image, Image.Image):
        raster = Raster.from_pil(image)
    else:
        raise ValueError(f"`image` must be a path, PIL image, array or tensor, got {type(image).__name__}.")
    name = "the image" if isinstance(image, Image.Image) else f"'{image}'"
    for warning in raster.warnings:
        logger.warning("%s: %s", name, warning)
    return raster.array, lambda x: Raster(x, raster.metadata.resized(x.shape[1], x.shape[0])).to_pil()


def _check_tensor(image: Tensor) -> Tensor:
    if not image.is_floating_point() or image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
        expected = "a float tensor (3, H, W) or (N, 3, H, W) in [0, 1]"
        raise ValueError(f"`image` must be {expected}, got {image.dtype} {tuple(image.shape)}.")
    lowest, highest = image.aminmax()
    if not (lowest >= -1e-3 and highest <= 1 + 1e-3):
        found = f"{lowest:.4g} to {highest:.4g}"
        raise ValueError(f"`image` must have values in [0, 1], got {found}; divide by 255 or clamp first.")
    return image.detach().reshape(-1, *image.shape[-3:])


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in ("allocate memory", "bad_alloc"))
