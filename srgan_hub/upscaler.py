"""`Upscaler`: run a generator on images, strip by strip, on any supported backend."""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .backends.base import Backend, create_backend, select_backend
from .devices import copy_to_cpu, parse_dtype, preferred_dtype, resolve_device
from .images.decode import load_raster
from .images.errors import wrap_decode_errors
from .images.lazy import LazyRows, WrappedRows
from .images.raster import Raster, to_pixels
from .images.tensors import Alpha, TensorImage, Wrap, check_options
from .network.fusion import fuse
from .network.layers import find_non_finite, weights_sha256
from .network.streaming import receptive_field_radius
from .network.winograd import TILE
from .progress import ProgressCallback
from .resize import SizeLike, TargetSize, downscale_rows, halo_radius

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

Array = TypeVar("Array", np.ndarray, Tensor)
PathOrPil = str | os.PathLike[str] | Image.Image
ImageInput = PathOrPil | np.ndarray | Tensor


class ImageOptions(TypedDict, total=False):
    """Keyword arguments of `Upscaler.stream`."""

    size: SizeLike | None
    wrap: Wrap | None
    alpha: Alpha


class CallOptions(ImageOptions, total=False):
    """Keyword arguments of `Upscaler.upscale`."""

    progress: ProgressCallback | None


class UpscalerOptions(TypedDict, total=False):
    """Keyword arguments of `Upscaler`."""

    dtype: str | torch.dtype
    device: str | torch.device
    strip_height: int | None
    backend: str


@dataclass(frozen=True)
class _Source:
    """Images of one shape, extended for streaming, and the part of the output that is kept.

    Args:
        lr: (N, C, H, W), extended by the halo.
        num_inputs: Network inputs.
        dtype: Of the network, unless it overflows.
        repeated: Rows, and columns of all inputs, of the repetition: they select the backend.
        halo: Columns and rows by which `lr` exceeds the images on each side.
        margin: Columns and rows of the halo whose outputs are kept, for downscaling.
        start: Row of the output to start at.
    """

    lr: Any
    num_inputs: int
    dtype: torch.dtype
    repeated: tuple[int, int]
    halo: tuple[int, int]
    margin: tuple[int, int]
    start: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of `lr`."""
        return self.lr.shape


class Upscaler:
    """Run a generator on images. Threads may share an instance: all per-image state is local to the call.

    It can be copied, and pickled for other processes. Results do not depend on PyTorch's default dtype and device,
    autocast or inference mode.

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
        ValueError: An argument is out of range or unavailable, or the generator has NaN or infinite weights.
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
        if any(parameter.is_meta for parameter in generator.parameters()):
            raise ValueError("`generator` is on the device 'meta', without weights; load or create it on another one.")
        fused = fuse(generator)
        # Fusion divides by the variances of batch norm, which may be almost zero.
        if name := find_non_finite(generator) or find_non_finite(fused):
            raise ValueError(f"`generator` has NaN or infinite weights in {name!r}; load an earlier checkpoint.")
        fused = fused.to(self.device).to(memory_format=torch.channels_last)
        # The last layer runs in float32, after the check for overflow in half precision.
        self._backbone, self._output_activation = fused[:-1], fused[-1]
        self._backends: dict[tuple[str, torch.dtype], Backend] = {}
        self._lock = threading.Lock()
        self.receptive_field = receptive_field_radius(fused)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_backends": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @overload
    def upscale(self, image: Array, **options: "Unpack[CallOptions]") -> Array: ...
    @overload
    def upscale(self, image: PathOrPil, **options: "Unpack[CallOptions]") -> Image.Image: ...
    def upscale(
        self,
        image: ImageInput,
        *,
        size: SizeLike | None = None,
        wrap: Wrap | None = None,
        alpha: Alpha = "opacity",
        progress: ProgressCallback | None = None,
    ) -> Tensor | np.ndarray | Image.Image:
        """Upscale an image.

        Args:
            image: A path; a PIL image, whose EXIF orientation is corrected only if it comes straight from `Image.open`;
                an array (H, W) or (H, W, C) of uint8, uint16, bool, or floats in [0, 1], which are rounded to 16 bits;
                or a float tensor (3, H, W) or (N, 3, H, W), RGB in [0, 1].
            size: Target size: a factor ("2x"), the longest edge in pixels, or `(width, height)` where one may be
                `None`. Defaults to `scale`. The model always runs at its native scale; smaller targets are bicubically
                downscaled.
            wrap: Axes along which the image repeats: "x" for a panorama of 360 degrees, "xy" for a tiling texture, or
                "y". The result is the middle of the upscaled 3 x 3 repetition, or 3 x 1 or 1 x 3, so it has no seams.
            alpha: "opacity" replaces colors that fully transparent alpha hides, so they do not bleed into visible ones.
                "independent" upscales RGB as it stands, and alpha as a gray image of its own, for alpha that is data.
            progress: Called with (LR rows done, LR rows in total) after each strip.

        Returns:
            The upscaled image, of the input's type and dtype, uint8 for bool; a PIL image for a path. Grayscale,
            transparency, and the color profile, EXIF data and resolution of PIL images are kept. 16-bit grayscale
            becomes a PIL image of mode I;16; all other PIL images have 8 bits per channel, since Pillow has no modes
            for more.

        Raises:
            ImageError: The file or image cannot be decoded.
            ValueError: The array or tensor has an unsupported shape, dtype or range, `size` exceeds the model's, an
                option is invalid, or the network's output is not finite.
        """
        if not isinstance(image, Tensor):
            images: list[Any] = [image]
            return self.upscale_batch(images, size=size, wrap=wrap, alpha=alpha, progress=progress)[0]
        height, width = _check_tensor(image).shape[2:]
        target = TargetSize.parse(size).resolve(width, height, scale=self.scale)
        output = image.new_empty(*image.shape[:-2], target[1], target[0])
        done = 0
        for rows in self.stream(image, size=size, wrap=wrap, alpha=alpha):
            output[..., done : done + rows.shape[-2], :] = rows
            done += rows.shape[-2]
            if progress:
                progress(done * height // target[1], height)
        return output

    @overload
    def upscale_batch(self, images: Sequence[np.ndarray], **options: "Unpack[CallOptions]") -> list[np.ndarray]: ...
    @overload
    def upscale_batch(self, images: Sequence[PathOrPil], **options: "Unpack[CallOptions]") -> list[Image.Image]: ...
    def upscale_batch(
        self,
        images: Sequence[Any],
        *,
        size: SizeLike | None = None,
        wrap: Wrap | None = None,
        alpha: Alpha = "opacity",
        progress: ProgressCallback | None = None,
    ) -> list[Any]:
        """Upscale images of one shape and dtype together, which is faster for small images; see `max_batch_size`.

        Arguments and outputs are as for `upscale`, except tensors, which have a batch dimension of their own.

        Raises:
            ImageError: A file or image cannot be decoded.
            ValueError: The shapes or dtypes differ or are unsupported.
        """
        arrays, to_output = zip(*(_to_array(image, wrap) for image in images), strict=True)
        kinds = {(array.shape, array.dtype) for array in arrays}
        if len(kinds) > 1:
            raise ValueError(f"`images` must have one shape and dtype, got {', '.join(sorted(map(str, kinds)))}.")
        batch = [TensorImage(array, self.scale, wrap=wrap, alpha=alpha) for array in arrays]
        height, width, *channels = arrays[0].shape
        target = TargetSize.parse(size).resolve(width, height, scale=self.scale)
        outputs = np.empty((len(batch), target[1], target[0], *channels), arrays[0].dtype)
        done = 0
        for rows in self._stream_arrays(batch, target, wrap):
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
    def stream(self, image: Tensor, **options: "Unpack[ImageOptions]") -> Iterator[Tensor]: ...
    @overload
    def stream(
        self, image: PathOrPil | np.ndarray | LazyRows, *, start: int = 0, **options: "Unpack[ImageOptions]"
    ) -> Iterator[np.ndarray]: ...
    def stream(
        self,
        image: ImageInput | LazyRows,
        *,
        size: SizeLike | None = None,
        wrap: Wrap | None = None,
        alpha: Alpha = "opacity",
        start: int = 0,
    ) -> Iterator[Any]:
        """Upscale an image, or lazily decoded rows, and yield the output in strips of rows, from top to bottom.

        Arguments and errors are as for `upscale`. Rows of the output before `start` are left out, and those far above
        it are not computed; it requires the model's native scale.

        Yields:
            Arrays (rows, width, C) of the image's dtype; for a tensor, tensors (..., 3, rows, W * scale).
        """
        check_options(wrap, alpha)
        if isinstance(image, Tensor):
            _check_tensor(image)
            height, width = image.shape[-2:]
        else:
            to_output: Callable[[np.ndarray], Any] = np.asarray
            if isinstance(image, LazyRows):
                pixels = TensorImage.of_rows(image, self.scale)
            else:
                array, convert = _to_array(image, wrap)
                to_output = convert if isinstance(image, np.ndarray) else to_output
                pixels = TensorImage(array, self.scale, wrap=wrap, alpha=alpha)
            height, width = pixels.height, pixels.width
        target = TargetSize.parse(size).resolve(width, height, scale=self.scale)
        if start and target != (width * self.scale, height * self.scale):
            raise ValueError(f"`start` requires the model's native scale, got `size` {size!r}.")
        if not isinstance(image, Tensor):
            for rows in self._stream_arrays([pixels], target, wrap, start):
                yield to_output(rows[0])
            return
        lr = image.detach().reshape(-1, 3, height, width)
        source = self._source([lr], (height, width), target, wrap, self.dtype or torch.float32, len(lr), start)
        strips = self._stream_with_recovery(source, lambda rows: rows, lambda sr, _: sr.permute(0, 2, 3, 1))
        for sr in self._finish(strips, source, target, max_value=1, keep=image.device.type != "cpu"):
            yield sr.permute(0, 3, 1, 2).to(image).reshape(*image.shape[:-2], sr.shape[1], sr.shape[2])

    def _stream_arrays(
        self, batch: Sequence[TensorImage], size: tuple[int, int], wrap: Wrap | None, start: int = 0
    ) -> Iterator[np.ndarray]:
        """Yield strips (N, rows, width, ...) of the outputs for N images of one shape; `size` is width and height."""
        first, lrs = batch[0], [image.lr for image in batch]
        num_inputs = [image.num_inputs for image in batch]
        dtype = self.dtype or (torch.float32 if first.max_value > 255 else preferred_dtype(self.device))
        source = self._source(lrs, (first.height, first.width), size, wrap, dtype, sum(num_inputs), start)
        for image in batch if wrap else ():
            image.lr = replace(source.lr, images=[image.lr])

        def to_input(rows: Tensor) -> Tensor:
            return torch.cat([image.to_input(part) for image, part in zip(batch, rows.split(1), strict=True)])

        def from_output(sr: Tensor, top: int) -> Tensor:
            parts = zip(batch, sr.split(num_inputs), strict=True)
            return torch.stack([image.from_output(part, top) for image, part in parts])

        strips = self._stream_with_recovery(source, to_input, from_output)
        for rows in self._finish(strips, source, size, max_value=first.max_value, alpha=first.masks):
            yield first.to_numpy(rows)

    def _source(
        self,
        images: Sequence[Any],
        sides: tuple[int, int],
        size: tuple[int, int],
        wrap: Wrap | None,
        dtype: torch.dtype,
        num_inputs: int,
        start: int,
    ) -> "_Source":
        """Extend an image that repeats by what its edges, and downscaling to `size` there, depend on."""
        axes, (height, width) = wrap or "", sides
        repeated = height * (3 if "y" in axes else 1), num_inputs * width * (3 if "x" in axes else 1)
        radii = self._backend_for(dtype, *repeated).column_radius, self.receptive_field
        halo, margin = [0, 0], [0, 0]
        for index, (side, radius) in enumerate(zip((width, height), radii, strict=True)):
            if "xy"[index] in axes:
                margin[index] = min(side, -(-halo_radius(side * self.scale, size[index]) // self.scale))
                halo[index] = margin[index] + radius
                # Convolutions round as in the repetition where their tiles begin at the same columns.
                halo[index] = min(side, halo[index] + (side - halo[index]) % TILE)
        if wrap:
            lr: Any = WrappedRows.of(images, sides, (halo[0], halo[1]))
        else:
            lr = torch.cat([*images]) if len(images) > 1 else images[0]
        return _Source(lr, num_inputs, dtype, repeated, (halo[0], halo[1]), (margin[0], margin[1]), start)

    def _finish(
        self,
        strips: Iterator[Tensor],
        source: "_Source",
        size: tuple[int, int],
        *,
        max_value: int,
        alpha: bool = False,
        keep: bool = False,
    ) -> Iterator[Tensor]:
        """Downscale strips (N, rows, W, C), and copy them to the CPU, unless they `keep` their device."""
        _, _, height, width = source.shape
        width, height = (width - 2 * source.halo[0]) * self.scale, (height - 2 * source.halo[1]) * self.scale
        if size == (width, height):
            return strips if keep else copy_to_cpu(strips, self.device)
        strips, halo = copy_to_cpu(strips, self.device), (source.margin[0] * self.scale, source.margin[1] * self.scale)
        return downscale_rows(strips, (width, height), size, max_value=max_value, alpha=alpha, halo=halo)

    def _stream_with_recovery(
        self, source: "_Source", to_input: Callable[[Tensor], Tensor], from_output: Callable[[Tensor, int], Tensor]
    ) -> Iterator[Tensor]:
        """Yield strips of the output on the device, converted from float32 by `from_output(sr, top row)`.

        `to_input` converts rows of the source to network inputs. When memory runs out, streaming resumes with half the
        strip height; on non-finite values in half precision, in float32. Either way it restarts at the first LR row
        that the next output row depends on.
        """

        def prepare(rows: Any) -> Tensor:
            return to_input(rows.to(self.device)).float()  # moved before conversion: integers are smaller

        lr, dtype = source.lr, source.dtype
        height, width = source.shape[2], source.num_inputs * source.shape[3]
        backend = self._backend_for(dtype, *source.repeated)
        whole = height * width <= backend.whole_image_pixels
        strip_height = self.strip_height or (height if whole else max(1, backend.strip_pixels // width))
        left, above = ((halo - kept) * self.scale for halo, kept in zip(source.halo, source.margin, strict=True))
        top, end = above + source.start, height * self.scale - above
        while top < end:
            first = max(0, top // self.scale - self.receptive_field)
            strip_height = min(strip_height, height - first)
            skip = top - first * self.scale  # rows of the receptive field, yielded before or not needed
            try:
                for logits in backend.stream(lr[:, :, first:], strip_height=strip_height, to_input=prepare):
                    skipped = min(skip, logits.shape[2])
                    skip -= skipped
                    if skipped == logits.shape[2]:
                        continue
                    sr = logits[:, :, skipped : skipped + end - top, left : logits.shape[3] - left].float()
                    if not sr.isfinite().all():
                        if dtype == torch.float32:
                            raise ValueError("The network's output is infinite in float32; its weights are too large.")
                        logger.warning("Non-finite values at row %d in %s; falling back to float32.", top, dtype)
                        dtype = torch.float32
                        backend = self._backend_for(dtype, *source.repeated)
                        break
                    yield from_output(self._activate(sr), top)
                    top += sr.shape[2]
                    if top == end:
                        return
            except (RuntimeError, MemoryError) as error:
                if strip_height == 1 or not _is_out_of_memory(error):
                    raise
                strip_height = -(-strip_height // 2)
                logger.warning("Out of memory at row %d; retrying with strip_height=%d.", top, strip_height)

    def _activate(self, logits: Tensor) -> Tensor:
        # On a CPU, float32 would round differently at the ends of vectors, and so where strips differ in size.
        exact = logits.device.type == "cpu" and isinstance(self._output_activation, nn.Sigmoid)
        return self._output_activation(logits.double() if exact else logits).float()

    def _backend_for(self, dtype: torch.dtype, height: int = 1, width: int = 1) -> Backend:
        name = select_backend(self._requested_backend, device=self.device, dtype=dtype, shape=(height, width))
        with self._lock:
            if (name, dtype) not in self._backends:
                self._backends[name, dtype] = create_backend(name, self._backbone, scale=self.scale, dtype=dtype)
            return self._backends[name, dtype]


def _to_array(image: Any, wrap: Wrap | None) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """Return an image's pixels, and a function that converts upscaled pixels to the type that `upscale` returns."""
    if isinstance(image, np.ndarray):
        dtype = image.dtype.newbyteorder("=")
        return to_pixels(image), lambda x: (x / 65_535).astype(dtype) if dtype.kind == "f" else x
    if isinstance(image, (str, os.PathLike)):
        raster = load_raster(Path(image))
        if raster.bits > 8 and raster.array.ndim == 3:
            message = "'%s': %d-bit channels are reduced to 8 bits; pass an array to keep them."
            logger.warning(message, image, raster.bits)
    elif isinstance(image, Image.Image):
        with wrap_decode_errors():
            raster = Raster.from_pil(image)
    else:
        raise ValueError(f"`image` must be a path, PIL image, array or tensor, got {type(image).__name__}.")
    name = "the image" if isinstance(image, Image.Image) else f"'{image}'"
    for warning in raster.fit_colors().warnings + raster.metadata.hints(wrap):
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
