"""The same function band by band: bounded memory, same result.

A picture is pushed through the network in bands of full-width rows. Every layer that looks at neighbouring rows keeps
the few rows that the next band needs, so nothing is computed twice and there is no seam:

* ``Conv2d`` of height k keeps the last k - 1 rows of its input; rows of zeros stand above the first band and below
  the last one, exactly as in the padded picture.
* ``Residual`` keeps the input rows whose partners its inner layers have not produced yet.
* The other supported layers look at single rows and keep nothing.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import FirstChannels, Residual, keeps_size, repeat_factor
from .winograd import WinogradConv2d

logger = logging.getLogger(__name__)

# Layers that look at one row at a time, beside nearest upsampling.
ROW_BY_ROW = (nn.PReLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardtanh, nn.PixelShuffle, FirstChannels)

# Numbers of the rows that are joined for a convolution, at most: 16 MiB of float32, well within what glibc keeps.
JOINED = 2**22

# What a layer keeps between two bands. It belongs to the call that streams, never to the layer.
State = Any


class Budget:
    """How many pixels go through a layer at once, which is less after memory has run out."""

    def __init__(self, pixels: float = math.inf) -> None:
        self.pixels = pixels

    def rows(self, picture: Tensor) -> int:
        """Give the rows of a picture (N, C, H, W) that go at once: at least one."""
        return int(max(1, min(picture.shape[2], self.pixels / picture[:, 0, 0].numel())))

    def divide(self, rows: Tensor | None) -> Sequence[Tensor | None]:
        """Cut rows into even pieces of about so many pixels."""
        if rows is None:
            return [None]
        return rows.tensor_split(max(1, min(rows.shape[2], round(rows[:, 0].numel() / self.pixels))), dim=2)

    def lower(self, rows: Tensor | None, error: Exception) -> None:
        """Take half of these rows from now on, if memory ran out with them; else raise the error again."""
        if rows is None or rows.shape[2] == 1 or not _is_out_of_memory(error):
            raise error
        half = -(-rows.shape[2] // 2)
        self.pixels = half * rows[:, 0, 0].numel()
        logger.warning("out of memory: going on with pieces of %d pixels", self.pixels)


def push(
    layer: nn.Module, state: State, rows: Tensor | None, *, last: bool, budget: Budget | None = None
) -> tuple[State, list[Tensor]]:
    """Push the next rows of a picture through a layer, or through a whole network.

    Args:
        layer: a fused generator, or one of its layers.
        state: what the previous push returned, which this one may write over; None before the first one.
        rows: (N, C, rows, W), or None where the picture ends and no rows are left.
        last: whether the picture ends with these rows.
        budget: how much goes through a layer of a network at once (default: all).

    Returns:
        The new state, and the output rows that are complete by now, in pieces from top to bottom.

    Raises:
        TypeError: the layer is of a kind that cannot be streamed.
    """
    if state is None:
        _check(layer)
    budget = budget or Budget()
    if type(layer) is Residual:
        return _push_residual(layer, state, rows, last, budget)
    if type(layer) is nn.Sequential:
        state = state or [None] * len(layer)
        return state, _push_through(layer, state, 0, rows, last, budget)
    if isinstance(layer, (nn.Conv2d, WinogradConv2d)):
        return _push_conv(layer, state, rows, last)
    return None, [] if rows is None else [layer(rows)]


def _check(layer: nn.Module) -> None:
    """Raise TypeError unless the layer, and each within it, is of a kind that can be streamed."""
    if type(layer) in (nn.Sequential, Residual):
        for inner in layer.children():
            _check(inner)
    elif not (type(layer) in (*ROW_BY_ROW, WinogradConv2d) or keeps_size(layer) or repeat_factor(layer)):
        raise TypeError(f"cannot stream {layer}: only the fused generator's layers are known to work row by row")


def stream(
    network: nn.Sequential, lr: Tensor, *, band: int, load: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Tensor]:
    """Yield the network's output for a picture as bands of rows, from top to bottom.

    Put together they are the output for the whole picture. The bands differ in height, since the network looks ahead.
    Where memory runs out in a layer, that layer and all that follows takes half as many rows at once.

    Args:
        network: a fused generator.
        lr: (N, C, H, W). It may lie elsewhere and be of another type than the network takes, if ``load`` converts it.
        band: rows of ``lr`` in a push, at most: the picture is divided evenly. Where the network has enlarged them,
            about as many pixels go on at once.
        load: turns rows of ``lr`` into the network's input, (N, 3, rows, W) in [0, 1].

    Raises:
        ValueError: the band has no rows.
        TypeError: the network has a layer that cannot be streamed.
    """
    if band < 1:
        raise ValueError(f"band must be at least one row, got {band}")
    budget, state = Budget(), None
    top, height = 0, lr.shape[2]
    # No small remainder at the end: for few pixels PyTorch may take other kernels, which round the last bit otherwise.
    band = -(-height // -(-height // band))
    while top < height:
        bottom = min(top + band, height)
        # Entered anew for each band: around the yield it would hold the caller in inference mode.
        with torch.inference_mode():
            seen = lr[:, :, top:bottom]
            seen = load(seen) if load else seen
            if state is None:
                budget.pixels = len(seen) * band * seen.shape[3]
            state, ready = push(network, state, seen, last=bottom == height, budget=budget)
            band = min(band, budget.rows(seen))
        top = bottom
        yield from ready


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "allocate memory" in str(error)


def receptive_radius(network: nn.Sequential, radius: int = 0) -> int:
    """Count the input rows above and below that output pixels within ``radius`` of one another depend on."""
    for layer in reversed(network):
        if isinstance(layer, nn.Sequential):
            radius = receptive_radius(layer, radius)
        elif isinstance(layer, (nn.Conv2d, WinogradConv2d)):
            radius += layer.kernel_size[0] // 2
        elif isinstance(layer, nn.PixelShuffle):
            radius = -(-radius // layer.upscale_factor)
        elif isinstance(layer, nn.Upsample):
            radius = -(-radius // int(layer.scale_factor))  # type: ignore[arg-type]
    return radius


def _push_through(
    layers: nn.Sequential, states: list[State], start: int, rows: Tensor | None, last: bool, budget: Budget
) -> list[Tensor]:
    """Push rows through the layers from ``start`` on, in pieces that fit the budget.

    There are more pixels than in the band where the network has enlarged the picture, and where the rows that waited
    come out at its end.
    """
    if start == len(layers):
        return [] if rows is None else [rows]
    layer, done = layers[start], []
    pieces = [*budget.divide(rows)]
    while pieces:
        piece = pieces.pop(0)
        ends = last and not pieces
        try:
            states[start], ready = push(layer, states[start], piece, last=ends, budget=budget)
        except (RuntimeError, MemoryError) as error:
            if isinstance(layer, nn.Sequential):  # its own layers have done what could be done
                raise
            budget.lower(piece, error)
            pieces = [*budget.divide(piece), *pieces]
            continue
        for number, each in enumerate(ready, 1):
            done += _push_through(layers, states, start + 1, each, ends and number == len(ready), budget)
        if ends and not ready:
            done += _push_through(layers, states, start + 1, None, True, budget)
    return done


def _push_conv(
    conv: nn.Conv2d | WinogradConv2d, kept: State, rows: Tensor | None, last: bool
) -> tuple[State, list[Tensor]]:
    reach = conv.kernel_size[0] // 2
    parts = [part for part in (kept, rows) if part is not None]
    if kept is None:
        parts.insert(0, _zero_rows(parts[0], reach))
    if last:
        parts.append(_zero_rows(parts[0], reach))
    ready = []
    if sum(part.shape[2] for part in parts) > 2 * reach:
        ready = [conv.convolve(parts) if isinstance(conv, WinogradConv2d) else _convolve(conv, parts)]
    if last:
        return None, ready
    return _keep(kept, parts, 2 * reach), ready


def _keep(kept: Tensor | None, parts: list[Tensor], count: int) -> Tensor:
    """Give the last ``count`` rows of all parts, of which ``kept`` is the first: copied, not a view of whole bands.

    Once there are so many, they stay in one place: what lives long among blocks that come and go scatters the heap.
    """
    rows = parts[-1][:, :, -count:]
    new = rows.shape[2]
    if kept is None or kept.shape[2] < count:
        return torch.cat(parts, dim=2)[:, :, -count:].clone()
    for row in range(count - new):
        kept[:, :, row] = kept[:, :, row + new]
    kept[:, :, count - new :] = rows
    return kept


def _convolve(conv: nn.Conv2d, parts: list[Tensor]) -> Tensor:
    """Convolve rows that stand one below another, without padding above and below.

    A wide picture goes in pieces side by side, which overlap by what the kernel sees: joining the rows takes memory.
    """
    n, channels, _, width = parts[0].shape
    side = conv.kernel_size[1] // 2
    columns = max(side + 1, JOINED // (n * channels * sum(part.shape[2] for part in parts)))
    done = []
    for left in range(0, width, columns):
        first, right = max(0, left - side), min(left + columns, width)
        seen = torch.cat([part[..., first : right + side] for part in parts], dim=2)
        result = F.conv2d(seen, conv.weight, conv.bias, padding=(0, side), groups=conv.groups)
        done.append(result[..., left - first :][..., : right - left])
    return done[0] if len(done) == 1 else torch.cat(done, dim=3)


def _zero_rows(like: Tensor, count: int) -> Tensor:
    n, c, _, w = like.shape
    if like.stride(1) == 1:  # channels last, which a mixture in torch.cat would lose
        return like.new_zeros(n, count, w, c).permute(0, 3, 1, 2)
    return like.new_zeros(n, c, count, w)


def _push_residual(
    block: Residual, state: State, rows: Tensor | None, last: bool, budget: Budget
) -> tuple[State, list[Tensor]]:
    states, waiting = state or ([None] * len(block), [])
    waiting = waiting if rows is None else [*waiting, rows]
    ready = _push_through(block, states, 0, rows, last, budget)
    for piece in ready:
        top = 0
        while top < piece.shape[2]:
            part = waiting.pop(0)
            count = min(part.shape[2], piece.shape[2] - top)
            piece[:, :, top : top + count] += part[:, :, :count]
            top += count
            if count < part.shape[2]:  # a clone, since a view would keep all of them in memory
                waiting.insert(0, part[:, :, count:].clone())
    return (states, waiting), ready
