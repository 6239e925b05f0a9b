"""From HR to LR, as an 8-bit file would hold it. All randomness is a pure function of (seed, sample index)."""

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

# (HR batch, uint8 NCHW RGB; the samples' indices; the run's seed) -> LR batch, float32 NCHW in [0, 1], same device.
# Every value is a whole number of levels, divided by 255. How samples are grouped in batches changes nothing.
Degradation = Callable[[Tensor, Sequence[int], int], Tensor]

# The kernels that programs shrink images with; BOX is the mean over an area.
KERNELS = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)


def make_degradation(name: str, *, scale: int, **options: object) -> Degradation:
    """Make a degradation.

    Args:
        name: "bicubic", "gaussian" or "real-world": `Bicubic`, `Gaussian`, `Camera`.
        scale: Must divide the sides of the HR batch.
        options: The class's other fields.

    Raises:
        ValueError: If there is no such degradation, or a range is upside down.
    """
    kinds: dict[str, type] = {"bicubic": Bicubic, "gaussian": GaussianBlur, "real-world": RealWorldDegradation}
    if name not in kinds:
        raise ValueError(f'Expected a degradation out of {", ".join(kinds)}, got "{name}".')
    return kinds[name](scale=scale, **options)


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's bicubic: equal to the LR files of the benchmarks. Nothing is random."""

    scale: int

    def __call__(self, hr: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        _check_batch(hr, indices, self.scale)
        return downscale(hr.float() / 255, self.scale, round_to_uint8=True)


@dataclass(frozen=True)
class GaussianBlur:
    """A Gaussian filter, then one pixel out of `scale` x `scale`, at the middle of each block.

    The middle keeps the LR aligned with bicubic's. Borders are reflected.

    Args:
        scale: Ratio of the sides.
        sigma: Range of the filter's standard deviation in HR pixels, drawn for each sample; by default 0.2 to 0.4 times
            the scale.
    """

    scale: int
    sigma: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None:
            _check_range("sigma", self.sigma)

    def __call__(self, hr: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        _check_batch(hr, indices, self.scale)
        low, high = self.sigma or (0.2 * self.scale, 0.4 * self.scale)
        levels = [
            _separable_blur(image, self.scale, 2 * [sample_rng(seed, int(index), DEGRADATION).uniform(low, high)])
            for image, index in zip(hr, indices, strict=True)
        ]
        return torch.stack(levels).add(0.5).floor().clamp(0, 255).div(255).float().to(hr.device)


@dataclass(frozen=True)
class RealWorldDegradation:
    """What photographs went through: blur, one of four kernels of downscaling, mild noise, and JPEG once or twice.

    A share of the samples is left clean: bicubic alone. What follows the blur is done on the CPU, by Pillow.

    Args:
        scale: Ratio of the sides.
        sigma: Range of the Gaussian blur's standard deviation in HR pixels, drawn for rows and for columns; by default
            0.05 to 0.5 times the scale.
        noise: Range of the white noise's standard deviation in levels.
        quality: Range of JPEG's quality, both ends included. Each time chroma is halved (4:2:0) or not, by chance.
        clean_prob: Share of the samples that are left clean.
    """

    scale: int
    sigma: tuple[float, float] | None = None
    noise: tuple[float, float] = (0.0, 4.0)
    quality: tuple[int, int] = (40, 95)
    clean_prob: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma is not None:
            _check_range("sigma", self.sigma)
        _check_range("noise", self.noise, low=0)
        _check_range("quality", self.quality, low=1, high=95)
        _check_range("clean_prob", (self.clean_prob, 1), low=0)

    def __call__(self, hr: Tensor, indices: Sequence[int], seed: int) -> Tensor:
        lr = Bicubic(self.scale)(hr, indices, seed)
        for i, index in enumerate(indices):
            random = sample_rng(seed, int(index), DEGRADATION)
            if random.random() >= self.clean_prob:
                lr[i] = self._degrade_one(hr[i], random).to(lr)
        return lr

    def _degrade_one(self, hr: Tensor, random: np.random.Generator) -> Tensor:
        low, high = self.sigma or (0.05 * self.scale, 0.5 * self.scale)
        blurred = _separable_blur(hr, 1, random.uniform(low, high, 2).tolist())
        kernel = KERNELS[random.integers(len(KERNELS))]
        small = _to_image(blurred.permute(1, 2, 0).cpu().numpy()).resize(
            (hr.shape[2] // self.scale, hr.shape[1] // self.scale), kernel
        )
        noise = random.uniform(*self.noise) * random.standard_normal((small.height, small.width, 3))
        image = _to_image(np.asarray(small) + noise)
        for _ in range(random.integers(1, 2, endpoint=True)):
            file = io.BytesIO()
            quality = int(random.integers(*self.quality, endpoint=True))
            image.save(file, "jpeg", quality=quality, subsampling=("4:4:4", "4:2:0")[random.integers(2)])
            image = Image.open(file)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def _to_image(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.floor(levels + 0.5), 0, 255).astype(np.uint8))


def _separable_blur(image: Tensor, step: int, sigmas: Sequence[float]) -> Tensor:
    """Blur CHW by the sigmas of rows and columns, and keep the middle of each `step` x `step` block."""
    # Apple's GPUs have no float64.
    levels = (image.cpu() if image.device.type == "mps" else image).double()
    rows, columns = (
        _gaussian_weights(n, step, sigma).to(levels) for n, sigma in zip(levels.shape[1:], sigmas, strict=True)
    )
    return rows @ levels @ columns.T


def _gaussian_weights(length: int, step: int, sigma: float) -> Tensor:
    """Return the matrix from `length` samples, reflected at both ends, to the filtered ones at the blocks' middles."""
    reach = min(length, math.ceil(4 * sigma) + step)
    positions = torch.arange(-reach, length + reach, dtype=torch.float64)
    middles = torch.arange(length // step, dtype=torch.float64) * step + (step - 1) / 2
    weights = torch.exp(-0.5 * ((positions - middles[:, None]) / sigma) ** 2)
    inside = weights[:, reach : reach + length].clone()
    inside[:, :reach] += weights[:, :reach].flip(1)
    inside[:, length - reach :] += weights[:, reach + length :].flip(1)
    return inside / inside.sum(dim=1, keepdim=True)


def _check_batch(hr: Tensor, indices: Sequence[int], scale: int) -> None:
    if hr.dim() != 4 or hr.shape[1] != 3 or hr.dtype != torch.uint8:
        raise ValueError(f"Expected a uint8 NCHW RGB batch, got {hr.dtype} of shape {tuple(hr.shape)}.")
    if len(indices) != len(hr):
        raise ValueError(f"Expected the index of each of {len(hr)} samples, got {len(indices)}.")
    if hr.shape[2] % scale or hr.shape[3] % scale:
        raise ValueError(
            f"Expected sides divisible by {scale}, got {hr.shape[2]}x{hr.shape[3]}. Choose another crop size."
        )


def _check_range(name: str, bounds: Sequence[float], low: float = 0.1, high: float = math.inf) -> None:
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        raise ValueError(f"Expected {name} from low to high within {low} to {high}, got {tuple(bounds)}.")
