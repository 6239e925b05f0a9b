"""Scores of an image: closeness to the truth and to its input, amount of detail, regular patterns.

All are pure functions that take NCHW RGB in [0, 1] and return one float64 score per image, shape (N,). Published
scores are those of 8-bit files: round to levels first. Channel and shave are part of a score: the caller names both.
"""

import functools

import torch
from torch import Tensor

from .resize import downscale

# SSIM's window (Wang et al. 2004): 11 taps, sigma 1.5.
SSIM_TAPS = 11
SSIM_SIGMA = 1.5


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Return the luma of NCHW RGB in [0, 1] as N1HW in [16/255, 235/255] (ITU-R BT.601, as MATLAB's `rgb2ycbcr`)."""
    if rgb.dim() != 4 or rgb.shape[1] != 3:
        raise ValueError(f"Expected NCHW images with 3 channels, got shape {tuple(rgb.shape)}.")
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    return ((rgb * weights).sum(dim=1, keepdim=True) + 16) / 255


def psnr(sr: Tensor, hr: Tensor, *, crop_border: int, channel: str = "y") -> Tensor:
    """Return the peak signal-to-noise ratio in dB, peak 1; infinite for equal images.

    Args:
        sr: NCHW RGB in [0, 1].
        hr: The truth, of the same shape.
        crop_border: Border in pixels left out on each side; by custom the scale.
        channel: "y" (luma) or "rgb" (about 1.9 dB lower: never compare the two).
    """
    sr, hr = _prepare(sr, hr, crop_border, channel)
    return -10 * (sr - hr).square().mean(dim=(1, 2, 3)).log10()


def ssim(sr: Tensor, hr: Tensor, *, crop_border: int, channel: str = "y") -> Tensor:
    """Return the structural similarity (Wang et al. 2004), at most 1.

    It has an 11-tap Gaussian window of sigma 1.5, population covariance and range 1. Means are taken where the window
    fits, after shaving; "rgb" is the mean of the three channels. Arguments as for `psnr`.

    Raises:
        ValueError: less than 11 pixels remain on a side.
    """
    sr, hr = _prepare(sr, hr, crop_border, channel)
    if min(sr.shape[2:]) < SSIM_TAPS:
        raise ValueError(
            f"SSIM needs {SSIM_TAPS} pixels on each side after shaving {crop_border}, got {sr.shape[2]}x{sr.shape[3]}."
        )
    mean_sr, mean_hr = _blur(sr), _blur(hr)
    variance_sr = _blur(sr * sr) - mean_sr**2
    variance_hr = _blur(hr * hr) - mean_hr**2
    covariance = _blur(sr * hr) - mean_sr * mean_hr
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2)
    similarity /= (mean_sr**2 + mean_hr**2 + c1) * (variance_sr + variance_hr + c2)
    return similarity.mean(dim=(1, 2, 3))


def lr_consistency(sr: Tensor, lr: Tensor) -> Tensor:
    """Return the mean absolute difference in 8-bit levels between the input and the downscaled, rounded output.

    0 for the HR that the LR was made from. The scale is the ratio of the sides.
    """
    scale = sr.shape[2] // lr.shape[2]
    if sr.shape != (*lr.shape[:2], lr.shape[2] * scale, lr.shape[3] * scale):
        raise ValueError(f"Expected sr a whole multiple of lr, got {tuple(sr.shape)} for {tuple(lr.shape)}.")
    again = downscale(_to_float64(sr), scale, round_to_uint8=True)
    return (again - _to_float64(lr)).abs().mean(dim=(1, 2, 3)) * 255


def high_freq_energy(image: Tensor) -> Tensor:
    """Return the mean square of the luma's high-frequency energy: detail that an image of half the size cannot hold.

    That is the part with `max(|fy|, |fx|) >= 1/4` cycles a pixel of the discrete Fourier transform of the luma minus
    its mean, under a Hann window (so that the image's borders don't count as detail), divided by the mean of the
    window squared. Unit: [0, 1] squared.
    """
    luma = rgb_to_y(_to_float64(image))
    height, width = luma.shape[2:]
    window = _hann(height)[:, None] * _hann(width)
    window = window.to(luma.device)
    spectrum = torch.fft.fft2((luma - luma.mean(dim=(2, 3), keepdim=True)) * window).abs().square()
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float64, device=luma.device).abs() for n in (height, width))
    top = torch.maximum(fy[:, None], fx) >= 0.25
    # Parseval: the sum of squares is the spectrum's sum over the number of pixels.
    return (spectrum * top).sum(dim=(1, 2, 3)) / (height * width) / window.square().sum()


def high_freq_ratio(sr: Tensor, hr: Tensor) -> Tensor:
    """Return `high_freq_energy` of the output over that of the truth: 1 is as much detail, less is blur."""
    return high_freq_energy(sr) / high_freq_energy(hr)


def checkerboard_db(image: Tensor, period: int = 4) -> Tensor:
    """Return by how many dB a pattern of `period` pixels exceeds the luma's spectrum around it; about 0 in nature.

    The power spectrum is averaged over all patches of `16 * period` pixels, every `8 * period` pixels, under a Hann
    window (Welch's method), so that multiples of `1 / period` fall on every 16th frequency. At each of those, zero
    left out, the power is divided by its mean over the frequencies at a (Chebyshev) distance of 3 or 4 in the plane,
    and the ratios' decibels are averaged. A tenth of a level of white noise is added to both, so that flat images
    give 0.

    Raises:
        ValueError: If a side is less than `16 * period`.
    """
    size = 16 * period
    luma = rgb_to_y(_to_float64(image))
    if min(luma.shape[2:]) < size:
        raise ValueError(
            f"The checkerboard of period {period} needs sides of at least {size}, got {tuple(luma.shape[2:])}."
        )
    window = (_hann(size)[:, None] * _hann(size)).to(luma.device)
    patches = luma[:, 0].unfold(1, size, size // 2).unfold(2, size, size // 2)
    power = torch.fft.fft2(patches * window).abs().square().mean(dim=(1, 2)) + window.square().sum() * (0.1 / 255) ** 2
    ring = [(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5) if max(abs(dy), abs(dx)) >= 3]
    around = torch.stack([power.roll(shift, dims=(1, 2)) for shift in ring]).mean(dim=0)
    ratio = (power / around)[:, ::16, ::16].flatten(1)[:, 1:]
    return 10 * ratio.log10().mean(dim=1)


def _to_float64(image: Tensor) -> Tensor:
    # Apple's GPUs have no float64.
    return image.cpu().double() if image.device.type == "mps" else image.double()


def _prepare(sr: Tensor, hr: Tensor, crop_border: int, channel: str) -> tuple[Tensor, Tensor]:
    if sr.shape != hr.shape or sr.dim() != 4:
        raise ValueError(f"Expected two NCHW images of one shape, got {tuple(sr.shape)} and {tuple(hr.shape)}.")
    if channel not in ("y", "rgb"):
        raise ValueError(f'Expected channel "y" or "rgb", got "{channel}".')
    height, width = sr.shape[2:]
    if crop_border < 0 or min(height, width) <= 2 * crop_border:
        raise ValueError(f"Expected shave from 0 to less than half of a side, got {crop_border} for {height}x{width}.")
    sr, hr = _to_float64(sr), _to_float64(hr)
    if channel == "y":
        sr, hr = rgb_to_y(sr), rgb_to_y(hr)
    inside = (..., slice(crop_border, height - crop_border), slice(crop_border, width - crop_border))
    return sr[inside], hr[inside]


def _blur(planes: Tensor) -> Tensor:
    """Return weighted means where SSIM's window fits."""
    x = torch.arange(SSIM_TAPS, dtype=torch.float64) - SSIM_TAPS // 2
    taps = torch.exp(-0.5 * (x / SSIM_SIGMA) ** 2)
    taps = taps / taps.sum()
    for axis in (2, 3):  # sums of shifted planes: six times as fast as a float64 convolution on a CPU
        size = planes.shape[axis] - SSIM_TAPS + 1
        shifted = (planes.narrow(axis, i, size) * tap for i, tap in enumerate(taps.tolist()))
        planes = functools.reduce(Tensor.add_, shifted)
    return planes


def _hann(size: int) -> Tensor:
    return torch.hann_window(size, dtype=torch.float64)
