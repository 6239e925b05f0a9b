"""Image quality metrics: PSNR, SSIM, LR consistency, high-frequency energy, checkerboard score.

All take NCHW RGB in [0, 1] and return one float64 value per image, shape (N,). Published scores are of 8-bit images:
round to 8-bit values first. Scores with different channels or border crops cannot be compared.
"""

import functools

import torch
from torch import Tensor

from .resize import downscale

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # Wang et al. 2004


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Return the luma of NCHW RGB in [0, 1] as N1HW in [16/255, 235/255] (ITU-R BT.601, as MATLAB's `rgb2ycbcr`)."""
    if rgb.dim() != 4 or rgb.shape[1] != 3:
        raise ValueError(f"`rgb` must be NCHW with 3 channels, got shape {tuple(rgb.shape)}.")
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    return ((rgb * weights).sum(dim=1, keepdim=True) + 16) / 255


def psnr(sr: Tensor, hr: Tensor, *, crop_border: int, channel: str = "y") -> Tensor:
    """Return the peak signal-to-noise ratio in dB, with a peak of 1; infinite for equal images.

    Args:
        sr, hr: Output and ground truth of the same shape.
        crop_border: Pixels cropped from each side; the scale by convention.
        channel: "y" (luma) or "rgb" (about 1.9 dB lower).
    """
    sr, hr = _prepare(sr, hr, crop_border, channel)
    return -10 * (sr - hr).square().mean(dim=(1, 2, 3)).log10()


def ssim(sr: Tensor, hr: Tensor, *, crop_border: int, channel: str = "y") -> Tensor:
    """Return the structural similarity (Wang et al. 2004), at most 1.

    With an 11x11 Gaussian window of sigma 1.5, population covariance and a range of 1; averaged over the positions
    where the window fits, and over channels for "rgb". Arguments as for `psnr`. Raise ValueError if less than 11x11
    pixels remain after cropping.
    """
    sr, hr = _prepare(sr, hr, crop_border, channel)
    if min(sr.shape[2:]) < SSIM_WINDOW:
        size = f"{SSIM_WINDOW}x{SSIM_WINDOW} pixels after cropping {crop_border} from each side"
        raise ValueError(f"SSIM requires {size}, got {sr.shape[3]}x{sr.shape[2]}.")
    mean_sr, mean_hr = _blur(sr), _blur(hr)
    variance_sr = _blur(sr * sr) - mean_sr**2
    variance_hr = _blur(hr * hr) - mean_hr**2
    covariance = _blur(sr * hr) - mean_sr * mean_hr
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2)
    similarity /= (mean_sr**2 + mean_hr**2 + c1) * (variance_sr + variance_hr + c2)
    return similarity.mean(dim=(1, 2, 3))


def lr_consistency(sr: Tensor, lr: Tensor) -> Tensor:
    """Return the mean absolute difference, in 8-bit values, of the LR input and the downscaled, rounded output.

    It is 0 for the HR image that the input was downscaled from. The scale is the ratio of the sides.
    """
    scale = sr.shape[2] // lr.shape[2]
    if sr.shape != (*lr.shape[:2], lr.shape[2] * scale, lr.shape[3] * scale):
        raise ValueError(f"`sr` must be an integer multiple of `lr`, got {tuple(sr.shape)} and {tuple(lr.shape)}.")
    downscaled = downscale(_to_float64(sr), scale, round_to_uint8=True)
    return (downscaled - _to_float64(lr)).abs().mean(dim=(1, 2, 3)) * 255


def high_freq_energy(image: Tensor) -> Tensor:
    """Return the mean square of the luma's frequencies that an image of half the size cannot hold, in [0, 1] squared.

    These are the frequencies with `max(|fy|, |fx|) >= 1/4` cycles per pixel in the discrete Fourier transform of the
    luma minus its mean. A Hann window, whose mean square is divided out, keeps the image borders from counting as
    detail.
    """
    luma = rgb_to_y(_to_float64(image))
    height, width = luma.shape[2:]
    window = _hann_window(height, width).to(luma.device)
    spectrum = torch.fft.fft2((luma - luma.mean(dim=(2, 3), keepdim=True)) * window).abs().square()
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float64, device=luma.device).abs() for n in (height, width))
    top = torch.maximum(fy[:, None], fx) >= 0.25
    # Parseval: the sum of squares is the sum of the spectrum divided by the number of pixels.
    return (spectrum * top).sum(dim=(1, 2, 3)) / (height * width) / window.square().sum()


def high_freq_ratio(sr: Tensor, hr: Tensor) -> Tensor:
    """Return `high_freq_energy` of the output divided by that of the ground truth; less than 1 is blur."""
    return high_freq_energy(sr) / high_freq_energy(hr)


def checkerboard_db(image: Tensor, period: int = 4) -> Tensor:
    """Return by how many dB a pattern of `period` pixels exceeds the spectrum around it; about 0 in natural images.

    The power spectrum of the luma is averaged over all patches of `16 * period` pixels, `8 * period` pixels apart,
    under a Hann window (Welch's method): multiples of `1 / period` are every 16th frequency. At each of those except
    zero, the power is divided by its mean over the frequencies at a Chebyshev distance of 3 or 4, and the ratios in dB
    are averaged. White noise of a tenth of an 8-bit value is added to the power, which makes flat images score 0. Raise
    ValueError if a side is shorter than `16 * period`.
    """
    size = 16 * period
    luma = rgb_to_y(_to_float64(image))
    if min(luma.shape[2:]) < size:
        raise ValueError(f"checkerboard_db requires at least {size}x{size} pixels, got {tuple(luma.shape[2:])}.")
    window = _hann_window(size, size).to(luma.device)
    patches = luma[:, 0].unfold(1, size, size // 2).unfold(2, size, size // 2)
    power = torch.fft.fft2(patches * window).abs().square().mean(dim=(1, 2)) + window.square().sum() * (0.1 / 255) ** 2
    ring = [(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5) if max(abs(dy), abs(dx)) >= 3]
    around = torch.stack([power.roll(shift, dims=(1, 2)) for shift in ring]).mean(dim=0)
    ratio = (power / around)[:, ::16, ::16].flatten(1)[:, 1:]
    return 10 * ratio.log10().mean(dim=1)


def _to_float64(image: Tensor) -> Tensor:
    # MPS has no float64.
    return image.cpu().double() if image.device.type == "mps" else image.double()


def _prepare(sr: Tensor, hr: Tensor, crop_border: int, channel: str) -> tuple[Tensor, Tensor]:
    if sr.shape != hr.shape or sr.dim() != 4:
        raise ValueError(f"`sr` and `hr` must be NCHW of one shape, got {tuple(sr.shape)} and {tuple(hr.shape)}.")
    if channel not in ("y", "rgb"):
        raise ValueError(f"`channel` must be 'y' or 'rgb', got '{channel}'.")
    height, width = sr.shape[2:]
    if crop_border < 0 or min(height, width) <= 2 * crop_border:
        raise ValueError(f"`crop_border` must be 0 to less than half of {width}x{height} pixels, got {crop_border}.")
    sr, hr = _to_float64(sr), _to_float64(hr)
    if channel == "y":
        sr, hr = rgb_to_y(sr), rgb_to_y(hr)
    inside = (..., slice(crop_border, height - crop_border), slice(crop_border, width - crop_border))
    return sr[inside], hr[inside]


def _blur(image: Tensor) -> Tensor:
    """Return weighted means where SSIM's window fits."""
    x = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    taps = torch.exp(-0.5 * (x / SSIM_SIGMA) ** 2)
    taps = taps / taps.sum()
    for axis in (2, 3):  # sums of shifted images: six times as fast as a float64 convolution on a CPU
        size = image.shape[axis] - SSIM_WINDOW + 1
        shifted = (image.narrow(axis, i, size) * tap for i, tap in enumerate(taps.tolist()))
        image = functools.reduce(Tensor.add_, shifted)
    return image


def _hann_window(height: int, width: int) -> Tensor:
    return torch.outer(*(torch.hann_window(n, dtype=torch.float64) for n in (height, width)))
