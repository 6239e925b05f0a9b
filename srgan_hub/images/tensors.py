"""An integer image as the network sees it: strips of NCHW tensors in [0, 1], and back.

Gray is shown to the network as three equal channels and comes back gray. Where an image is fully transparent, the
network sees the colors around it instead of what the file hides there: an edge to black, as premultiplying makes one,
would be sharpened into a rim. Alpha goes through the network beside the colors and cuts them out again.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .lazy import LazyRows


class TensorImage:
    """The channels of one image, ready to be streamed.

    Args:
        array: (H, W) or (H, W, C), uint8 or uint16; C is 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        scale: how many times larger the result is.

    Raises:
        ValueError: the array has another shape or type.
    """

    def __init__(self, array: np.ndarray, scale: int) -> None:
        if array.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"Expected an array of uint8 or uint16, got {array.dtype}; for floats pass a CHW tensor in [0, 1]."
            )
        if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
            raise ValueError(f"Expected an array (height, width) or (height, width, 1 to 4), got {array.shape}.")
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
        alpha = array[:, :, -1] if self.channels in (2, 4) else None
        self.alpha = None
        if alpha is not None and alpha.min() < self.max_value:
            self.alpha = _local_range(alpha, self.max_value)
            array = np.dstack([_fill_transparent(colors, alpha), alpha])
        # How many images the network sees.
        self.num_inputs = 1 if self.alpha is None else 2
        # A view of (1, C, H, W): the network's rows are converted strip by strip.
        self.lr: Tensor | LazyRows = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)[None]

    @classmethod
    def of_rows(cls, rows: LazyRows, scale: int) -> "TensorImage":
        """Prepare an image that lies in a file, without transparency."""
        pixels = cls(np.zeros((1, 1, rows.channels), rows.dtype), scale)
        pixels.gray, pixels.lr = rows.is_gray(), rows
        return pixels

    def to_input(self, rows: Tensor) -> Tensor:
        """Convert rows of `self.lr` to what the network sees: (1, 3, rows, W), or (2, 3, rows, W) with alpha."""
        x = rows.float() / self.max_value
        colors = x[:, :1].expand(-1, 3, -1, -1) if self.gray else x[:, :3]
        if self.alpha is None:
            return colors
        alpha = x[:, -1:]
        return torch.cat([colors, alpha.expand(-1, 3, -1, -1)])

    def from_output(self, sr: Tensor, top: int) -> Tensor:
        """Convert the network's output (1 or 2, 3, rows, W) in [0, 1], from row `top` on, to levels (rows, W, C).

        They stay on the device, in one byte each where one is enough, for `to_numpy`.
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
        levels = (colors[0].permute(1, 2, 0) * self.max_value).round()
        return levels.to(torch.uint8 if self.max_value == 255 else torch.int32)

    def to_numpy(self, levels: Tensor) -> np.ndarray:
        """Convert levels (..., C) from `save`, which are on the CPU by now, to an array of the image's kind."""
        array = levels.numpy().astype(self.dtype, copy=False)
        return array[..., 0] if self.is_2d else array

    def _repeat(self, limit: Tensor, top: int, height: int, device: torch.device) -> Tensor:
        first = top // self.scale
        rows = limit[:, :, first : -(-(top + height) // self.scale)].to(device)
        large = F.interpolate(rows, scale_factor=self.scale, mode="nearest")
        return large[:, :, top - first * self.scale :][:, :, :height]


def _local_range(alpha: np.ndarray, levels: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest alpha around each pixel, so that opaque stays opaque and empty stays empty."""
    x = torch.from_numpy(alpha.astype(np.float32) / levels)[None, None]
    return -F.max_pool2d(-x, 3, 1, 1), F.max_pool2d(x, 3, 1, 1)


def _fill_transparent(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace colors (H, W, C) where `alpha` (H, W) is 0 by the mean of visible ones around."""
    hidden = alpha == 0
    if not hidden.any():
        return colors
    weights = torch.from_numpy(alpha.astype(np.float32))[None, None]
    weighted = torch.from_numpy(colors.astype(np.float32)).permute(2, 0, 1)[None] * weights
    around = _push_pull(weighted, weights)[0].permute(1, 2, 0).round().numpy()
    return np.where(hidden[:, :, None], around.astype(colors.dtype), colors)


def inpaint(plane: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Replace numbers (H, W), float32, that are not known by means of those around."""
    weights = torch.from_numpy(known.astype(np.float32))[None, None]
    around = _push_pull(torch.from_numpy(plane)[None, None] * weights, weights)
    return np.where(known, plane, around[0, 0].numpy())


def _push_pull(weighted: Tensor, weights: Tensor) -> Tensor:
    """Return mean colors by weight, NCHW; where no weight is, those of the smallest block that has any.

    This is the pyramid of Gortler et al. 1996, "The Lumigraph", section 3.4: halve until all is covered, then fill.
    """
    means = weighted / weights.clamp(min=1)
    empty = weights == 0
    if not empty.any() or max(weights.shape[2:]) == 1:
        return means
    smaller = [F.avg_pool2d(each, 2, ceil_mode=True) * 4 for each in (weighted, weights)]
    larger = F.interpolate(_push_pull(*smaller), scale_factor=2, mode="bilinear")
    return torch.where(empty, larger[:, :, : weights.shape[2], : weights.shape[3]], means)
