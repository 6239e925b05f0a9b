"""Lazily decoded image rows with a tensor-like interface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

R = TypeVar("R", bound="RowRange")


class RowRange:
    """A range of rows, with the part of the interface of a tensor (N, C, H, W) that streaming uses."""

    first: int
    last: int

    def __getitem__(self: R, at: tuple[slice, slice, slice]) -> R:
        """Return a range of rows, `[:, :, first:last]`, without reading them."""
        first, last, _ = at[2].indices(self.last - self.first)
        return self._between(self.first + first, self.first + last)

    def tensor_split(self: R, count: int | list[int], dim: int) -> list[R]:
        """Split the rows as `torch.Tensor.tensor_split` does."""
        assert dim == 2
        ends = np.cumsum([self.first, *map(len, np.array_split(range(self.last - self.first), count))])
        return [self._between(int(a), int(b)) for a, b in pairwise(ends)]

    def _between(self: R, first: int, last: int) -> R:
        rows: Any = self
        return replace(rows, first=first, last=last)


@dataclass(frozen=True)
class LazyRows(RowRange):
    """Rows of an image in a file.

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


@dataclass(frozen=True)
class WrappedRows(RowRange):
    """Images that repeat, extended on all sides by a halo, which is read strip by strip.

    Args:
        images: One or more (N, C, H, W), or their 3 x 3, 3 x 1 or 1 x 3 repetitions where copies differ.
        size: H and W.
        halo: Columns on the left and right, and rows above and below; at most W and H.
        first, last: Range of rows, without the last; row 0 is the images' first.
    """

    images: Sequence[Tensor | LazyRows]
    size: tuple[int, int]
    halo: tuple[int, int]
    first: int
    last: int

    @classmethod
    def of(cls, images: Sequence[Tensor | LazyRows], size: tuple[int, int], halo: tuple[int, int]) -> "WrappedRows":
        """Extend complete images."""
        return cls(images, size, halo, -halo[1], size[0] + halo[1])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        n = sum(image.shape[0] for image in self.images)
        return n, self.images[0].shape[1], self.last - self.first, self.size[1] + 2 * self.halo[0]

    def to(self, device: torch.device) -> Tensor:
        """Read the rows to a tensor on a device."""
        return torch.cat([self._read(image, device) for image in self.images])

    def _read(self, image: Tensor | LazyRows, device: torch.device) -> Tensor:
        (height, width), columns, period = self.size, self.halo[0], image.shape[2]
        first, last = self.first + height, self.last + height
        cuts = [first, *range((first // period + 1) * period, last, period), last]
        spans = ((top % period, top % period + bottom - top) for top, bottom in pairwise(cuts))
        rows = torch.cat([image[:, :, top:bottom].to(device) for top, bottom in spans], dim=2)
        if rows.shape[3] > width:
            return rows[..., width - columns : 2 * width + columns]
        return torch.cat([rows[..., width - columns :], rows, rows[..., :columns]], dim=3) if columns else rows
