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
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import FirstChannels, Residual, keeps_size, repeat_factor
from .winograd import WinogradConv2d

logger = logging.getLogger(__name__)

# Layers that look at one row at a time, beside nearest upsampling.
ROW_BY_ROW = (nn.PReLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardtanh, nn.PixelShuffle, FirstChannels)

# What a layer keeps between two bands. It belongs to the call that streams, never to the layer.
State = Any


def push(layer: nn.Module, state: State, rows: Tensor | None, *, last: bool) -> tuple[State, Tensor | None]:
    """Push the next rows of a picture through a layer, or through a whole network.

    Args:
        layer: a fused generator, or one of its layers.
        state: what the previous push returned; None before the first one. It is never changed in place: a push that
            failed can be repeated with the same state.
        rows: (N, C, rows, W), or None where an earlier layer has nothing ready yet.
        last: whether the picture ends with these rows.

    Returns:
        The new state, and the output rows that are complete by now, or None.

    Raises:
        TypeError: the layer is of a kind that cannot be streamed.
    """
    if type(layer) is Residual:
        return _push_residual(layer, state, rows, last)
    if type(layer) is nn.Sequential:
        return _push_sequence(layer, state, rows, last)
    if isinstance(layer, WinogradConv2d) or (isinstance(layer, nn.Conv2d) and keeps_size(layer)):
        return _push_conv(layer, state, rows, last)
    if type(layer) in ROW_BY_ROW or repeat_factor(layer):
        return None, None if rows is None else layer(rows)
    raise TypeError(f"cannot stream {layer}: only the fused generator's layers are known to work row by row")


def stream(
    network: nn.Sequential, lr: Tensor, *, band: int, load: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Tensor]:
    """Yield the network's output for a picture as bands of rows, from top to bottom.

    Put together they are the output for the whole picture. The bands differ in height, since the network looks ahead.
    Where memory runs out, the push is repeated with bands of half the height; what was yielded before stands.

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
    state: State = None
    top, height = 0, lr.shape[2]
    # No small remainder at the end: for few pixels PyTorch may take other kernels, which round the last bit otherwise.
    band = -(-height // -(-height // band))
    while top < height:
        bottom = min(top + band, height)
        # Entered anew for each band: around the yield it would hold the caller in inference mode.
        with torch.inference_mode():
            try:
                seen = lr[:, :, top:bottom]
                seen = load(seen) if load else seen
                most = len(seen) * band * seen.shape[3]
                state, rows = _push_sequence(network, state, seen, bottom == height, most)
            except (RuntimeError, MemoryError) as error:
                if band == 1 or not _is_out_of_memory(error):
                    raise
                band = -(-band // 2)
                logger.warning("out of memory: going on with bands of %d rows", band)
                rows = None
                continue
        top = bottom
        if rows is not None:
            yield rows


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


def _push_sequence(
    layers: nn.Sequential, states: State, rows: Tensor | None, last: bool, most: float = math.inf
) -> tuple[State, Tensor | None]:
    """Push rows through layers, in pieces of about ``most`` pixels.

    There are more where the network has enlarged the picture, and where the rows that waited come out at its end.
    """
    states = [*states] if states else [None] * len(layers)
    for i, layer in enumerate(layers):
        count = 0 if rows is None else min(rows.shape[2], round(rows[:, 0].numel() / most))
        if rows is not None and count > 1:
            done = []
            for piece in (pieces := rows.tensor_split(count, dim=2)):
                ends = last and piece is pieces[-1]
                states[i:], ready = _push_sequence(layers[i:], states[i:], piece, ends, most)
                done += [] if ready is None else [ready]
            return states, torch.cat(done, dim=2) if done else None
        states[i], rows = push(layer, states[i], rows, last=last)
    return states, rows


def _push_conv(
    conv: nn.Conv2d | WinogradConv2d, kept: State, rows: Tensor | None, last: bool
) -> tuple[State, Tensor | None]:
    if rows is None and not last:
        return kept, None
    reach = conv.kernel_size[0] // 2
    parts = [part for part in (kept, rows) if part is not None]
    if kept is None:
        parts.insert(0, _zero_rows(parts[0], reach))
    if last:
        parts.append(_zero_rows(parts[0], reach))
    ready = None
    if sum(part.shape[2] for part in parts) > 2 * reach:
        ready = conv.convolve(parts) if isinstance(conv, WinogradConv2d) else _convolve(conv, parts)
    if last:
        return None, ready
    seen = parts[-1] if parts[-1].shape[2] >= 2 * reach else torch.cat(parts, dim=2)
    # A clone, since a view would keep the whole band in memory.
    return seen[:, :, max(0, seen.shape[2] - 2 * reach) :].clone(), ready


def _convolve(conv: nn.Conv2d, parts: list[Tensor]) -> Tensor:
    side = conv.kernel_size[1] // 2
    return F.conv2d(torch.cat(parts, dim=2), conv.weight, conv.bias, padding=(0, side), groups=conv.groups)


def _zero_rows(like: Tensor, count: int) -> Tensor:
    n, c, _, w = like.shape
    if like.stride(1) == 1:  # channels last, which a mixture in torch.cat would lose
        return like.new_zeros(n, count, w, c).permute(0, 3, 1, 2)
    return like.new_zeros(n, c, count, w)


def _push_residual(block: Residual, state: State, rows: Tensor | None, last: bool) -> tuple[State, Tensor | None]:
    inner, waiting = state or (None, [])
    inner, ready = _push_sequence(block, inner, rows, last)
    waiting = waiting if rows is None else [*waiting, rows]
    if ready is None:
        return (inner, waiting), None
    top, left = 0, []
    for part in waiting:
        count = min(part.shape[2], ready.shape[2] - top)
        ready[:, :, top : top + count] += part[:, :, :count]
        top += count
        if count < part.shape[2]:
            left.append(part[:, :, count:].clone() if count else part)
    return (inner, left), ready
