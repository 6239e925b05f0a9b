"""MATLAB-compatible bicubic resizing, in memory and streaming; output size specification.

MATLAB's `imresize` generated the benchmarks' LR files. PyTorch's antialiased bicubic has the same kernel (Keys 1981,
a = -0.5), but renormalizes it at the borders, which MATLAB reflects, and does not round after each axis.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TargetSize:
    """Target size: a scale factor or one of width, height, longest edge, shortest edge, in pixels.

    Width and height may be combined, which may change the aspect ratio. Empty means the model's native scale.
    """

    scale_factor: int | None = None
    width: int | None = None
    height: int | None = None
    longest_edge: int | None = None
    shortest_edge: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1 and given.keys() != {"width", "height"}:
            names = " and ".join(f"`{name}`" for name in given)
            raise ValueError(f"Only `width` and `height` can be combined, got {names}.")
        for name, value in given.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")

    @classmethod
    def parse(cls, size: "SizeLike | None") -> "TargetSize":
        """Parse a factor ("3x"), the longest edge in pixels, or `(width, height)` where one may be None."""
        match size:
            case None:
                return cls()
            case TargetSize():
                return size
            case str() if size.endswith("x") and size[:-1].isdecimal():
                return cls(scale_factor=int(size[:-1]))
            case int() if not isinstance(size, bool):
                return cls(longest_edge=size)
            case (width, height) if not isinstance(size, str):
                return cls(width=width, height=height)
        raise ValueError(
            f'`size` must be a factor ("3x"), the longest edge in pixels (1200) or (width, height), got {size!r}.'
        )

    def resolve(self, width: int, height: int, *, scale: int) -> tuple[int, int]:
        """Return the output's width and height, of which neither may exceed `scale` times the input's."""
        if self.width and self.height:
            result = self.width, self.height
        else:
            requested = (self.width, self.height, self.longest_edge, self.shortest_edge)
            edges = (width, height, max(width, height), min(width, height))
            ratios = (pixels / edge for pixels, edge in zip(requested, edges, strict=True) if pixels)
            factor = next(ratios, float(self.scale_factor or scale))
            # Round half up: `round` takes 2.5 to 2 and 3.5 to 4.
            result = max(1, math.floor(width * factor + 0.5)), max(1, math.floor(height * factor + 0.5))
        if result[0] > width * scale or result[1] > height * scale:
            raise ValueError(
                f"Requested size {result[0]}x{result[1]} exceeds the maximum {width * scale}x{height * scale} "
                f"({scale}x the {width}x{height} input)."
            )
        return result

    def suffix(self, scale: int) -> str:
        """Return the suffix of output names: "x4", "1200", "1200x800"."""
        if self.width or self.height:
            return f"{self.width or ''}x{self.height or ''}"
        return str(self.longest_edge or self.shortest_edge or f"x{self.scale_factor or scale}")


SizeLike = TargetSize | str | int | tuple[int | None, int | None]


def resize(image: Tensor, size: tuple[int, int], *, round_to_uint8: bool = False) -> Tensor:
    """Resize images with MATLAB's bicubic: antialiased when downscaling, symmetric borders.

    Args:
        image: (N, C, H, W), floating point, in [0, 1].
        size: Output height and width.
        round_to_uint8: Round to 8-bit values after each axis, in float64, as MATLAB does on uint8. Not differentiable.

    Returns:
        Images of the same dtype and device. Bicubic may overshoot [0, 1] unless `round_to_uint8`. Half precision is
        computed in float32.

    Raises:
        ValueError: `image` is not floating-point NCHW, or an edge is less than 1.
    """
    if image.dim() != 4 or not image.is_floating_point():
        raise ValueError(f"`image` must be floating-point NCHW, got {image.dtype} of shape {tuple(image.shape)}.")
    old_height, old_width = image.shape[2:]
    height, width = size
    if min(old_height, old_width, height, width) < 1:
        raise ValueError(f"Height and width must be at least 1, got {old_height}x{old_width} to {height}x{width}.")
    # MPS lacks float64, and the antialiased resize before PyTorch 2.8.
    values = image.cpu() if image.device.type == "mps" else image
    # MATLAB starts with the axis that shrinks most, with rows if both shrink equally.
    axes = ((2, height), (3, width))
    if height * old_width > width * old_height:
        axes = axes[::-1]
    if round_to_uint8:
        # On 8-bit values ties are exact, and round up as in MATLAB.
        values = values.double().mul(255).round()
        for axis, length in axes:
            values = _resize_axis(values, axis, length).add(0.5).floor().clamp(0, 255)
        return values.div(255).to(image)
    if values.dtype != torch.float64:
        values = values.float()
    for axis, length in axes:
        values = _resize_axis(values, axis, length)
    return values.to(image)


def downscale(hr: Tensor, scale: int, *, round_to_uint8: bool = False) -> Tensor:
    """Downscale NCHW images in [0, 1] with `resize`. Raises ValueError unless `scale` divides height and width."""
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"Height and width must be divisible by {scale}, got {height}x{width}; crop the image first.")
    return resize(hr, (height // scale, width // scale), round_to_uint8=round_to_uint8)


def downscale_rows(
    strips: Iterator[Tensor],
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    max_value: int,
    alpha: bool,
    halo: tuple[int, int] = (0, 0),
) -> Iterator[Tensor]:
    """Downscale images that arrive as strips of rows, with the kernel of `resize`.

    Args:
        strips: Integers (N, rows, old width, C) in [0, `max_value`], from top to bottom; or floats in [0, 1] if
            `max_value` is 1.
        old, new: Width and height before and after.
        max_value: 255, 65535 or 1.
        alpha: The last channel is alpha; colors are weighted by it.
        halo: Columns and rows from `halo_radius` by which strips and their first and last rows exceed `old` on each
            side: the image repeats along these axes.

    Yields:
        Strips (N, rows, new width, C) of the same dtype. Memory depends on the strips and the ratio, not on the height.
    """
    # What repeats is downscaled as the middle of three, which rounds exactly as these would.
    wide, high = (3 if columns else 1 for columns in halo)
    indices, weights = _row_weights(high * old[1], high * new[1])
    if high > 1:
        indices, weights = indices[new[1] : -new[1]] - old[1] + halo[1], weights[new[1] : -new[1]]
    missing, left = (wide // 2) * old[0] - halo[0], (wide // 2) * new[0]
    cached, first, done = torch.empty(0), 0, 0
    for strip in strips:
        rows = strip.permute(0, 3, 1, 2).float() / max_value
        if alpha:
            rows[:, :-1] *= rows[:, -1:]
        rows = _resize_axis(F.pad(rows, (missing, missing)) if missing else rows, 3, wide * new[0])
        cached = torch.cat([cached, rows], dim=2) if cached.numel() else rows
        # Output rows whose last input row has arrived.
        ready = int(np.searchsorted(indices[done:].amax(1).numpy(), first + cached.shape[2]))
        if ready:
            taps = indices[done : done + ready] - first
            # Summed tap by tap: a matrix product would round differently by shape, and so between batches and strips.
            output = torch.zeros((), device=cached.device)
            for tap, weight in zip(taps.T, weights[done : done + ready].T, strict=True):
                output = output + cached[:, :, tap] * weight[:, None]
            output = output[..., left : left + new[0]]
            done += ready
            if alpha:
                colors, opacity = output[:, :-1], output[:, -1:]
                colors = torch.where(opacity > 0, colors / opacity.clamp(min=1e-6), 0)
                output = torch.cat([colors, opacity], dim=1)
            output = output.clamp(0, 1)
            output = output if strip.is_floating_point() else (output * max_value).round()
            yield output.permute(0, 2, 3, 1).to(strip.dtype)
        drop = int(indices[done:].min()) - first if done < new[1] else cached.shape[2]
        cached, first = cached[:, :, drop:], first + drop


def halo_radius(old: int, new: int) -> int:
    """Return how many pixels beyond an edge downscaling reads; 0 if it changes nothing."""
    return 0 if old == new else math.ceil(2 * old / new) + 2


def _row_weights(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return row indices and float32 weights, each (size, taps), with which `_resize_axis` downscales an axis.

    Strips start at any row, which `interpolate` cannot express. As a matrix for `resize` too, the weights would be
    MATLAB's, but slower, and would change up to 0.3 % of the 8-bit values.
    """
    step = length / size
    center = (torch.arange(size, dtype=torch.float64, device="cpu") + 0.5) * step - 0.5
    taps = (center - 2 * step).floor()[:, None] + torch.arange(math.ceil(4 * step) + 2, device="cpu")
    x = ((taps - center[:, None]) / step).abs()
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    return _reflect(taps.long(), length), (weights / weights.sum(1, keepdim=True)).float()


def _resize_axis(image: Tensor, axis: int, size: int) -> Tensor:
    """Resize one axis, padded with reflected rows or columns.

    The padding is a multiple of the period of the two lengths' ratio, so the padded axis has exactly that ratio.
    """
    length = image.shape[axis]
    if length == size:
        return image
    if axis == 2 and image.shape[3] == 1:  # PyTorch 2.14 returns constant columns for images one pixel wide.
        return _resize_axis(image.mT, 3, size).mT
    step = length // math.gcd(length, size)
    pad = math.ceil(2 * max(1.0, length / size) / step) * step
    padded = image.index_select(axis, _reflect(torch.arange(-pad, length + pad, device=image.device), length))
    extra = pad * size // length
    shape = list(image.shape[2:])
    shape[axis - 2] = size + 2 * extra
    return F.interpolate(padded, shape, mode="bicubic", antialias=True).narrow(axis, extra, size)


def _reflect(indices: Tensor, length: int) -> Tensor:
    """Map indices outside [0, length) into it by symmetric reflection, as often as needed."""
    indices = indices.remainder(2 * length)
    return torch.minimum(indices, 2 * length - 1 - indices)
