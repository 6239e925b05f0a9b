"""The size that a result shall have, and the result reduced to it row by row."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .resize import bicubic_weights, resize_axis


@dataclass(frozen=True)
class TargetSize:
    """A wish: `scale_factor` as large, or so many pixels wide, high, or along the longest or shortest side.

    Width and height may be wished together, which may change the proportions. Nothing is the network's own scale.
    """

    scale_factor: int | None = None
    width: int | None = None
    height: int | None = None
    longest_edge: int | None = None
    shortest_edge: int | None = None

    def __post_init__(self) -> None:
        wished = {name: value for name, value in vars(self).items() if value is not None}
        if len(wished) > 1 and wished.keys() != {"width", "height"}:
            raise ValueError(f"Expected one size, got {' and '.join(wished)}; only width and height go together.")
        for name, value in wished.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"Expected {name} as a positive integer, got {value!r}.")

    @classmethod
    def parse(cls, size: "SizeLike | None") -> "TargetSize":
        """Return the size that "3x", a longest side, or a pair of width and height, one of them perhaps None, means."""
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
        raise ValueError(f'Expected a size such as "3x", 1200 for the longest side, or (1200, 800), got {size!r}.')

    def resolve(self, width: int, height: int, *, scale: int) -> tuple[int, int]:
        """Return width and height of the result of an image of this size.

        Raises:
            ValueError: they are larger than `scale` times the image's.
        """
        if self.width and self.height:
            result = self.width, self.height
        else:
            wished = (self.width, self.height, self.longest_edge, self.shortest_edge)
            sides = (width, height, max(width, height), min(width, height))
            ratios = (wish / side for wish, side in zip(wished, sides, strict=True) if wish)
            times = next(ratios, float(self.scale_factor or scale))
            # Half up, so that 2.5 is 3 as 3.5 is 4.
            result = max(1, math.floor(width * times + 0.5)), max(1, math.floor(height * times + 0.5))
        if result[0] > width * scale or result[1] > height * scale:
            raise ValueError(
                f"Expected a result of at most {width * scale} x {height * scale} pixels, {scale} times the image's "
                f"{width} x {height}, got {result[0]} x {result[1]}; ask for less."
            )
        return result

    def suffix(self, scale: int) -> str:
        """Return what a result of this size is called by: x4, 1200, 1200x800."""
        if self.width or self.height:
            return f"{self.width or ''}x{self.height or ''}"
        return str(self.longest_edge or self.shortest_edge or f"x{self.scale_factor or scale}")


SizeLike = TargetSize | str | int | tuple[int | None, int | None]


def downscale_rows(
    strips: Iterator[Tensor], old: tuple[int, int], new: tuple[int, int], *, levels: int, alpha: bool
) -> Iterator[Tensor]:
    """Reduce an image that comes in strips of rows by the package's bicubic, once, and give it in strips.

    Args:
        strips: integers (N, rows, old width, C) from 0 to `levels`, from top to bottom.
        old, new: width and height; the new ones are not larger.
        levels: the largest level.
        alpha: the last channel is transparency; colors count by it.

    Yields:
        Integers (N, rows, new width, C) of the same type. Memory depends on the strips and on the reduction, not on the
        old height.
    """
    indices, weights = bicubic_weights(old[1], new[1])
    held, first, made = torch.empty(0), 0, 0
    for strip in strips:
        rows = strip.permute(0, 3, 1, 2).float() / levels
        if alpha:
            rows[:, :-1] *= rows[:, -1:]
        rows = resize_axis(rows, 3, new[0])
        held = torch.cat([held, rows], dim=2) if held.numel() else rows
        # The rows of the result whose last row of the image is there.
        ready = int(np.searchsorted(indices[made:].amax(1).numpy(), first + held.shape[2]))
        if ready:
            taps = indices[made : made + ready] - first
            # One row after the other: all at once would take as much memory as the reduction is strong.
            pairs = zip(taps, weights[made : made + ready], strict=True)
            reduced = torch.stack([torch.einsum("nctw,t->ncw", held[:, :, tap], weight) for tap, weight in pairs], 2)
            made += ready
            yield _to_levels(reduced, levels, alpha).to(strip.dtype)
        keep = int(indices[made:].min()) - first if made < new[1] else held.shape[2]
        held, first = held[:, :, keep:], first + keep


def _to_levels(rows: Tensor, levels: int, alpha: bool) -> Tensor:
    """Turn NCHW in about [0, 1], premultiplied, into integers (N, rows, W, C)."""
    if alpha:
        cover = rows[:, -1:]
        rows = torch.cat([torch.where(cover > 0, rows[:, :-1] / cover.clamp(min=1e-6), 0), cover], dim=1)
    return (rows.clamp(0, 1) * levels).round().permute(0, 2, 3, 1)
