"""Lazily decoded image rows with a tensor-like interface."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LazyRows:
    """Rows of an image in a file, with the part of the interface of a tensor (1, C, H, W) that streaming uses.

    Args:
        read: Decodes the rows from one index to before another, (rows, W, C), uint8 or uint16.
        width, channels: Of the image; 1 channel is gray, 3 are RGB.
        dtype: Of the rows.
        first, last: Range of rows, without the last.
    """

    read: Callable[[int, int], np.ndarray]
    width: int
    channels: int
    dtype: np.dtype
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(1, C, H, W)."""
        return 1, self.channels, self.last - self.first, self.width

    def __getitem__(self, at: tuple[slice, slice, slice]) -> "LazyRows":
        """Return a range of rows, `[:, :, first:last]`, without decoding them."""
        first, last, _ = at[2].indices(self.last - self.first)
        return replace(self, first=self.first + first, last=self.first + last)

    def tensor_split(self, count: int | list[int], dim: int) -> list["LazyRows"]:
        """Split the rows as `torch.Tensor.tensor_split` does."""
        assert dim == 2
        ends = np.cumsum([self.first, *map(len, np.array_split(range(self.last - self.first), count))])
        return [replace(self, first=int(a), last=int(b)) for a, b in pairwise(ends)]

    def to(self, device: torch.device) -> Tensor:
        """Decode the rows to a tensor on a device."""
        array = np.require(self.read(self.first, self.last), requirements=["C", "W"])
        return torch.from_numpy(array).permute(2, 0, 1)[None].to(device)

    def is_gray(self) -> bool:
        """Return whether all pixels are gray. Decodes rows up to the first that is not."""
        if self.channels == 1:
            return True
        for first in range(self.first, self.last, 256):
            rows = self.read(first, min(first + 256, self.last))
            if (rows[:, :, :1] != rows[:, :, 1:]).any():
                return False
        return True
