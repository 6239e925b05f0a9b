"""Convert uint8/uint16 images, including alpha, to and from model tensors.

Gray enters the network as three equal channels and stays gray. Fully transparent pixels get the colors around them
instead of their hidden ones: an edge to black, as premultiplication has it, would be sharpened into a rim. Alpha is
upscaled as an image of its own and then masks the colors. Alpha that is data, not opacity, leaves the colors alone.
"""

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .lazy import LazyRows, WrappedRows

STRIP = 256  # rows, an even number, in which hidden colors are filled

Wrap = Literal["x", "y", "xy"]
Alpha = Literal["opacity", "independent"]


def check_options(wrap: Wrap | None, alpha: Alpha) -> None:
    """Raise ValueError unless the values are valid."""
    if wrap is not None and wrap not in get_args(Wrap):
        raise ValueError(f"`wrap` must be one of {', '.join(map(repr, get_args(Wrap)))} or None, got {wrap!r}.")
    if alpha not in get_args(Alpha):
        raise ValueError(f"`alpha` must be one of {', '.join(map(repr, get_args(Alpha)))}, got {alpha!r}.")


class TensorImage:
    """The channels of one image, prepared for streaming.

    Args:
        array: (H, W) or (H, W, C), uint8 or uint16; C is 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGBA.
        scale: Scale factor of the network.
        wrap, alpha: As for `Upscaler.upscale`.

    Raises:
        ValueError: The array has another shape or dtype, or an option is invalid.
    """

    def __init__(self, array: np.ndarray, scale: int, *, wrap: Wrap | None = None, alpha: Alpha = "opacity") -> None:
        check_options(wrap, alpha)
        if array.dtype not in (np.uint8, np.uint16):
            hint = "pass floats as a CHW tensor in [0, 1]"
            raise ValueError(f"`image` must be uint8 or uint16, got {array.dtype}; {hint}.")
        if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
            raise ValueError(f"`image` must have shape (H, W) or (H, W, 1 to 4), got {array.shape}.")
        self.is_2d = array.ndim == 2
        self.dtype = array.dtype
        self.max_value = int(np.iinfo(array.dtype).max)
        self.scale = scale
        array = array[:, :, None] if self.is_2d else array
        self.height, self.width = array.shape[:2]
        self.channels = array.shape[2]
        colors = array[:, :, : 1 if self.channels < 3 else 3]
        self.gray = colors.shape[2] == 1 or bool(
            np.array_equal(colors[:, :, 0], colors[:, :, 1]) and np.array_equal(colors[:, :, 0], colors[:, :, 2])
        )
        has_alpha = self.channels in (2, 4)
        self.masks = has_alpha and alpha == "opacity"  # whether alpha hides colors
        self.num_inputs = 2 if has_alpha else 1  # images in the network's batch
        if self.masks and array[:, :, -1].min() == self.max_value:
            self.num_inputs = 1
        elif self.masks and not array[:, :, -1].all():
            filled = inpaint(colors, array[:, :, -1], wrap)
            array = np.dstack([filled, repeat(array[:, :, -1], wrap)])
        # A view (1, C, H, W), which is converted strip by strip. Of a repetition if the copies' hidden colors differ.
        view = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)[None]
        self.lr: Tensor | LazyRows | WrappedRows = view

    @classmethod
    def of_rows(cls, rows: LazyRows, scale: int) -> "TensorImage":
        """Prepare rows in a file, without alpha."""
        pixels = cls(np.zeros((1, 1, rows.channels), rows.dtype), scale)
        pixels.gray, pixels.lr = rows.is_gray(), rows
        _, _, pixels.height, pixels.width = rows.shape
        return pixels

    def to_input(self, rows: Tensor) -> Tensor:
        """Convert rows of `lr` to the network's input, (1, 3, rows, W), or (2, 3, rows, W) with alpha."""
        x = rows.float() / self.max_value
        colors = x[:, :1].expand(-1, 3, -1, -1) if self.gray else x[:, :3]
        return colors if self.num_inputs == 1 else torch.cat([colors, x[:, -1:].expand(-1, 3, -1, -1)])

    def from_output(self, sr: Tensor, top: int) -> Tensor:
        """Convert the network's output (1 or 2, 3, rows, W) in [0, 1], from row `top` on, to integers (rows, W, C).

        They stay on the device, as uint8 or int32. Columns may be cropped equally on both sides.
        """
        colors = sr[:1].mean(1, keepdim=True) if self.gray else sr[:1]
        alpha = sr[1:].mean(1, keepdim=True) if self.num_inputs == 2 else torch.ones_like(colors[:, :1])
        if self.masks and self.num_inputs == 2:
            alpha = alpha.clamp(*self._local_range(top, sr))
            colors = torch.where(alpha > 0, colors, 0)
        if self.channels >= 3:
            colors = colors.expand(-1, 3, -1, -1)
        if self.channels in (2, 4):
            colors = torch.cat([colors, alpha], dim=1)
        # Through int32, since torch rounds to uint8 but has few operations on uint16.
        values = (colors[0].permute(1, 2, 0) * self.max_value).round()
        return values.to(torch.uint8 if self.max_value == 255 else torch.int32)

    def to_numpy(self, values: Tensor) -> np.ndarray:
        """Convert integers (..., C) of `from_output`, copied to the CPU, to the image's dtype and dimensions."""
        array = values.numpy().astype(self.dtype, copy=False)
        return array[..., 0] if self.is_2d else array

    def _local_range(self, top: int, sr: Tensor) -> tuple[Tensor, Tensor]:
        """Return minimum and maximum of alpha around each pixel of `sr`: as limits, they keep flat regions flat."""
        first, last = top // self.scale, -(-(top + sr.shape[2]) // self.scale)
        above = min(first, 1)
        alpha = self.lr[:, :, first - above : last + 1].to(sr.device)[:, -1:].float() / self.max_value
        limits = F.max_pool2d(torch.cat([-alpha, alpha]), 3, 1, 1)[:, :, above : above + last - first]
        left = (limits.shape[3] * self.scale - sr.shape[3]) // 2
        large = F.interpolate(limits, scale_factor=self.scale, mode="nearest")[:, :, top - first * self.scale :]
        lowest, highest = large[:, :, : sr.shape[2], left : left + sr.shape[3]].split(1)
        return -lowest, highest


def repeat(array: np.ndarray, wrap: Wrap | None) -> np.ndarray:
    """Return an array (H, W, ...) repeated three times along the axes of `wrap`."""
    counts = [3 if axis in (wrap or "") else 1 for axis in "yx"]
    return np.tile(array, [*counts, *[1] * (array.ndim - 2)])


def inpaint(values: np.ndarray, weights: np.ndarray, wrap: Wrap | None = None) -> np.ndarray:
    """Replace values (H, W, C) whose weight (H, W) is 0 by weighted means of those around.

    If the image wraps, the result is that of its repetition: each copy has means of its own. Memory beyond the result
    is that of half the resolution.
    """
    height = len(values) * (3 if "y" in (wrap or "") else 1)
    strips = [np.arange(top, min(top + STRIP, height)) for top in range(0, height, STRIP)]
    across: Wrap | None = "x" if "x" in (wrap or "") else None

    def strip(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return repeat(array[rows % len(values)], across)

    halves = []
    for rows in strips:
        weight = torch.from_numpy(strip(weights, rows).astype(np.float32))[None, None]
        weighted = torch.from_numpy(strip(values, rows).astype(np.float32)).permute(2, 0, 1)[None] * weight
        halves.append(_halve(torch.cat([weighted, weight], dim=1)))
    half = torch.cat(halves, dim=2)
    means = _push_pull(half[:, :-1], half[:, -1:])
    filled = []
    for rows in strips:
        known, hidden = strip(values, rows), strip(weights, rows) == 0
        first = max(0, rows[0] // 2 - 1)  # one more row of means above and below, between which to interpolate
        around = _double(means[:, :, first : rows[-1] // 2 + 2])[0, :, rows[0] - 2 * first :].permute(1, 2, 0)
        around = around[: len(rows), : known.shape[1]]
        around = around if values.dtype.kind == "f" else around.round()
        filled.append(np.where(hidden[:, :, None], around.numpy().astype(values.dtype), known))
    return np.concatenate(filled)


def _push_pull(weighted: Tensor, weights: Tensor) -> Tensor:
    """Return weighted mean colors, NCHW; without weight, those of the smallest surrounding block that has any.

    The push-pull pyramid of Gortler et al. 1996, "The Lumigraph", section 3.4: halve until all is covered, then fill.
    """
    means = weighted / weights.clamp(min=1)
    empty = weights == 0
    if not empty.any() or max(weights.shape[2:]) == 1:
        return means
    larger = _double(_push_pull(_halve(weighted), _halve(weights)))
    return torch.where(empty, larger[:, :, : weights.shape[2], : weights.shape[3]], means)


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True) * 4


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")
