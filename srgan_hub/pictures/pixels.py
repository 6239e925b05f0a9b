"""An integer picture as the network sees it: bands of NCHW tensors in [0, 1], and back.

Gray is shown to the network as three equal channels and comes back gray. Where a picture is fully transparent, the
network sees the colours around it instead of what the file hides there: an edge to black, as premultiplying makes one,
would be sharpened into a rim. Alpha goes through the network beside the colours and cuts them out again.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .rows import Rows


class Pixels:
    """The channels of one picture, ready to be streamed.

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
        self.flat = array.ndim == 2
        self.dtype = array.dtype
        self.levels = int(np.iinfo(array.dtype).max)
        self.scale = scale
        array = array[:, :, None] if self.flat else array
        self.channels = array.shape[2]
        colours = array[:, :, : 1 if self.channels < 3 else 3]
        self.gray = colours.shape[2] == 1 or bool(
            np.array_equal(colours[:, :, 0], colours[:, :, 1]) and np.array_equal(colours[:, :, 0], colours[:, :, 2])
        )
        alpha = array[:, :, -1] if self.channels in (2, 4) else None
        self.alpha = None
        if alpha is not None and alpha.min() < self.levels:
            self.alpha = _local_range(alpha, self.levels)
            array = np.dstack([_fill_hidden(colours, alpha), alpha])
        # How many pictures the network sees.
        self.inputs = 1 if self.alpha is None else 2
        # A view of (1, C, H, W): the network's rows are converted band by band.
        self.lr: Tensor | Rows = torch.from_numpy(np.require(array, requirements=["C", "W"])).permute(2, 0, 1)[None]

    @classmethod
    def of_rows(cls, rows: Rows, scale: int) -> "Pixels":
        """Prepare a picture that lies in a file, without transparency."""
        pixels = cls(np.zeros((1, 1, rows.channels), rows.dtype), scale)
        pixels.gray, pixels.lr = rows.is_gray(), rows
        return pixels

    def load(self, rows: Tensor) -> Tensor:
        """Convert rows of `self.lr` to what the network sees: (1, 3, rows, W), or (2, 3, rows, W) with alpha."""
        x = rows.float() / self.levels
        colours = x[:, :1].expand(-1, 3, -1, -1) if self.gray else x[:, :3]
        if self.alpha is None:
            return colours
        alpha = x[:, -1:]
        return torch.cat([colours, alpha.expand(-1, 3, -1, -1)])

    def save(self, sr: Tensor, top: int) -> Tensor:
        """Convert the network's output (1 or 2, 3, rows, W) in [0, 1], from row `top` on, to levels (rows, W, C).

        They stay on the device, in one byte each where one is enough, for `to_array`.
        """
        colours = sr[:1].mean(1, keepdim=True) if self.gray else sr[:1]
        alpha = torch.ones_like(colours[:, :1])
        if self.alpha is not None:
            lowest, highest = (self._repeat(limit, top, sr.shape[2], sr.device) for limit in self.alpha)
            alpha = sr[1:].mean(1, keepdim=True).clamp(lowest, highest)
            colours = torch.where(alpha > 0, colours, 0)
        if self.channels >= 3:
            colours = colours.expand(-1, 3, -1, -1)
        if self.channels in (2, 4):
            colours = torch.cat([colours, alpha], dim=1)
        # Through int32, since torch rounds to uint8 but has few operations on uint16.
        levels = (colours[0].permute(1, 2, 0) * self.levels).round()
        return levels.to(torch.uint8 if self.levels == 255 else torch.int32)

    def to_array(self, levels: Tensor) -> np.ndarray:
        """Convert levels (..., C) from `save`, which are on the CPU by now, to an array of the picture's kind."""
        array = levels.numpy().astype(self.dtype, copy=False)
        return array[..., 0] if self.flat else array

    def _repeat(self, limit: Tensor, top: int, height: int, device: torch.device) -> Tensor:
        first = top // self.scale
        rows = limit[:, :, first : -(-(top + height) // self.scale)].to(device)
        large = F.interpolate(rows, scale_factor=self.scale, mode="nearest")
        return large[:, :, top - first * self.scale :][:, :, :height]


def _local_range(alpha: np.ndarray, levels: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest alpha around each pixel, so that opaque stays opaque and empty stays empty."""
    x = torch.from_numpy(alpha.astype(np.float32) / levels)[None, None]
    return -F.max_pool2d(-x, 3, 1, 1), F.max_pool2d(x, 3, 1, 1)


def _fill_hidden(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace colours (H, W, C) where `alpha` (H, W) is 0 by the mean of visible ones around."""
    hidden = alpha == 0
    if not hidden.any():
        return colours
    weights = torch.from_numpy(alpha.astype(np.float32))[None, None]
    weighted = torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)[None] * weights
    around = _spread(weighted, weights)[0].permute(1, 2, 0).round().numpy()
    return np.where(hidden[:, :, None], around.astype(colours.dtype), colours)


def fill(plane: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Replace numbers (H, W), float32, that are not known by means of those around."""
    weights = torch.from_numpy(known.astype(np.float32))[None, None]
    around = _spread(torch.from_numpy(plane)[None, None] * weights, weights)
    return np.where(known, plane, around[0, 0].numpy())


def _spread(weighted: Tensor, weights: Tensor) -> Tensor:
    """Return mean colours by weight, NCHW; where no weight is, those of the smallest block that has any.

    This is the pyramid of Gortler et al. 1996, "The Lumigraph", section 3.4: halve until all is covered, then fill.
    """
    means = weighted / weights.clamp(min=1)
    empty = weights == 0
    if not empty.any() or max(weights.shape[2:]) == 1:
        return means
    smaller = [F.avg_pool2d(each, 2, ceil_mode=True) * 4 for each in (weighted, weights)]
    larger = F.interpolate(_spread(*smaller), scale_factor=2, mode="bilinear")
    return torch.where(empty, larger[:, :, : weights.shape[2], : weights.shape[3]], means)
