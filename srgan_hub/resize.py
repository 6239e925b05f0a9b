"""The one bicubic: antialiased, differentiable, equal to MATLAB's `imresize`, which made the benchmarks' LR files.

Training, scoring and color consistency all use it. Torch's antialiased bicubic has MATLAB's kernel (Keys 1981,
a = -0.5) and differs at the borders, which MATLAB reflects, and in rounding, which MATLAB does after each axis.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(image: Tensor, size: tuple[int, int], *, round_to_uint8: bool = False) -> Tensor:
    """Resize to `size`, down or up, with MATLAB's antialiased bicubic and symmetric borders.

    Args:
        image: NCHW, floating point, in [0, 1].
        size: Height and width of the result in pixels, each at least 1.
        round_to_uint8: Round to 8-bit levels after each axis, in float64, as MATLAB does on uint8. Passes no useful
            gradient.

    Returns:
        NCHW of the same dtype and device. In [0, 1] if `round_to_uint8`; otherwise bicubic may overshoot, which a loss
        needs to see. Half precision is computed in float32.

    Raises:
        ValueError: If the image is not floating-point NCHW, or a side of it or of `size` is less than 1.
    """
    if image.dim() != 4 or not image.is_floating_point():
        raise ValueError(
            f"Expected a floating-point NCHW image, got {image.dtype} of shape {tuple(image.shape)}. "
            "Divide 8-bit levels by 255 first."
        )
    old_height, old_width = image.shape[2:]
    height, width = size
    if min(old_height, old_width, height, width) < 1:
        raise ValueError(f"Expected sides of at least 1 pixel, got {old_height}x{old_width} to {height}x{width}.")
    # Apple's GPUs lack float64, and torch before 2.8 lacks this resize there.
    wide = image.cpu() if image.device.type == "mps" else image
    # MATLAB begins with the axis that shrinks most, rows first if both shrink alike.
    axes = ((2, height), (3, width))
    if height * old_width > width * old_height:
        axes = axes[::-1]
    if round_to_uint8:
        # In levels, so that ties are exact and round up as MATLAB's do.
        wide = wide.double().mul(255).round()
        for axis, length in axes:
            wide = resize_axis(wide, axis, length).add(0.5).floor().clamp(0, 255)
        return wide.div(255).to(image)
    if wide.dtype != torch.float64:
        wide = wide.float()
    for axis, length in axes:
        wide = resize_axis(wide, axis, length)
    return wide.to(image)


def downscale(hr: Tensor, scale: int, *, round_to_uint8: bool = False) -> Tensor:
    """Shrink NCHW in [0, 1] by `scale` by `bicubic`. ValueError unless `scale` divides both sides."""
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"Expected sides divisible by {scale}, got {height}x{width}. Crop the image first.")
    return resize(hr, (height // scale, width // scale), round_to_uint8=round_to_uint8)


def bicubic_weights(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return what `bicubic` makes of an axis that it shrinks, written out, for rows that come one after the other.

    Returns:
        Indices into the old axis and their weights, float32, each (size, taps).
    """
    step = length / size
    middle = (torch.arange(size, dtype=torch.float64) + 0.5) * step - 0.5
    taps = (middle - 2 * step).floor()[:, None] + torch.arange(math.ceil(4 * step) + 2)
    near = ((taps - middle[:, None]) / step).abs()
    weights = torch.where(
        near < 1,
        1.5 * near**3 - 2.5 * near**2 + 1,
        torch.where(near < 2, -0.5 * near**3 + 2.5 * near**2 - 4 * near + 2, 0),
    )
    indices = taps.long().remainder(2 * length)
    return torch.minimum(indices, 2 * length - 1 - indices), (weights / weights.sum(1, keepdim=True)).float()


def resize_axis(image: Tensor, axis: int, size: int) -> Tensor:
    """Resize one axis, reflected at both borders as far as the kernel reads over them.

    The padding is a whole number of periods of the ratio of lengths, so that the padded axis keeps exactly that ratio.
    """
    length = image.shape[axis]
    if length == size:
        return image
    if axis == 2 and image.shape[3] == 1:  # torch 2.14 makes a column of one pixel's width all alike
        return resize_axis(image.mT, 3, size).mT
    step = length // math.gcd(length, size)
    pad = math.ceil(2 * max(1.0, length / size) / step) * step
    indices = torch.arange(-pad, length + pad, device=image.device).remainder(2 * length)
    padded = image.index_select(axis, torch.minimum(indices, 2 * length - 1 - indices))
    extra = pad * size // length
    shape = list(image.shape[2:])
    shape[axis - 2] = size + 2 * extra
    return F.interpolate(padded, shape, mode="bicubic", antialias=True).narrow(axis, extra, size)
