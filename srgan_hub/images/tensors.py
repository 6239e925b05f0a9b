"""Convert uint8/uint16 images, including alpha, to and from model tensors.

Gray enters the network as three equal channels and stays gray. Fully transparent pixels get the colors around them
instead of their hidden ones: an edge to black, as premultiplication has it, would be sharpened into a rim. Alpha is
upscaled as an image of its own and then masks the colors.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .lazy import LazyRows


class TensorImage:
    """The channels of one image, prepared for streaming.

    Args:
        array: (H, W) or (H, W, C), uint8 or uint16; C is 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGBA.
        scale: Scale factor of the network.

    Raises:
        ValueError: The array has another shape or dtype.
    """

    def __init__(self, array: np.ndarray, scale: int) -> None:
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
        self.channels = array.shape[2]
        colors = array[:, :, : 1 if self.channels < 3 else 3]
        self.gray = colors.shape[2] == 1 or bool(
            np.array_equal(colors[:, :, 0], colors[:, :, 1]) and np.array_equal(colors[:, :, 0], colors[:, :, 2])
        )
        self.alpha = None
        if self.channels in (2, 4) and (alpha := array[:, :, -1]).min() < self.max_value:
            self.alpha = _local_range(alpha, self.max_value)
            array = np.dstack([_fill_transparent(colors, alpha), alpha])
        self.num_inputs = 1 if self.alpha is None else 2  # images in the network's batch
        # A view (1, C, H, W), which is converted strip by strip.
        self.lr: Tensor | LazyRows = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)[None]

    @classmethod
    def of_rows(cls, rows: LazyRows, scale: int) -> "TensorImage":
        """Prepare rows in a file, without alpha."""
        pixels = cls(np.zeros((1, 1, rows.channels), rows.dtype), scale)
        pixels.gray, pixels.lr = rows.is_gray(), rows
        return pixels

    def to_input(self, rows: Tensor) -> Tensor:
        """Convert rows of `lr` to the network's input, (1, 3, rows, W), or (2, 3, rows, W) with alpha."""
        x = rows.float() / self.max_value
        colors = x[:, :1].expand(-1, 3, -1, -1) if self.gray else x[:, :3]
        return colors if self.alpha is None else torch.cat([colors, x[:, -1:].expand(-1, 3, -1, -1)])

    def from_output(self, sr: Tensor, top: int) -> Tensor:
        """Convert the network's output (1 or 2, 3, rows, W) in [0, 1], from row `top` on, to integers (rows, W, C).

        They stay on the device, as uint8 or int32.
        """
        colors = sr[:1].mean(1, keepdim=True) if self.gray else sr[:1]
        alpha = torch.ones_like(colors[:, :1])
        if self.alpha is not None:
            lowest, highest = (self._repeat(limit, top, sr.shape[2], sr.device) for limit in self.alpha)
            alpha = sr[1:].mean(1, keepdim=True).clamp(lowest, highest)
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

    def _repeat(self, limit: Tensor, top: int, height: int, device: torch.device) -> Tensor:
        first = top // self.scale
        rows = limit[:, :, first : -(-(top + height) // self.scale)].to(device)
        large = F.interpolate(rows, scale_factor=self.scale, mode="nearest")
        return large[:, :, top - first * self.scale :][:, :, :height]


def _local_range(alpha: np.ndarray, max_value: int) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum of alpha around each pixel, which limit the result: flat regions stay flat."""
    x = torch.from_numpy(alpha.astype(np.float32) / max_value)[None, None]
    return -F.max_pool2d(-x, 3, 1, 1), F.max_pool2d(x, 3, 1, 1)


def _fill_transparent(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace colors (H, W, C) where `alpha` (H, W) is 0 by the mean of visible colors around."""
    hidden = alpha == 0
    if not hidden.any():
        return colors
    weights = torch.from_numpy(alpha.astype(np.float32))[None, None]
    weighted = torch.from_numpy(colors.astype(np.float32)).permute(2, 0, 1)[None] * weights
    around = _push_pull(weighted, weights)[0].permute(1, 2, 0).round().numpy()
    return np.where(hidden[:, :, None], around.astype(colors.dtype), colors)


def inpaint(channel: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Replace values (H, W), float32, that are not `known` by means of those around."""
    weights = torch.from_numpy(known.astype(np.float32))[None, None]
    around = _push_pull(torch.from_numpy(channel)[None, None] * weights, weights)
    return np.where(known, channel, around[0, 0].numpy())


def _push_pull(weighted: Tensor, weights: Tensor) -> Tensor:
    """Return weighted mean colors, NCHW; without weight, those of the smallest surrounding block that has any.

    The push-pull pyramid of Gortler et al. 1996, "The Lumigraph", section 3.4: halve until all is covered, then fill.
    """
    means = weighted / weights.clamp(min=1)
    empty = weights == 0
    if not empty.any() or max(weights.shape[2:]) == 1:
        return means
    smaller = [F.avg_pool2d(each, 2, ceil_mode=True) * 4 for each in (weighted, weights)]
    larger = F.interpolate(_push_pull(*smaller), scale_factor=2, mode="bilinear")
    return torch.where(empty, larger[:, :, : weights.shape[2], : weights.shape[3]], means)
