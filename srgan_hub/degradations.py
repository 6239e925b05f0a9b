"""Degradation models that synthesize LR images from HR images.

All randomness is a pure function of (seed, sample index): results do not depend on how samples are batched.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .resize import downscale
from .rng import DEGRADATION, sample_rng

# (HR batch, uint8 NCHW RGB; sample indices; seed) -> LR batch, float32 NCHW on the same device: 8-bit values over 255.
Degradation = Callable[[Tensor, Sequence[int], int], Tensor]

KERNELS = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)


def make_degradation(name: str, *, scale: int, **options: object) -> Degradation:
    """Create a degradation by name: "bicubic", "gaussian" or "real-world"; `options` are other fields of its class.

    Raise ValueError if the name is unknown or a range is invalid.
    """
    degradations: dict[str, type] = {"bicubic": Bicubic, "gaussian": GaussianBlur, "real-world": RealWorldDegradation}
    if name not in degradations:
        raise ValueError(f"`degradation` must be one of {', '.join(degradations)}, got '{name}'.")
    return degradations[name](scale=scale, **options)


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's bicubic downscaling, as in the LR files of the benchmarks. Not random."""

    scale: int

    def __call__(self, hr: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        _check_batch(hr, indices, self.scale)
        return downscale(hr.float() / 255, self.scale, round_to_uint8=True)


@dataclass(frozen=True)
class GaussianBlur:
    """Gaussian blur, sampled at the center of each `scale` x `scale` block, which aligns it with bicubic downscaling.

    Borders are reflected. `sigma` is the range of the standard deviation in HR pixels, drawn per sample; 0.2 to 0.4
    times the scale by default.
    """

    scale: int
    sigma: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma)

    def __call__(self, hr: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        _check_batch(hr, indices, self.scale)
        low, high = self.sigma or (0.2 * self.scale, 0.4 * self.scale)
        sigmas = [sample_rng(seed, int(index), DEGRADATION).uniform(low, high) for index in indices]
        blurred = [_separable_blur(image, self.scale, (s, s)) for image, s in zip(hr, sigmas, strict=True)]
        return torch.stack(blurred).add(0.5).floor().clamp(0, 255).div(255).float().to(hr.device)


@dataclass(frozen=True)
class RealWorldDegradation:
    """Photographs on the web: blur, downscaling by a random kernel, noise, one or two JPEG compressions.

    Some samples stay clean, with bicubic downscaling only. All steps after the blur run on the CPU, in Pillow.

    Args:
        sigma: Range of the blur's standard deviation in HR pixels, drawn for rows and for columns; 0.05 to 0.55 times
            the scale by default.
        noise: Range of the standard deviation of white noise in 8-bit values.
        noise_prob: Probability of noise.
        gray_noise_prob: Probability of the noise being equal in all channels.
        jpeg_quality: Range of the JPEG quality, both ends included. Chroma subsampling is 4:4:4 or 4:2:0 at random.
        clean_prob: Probability of a clean sample.
        second_order_prob: Probability of a second round, as of images that are shared again: resized by a random
            kernel, noise, JPEG, and resized back (Wang et al. 2021, Real-ESRGAN).
        second_order_resize: Range of the second round's size, relative to that of the LR image.
    """

    scale: int
    sigma: tuple[float, float] | None = None
    noise: tuple[float, float] = (0.0, 6.0)
    noise_prob: float = 0.7
    gray_noise_prob: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)
    clean_prob: float = 0.4
    second_order_prob: float = 0.0
    second_order_resize: tuple[float, float] = (0.5, 1.2)

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma)
        _check_range("noise", self.noise, low=0)
        _check_range("jpeg_quality", self.jpeg_quality, low=1, high=95)
        _check_range("second_order_resize", self.second_order_resize, high=4)
        for name in ("noise_prob", "gray_noise_prob", "clean_prob", "second_order_prob"):
            _check_range(name, (getattr(self, name), 1), low=0)

    def __call__(self, hr: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        lr = Bicubic(self.scale)(hr, indices, seed)
        for i, index in enumerate(indices):
            rng = sample_rng(seed, int(index), DEGRADATION)
            if rng.random() >= self.clean_prob:
                lr[i] = self._degrade_one(hr[i], rng).to(lr)
        return lr

    def _degrade_one(self, hr: Tensor, rng: np.random.Generator) -> Tensor:
        low, high = self.sigma or (0.05 * self.scale, 0.55 * self.scale)
        blurred = _separable_blur(hr, 1, rng.uniform(low, high, 2).tolist())
        size = hr.shape[2] // self.scale, hr.shape[1] // self.scale
        image = _to_pil(blurred.permute(1, 2, 0).cpu().numpy()).resize(size, _draw_kernel(rng))
        image = self._add_noise(image, rng)
        for _ in range(rng.integers(1, 2, endpoint=True)):
            image = self._compress(image, rng)
        if rng.random() < self.second_order_prob:
            factor = rng.uniform(*self.second_order_resize)
            resized = image.resize(
                (max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), _draw_kernel(rng)
            )
            image = self._compress(self._add_noise(resized, rng), rng).resize(size, _draw_kernel(rng))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    def _add_noise(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        if rng.random() >= self.noise_prob:
            return image
        sigma, channels = rng.uniform(*self.noise), 1 if rng.random() < self.gray_noise_prob else 3
        return _to_pil(np.asarray(image) + sigma * rng.standard_normal((image.height, image.width, channels)))

    def _compress(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        file, quality = io.BytesIO(), int(rng.integers(*self.jpeg_quality, endpoint=True))
        image.save(file, "jpeg", quality=quality, subsampling=("4:4:4", "4:2:0")[rng.integers(2)])
        return Image.open(file)


def _draw_kernel(rng: np.random.Generator) -> Image.Resampling:
    return KERNELS[rng.integers(len(KERNELS))]


def _to_pil(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8))


def _separable_blur(image: Tensor, step: int, sigmas: Sequence[float]) -> Tensor:
    """Blur a CHW image by the sigmas of rows and columns, sampled at the center of each `step` x `step` block."""
    # MPS has no float64.
    values = (image.cpu() if image.device.type == "mps" else image).double()
    rows, columns = (_gaussian_weights(n, step, s).to(values) for n, s in zip(values.shape[1:], sigmas, strict=True))
    return rows @ values @ columns.T


def _gaussian_weights(length: int, step: int, sigma: float) -> Tensor:
    """Return the matrix from `length` samples, reflected at both ends, to the blurred ones at the block centers."""
    padding = min(length, math.ceil(4 * sigma) + step)
    positions = torch.arange(-padding, length + padding, dtype=torch.float64)
    centers = torch.arange(length // step, dtype=torch.float64) * step + (step - 1) / 2
    weights = torch.exp(-0.5 * ((positions - centers[:, None]) / sigma) ** 2)
    inside = weights[:, padding : padding + length].clone()
    inside[:, :padding] += weights[:, :padding].flip(1)
    inside[:, length - padding :] += weights[:, padding + length :].flip(1)
    return inside / inside.sum(dim=1, keepdim=True)


def _check_batch(hr: Tensor, indices: Sequence[int], scale: int) -> None:
    if hr.dim() != 4 or hr.shape[1] != 3 or hr.dtype != torch.uint8:
        raise ValueError(f"`hr` must be a uint8 NCHW RGB batch, got {hr.dtype} of shape {tuple(hr.shape)}.")
    if len(indices) != len(hr):
        raise ValueError(f"`indices` must have one index for each of {len(hr)} samples, got {len(indices)}.")
    if hr.shape[2] % scale or hr.shape[3] % scale:
        raise ValueError(f"The sides of `hr` must be divisible by {scale}, got {hr.shape[3]}x{hr.shape[2]}.")


def _check_range(name: str, bounds: Sequence[float] | None, low: float = 0.1, high: float = math.inf) -> None:
    if bounds is not None and (len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high):
        raise ValueError(f"`{name}` must be a range (low, high) within {low} to {high}, got {tuple(bounds)}.")
