"""Rows of an image that lies in a file, decoded when the network comes to them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LazyRows:
    """What streaming needs of a tensor (1, C, H, W), without the pixels in memory.

    Args:
        read: decodes the rows from one to before another: (rows, W, C), uint8 or uint16.
        width, channels: of the image; 1 channel is gray, 3 are RGB.
        dtype: of what is read.
        first, last: of its rows, those that this is, the last one not included.
    """

    read: Callable[[int, int], np.ndarray]
    width: int
    channels: int
    dtype: np.dtype
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of the tensor: (1, C, H, W)."""
        return 1, self.channels, self.last - self.first, self.width

    def __getitem__(self, at: tuple[slice, slice, slice]) -> "LazyRows":
        """Take rows, by `[:, :, from:to]`."""
        first, last, _ = at[2].indices(self.last - self.first)
        return replace(self, first=self.first + first, last=self.first + last)

    def tensor_split(self, count: int | list[int], dim: int) -> list["LazyRows"]:
        """Divide the rows as a tensor's method of this name does."""
        assert dim == 2
        parts = [len(part) for part in np.array_split(range(self.last - self.first), count)]
        ends = np.cumsum([0, *parts]) + self.first
        return [replace(self, first=int(a), last=int(b)) for a, b in pairwise(ends)]

    def to(self, device: torch.device) -> Tensor:
        """Decode them."""
        array = np.require(self.read(self.first, self.last), requirements=["C", "W"])
        return torch.from_numpy(array).permute(2, 0, 1)[None].to(device)

    def is_gray(self) -> bool:
        """Return whether all pixels are gray, reading as far as it takes to know."""
        if self.channels == 1:
            return True
        for first in range(self.first, self.last, 256):
            rows = self.read(first, min(first + 256, self.last))
            if (rows[:, :, :1] != rows[:, :, 1:]).any():
                return False
        return True
