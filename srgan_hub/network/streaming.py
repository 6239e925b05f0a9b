"""Streaming inference over row strips with cached convolution context; equivalent to whole-image inference.

An image passes through the network in strips of full-width rows. Layers that read neighboring rows cache those that
the next strip needs, so nothing is computed twice and there are no seams:

* `Conv2d` of height k caches the last k - 1 rows of its input. Zero rows precede the first strip and follow the last
  one, exactly as in the padded image.
* `Residual` caches the input rows whose outputs its inner layers have not produced yet.
* All other supported layers process rows independently and cache nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import exact_float32, no_autocast
from .layers import ChannelSlice, Residual, is_same_conv, nearest_scale, upsampling_factor
from .winograd import TILE, WinogradConv2d

# Layers that process rows independently, in addition to nearest-neighbor upsampling.
POINTWISE = (nn.PReLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardtanh, nn.PixelShuffle, ChannelSlice)

# Up to this size PyTorch computes a single float32 input, but no batch, without oneDNN, which rounds differently.
NATIVE_CONV_SIZE = 20_480


class StreamingState:
    """Streaming state for one image: the cached rows of every layer.

    The network is a fused generator in which no layer is used twice. `step()` never modifies its inputs or the cache in
    place, so it can be exported as a pure function. Layers that cannot be streamed raise TypeError.
    """

    def __init__(self, network: nn.Sequential) -> None:
        _check(network)
        self.network = network
        self.cache: dict[nn.Module, Tensor] = {}

    def step(self, rows: Tensor, *, last: bool = False) -> Tensor | None:
        """Return the output rows that the next rows of the image (N, C, rows, W) complete; None if there are none yet.

        `last` marks the last rows. After an upsampling, rows are processed in pieces of about as many pixels as `rows`
        has, which bounds memory.
        """
        return self._forward([*self.network], rows, last, rows[:, 0].numel())

    def _forward(self, layers: Sequence[nn.Module], rows: Tensor, last: bool, max_pixels: int) -> Tensor | None:
        for index, layer in enumerate(layers):
            num_pieces = min(round(rows[:, 0].numel() / max_pixels), rows.shape[2])
            if num_pieces > 1:
                # Depth first: after an upsampling, or at the end of the image, where all cached rows come out.
                pieces = rows.tensor_split(num_pieces, dim=2)
                outputs = [self._forward(layers[index:], x, last and x is pieces[-1], max_pixels) for x in pieces]
                complete = [x for x in outputs if x is not None]
                return torch.cat(complete, dim=2) if complete else None
            if isinstance(layer, Residual):
                output = self._residual(layer, rows, last, max_pixels)
            elif isinstance(layer, (nn.Conv2d, WinogradConv2d)):
                output = self._conv(layer, rows, last)
            else:
                output = layer(rows)
            if output is None:
                return None
            rows = output
        return rows

    def _conv(self, conv: nn.Conv2d | WinogradConv2d, rows: Tensor, last: bool) -> Tensor | None:
        radius = conv.kernel_size[0] // 2
        n, channels, _, width = rows.shape
        zeros = rows.new_zeros(n, radius, width, channels).permute(0, 3, 1, 2)  # channels last
        cached = self.cache.get(conv, zeros)
        parts = [cached, rows, *([zeros] if last else [])]
        self.cache[conv] = _tail(cached, rows, 2 * radius)
        if sum(part.shape[2] for part in parts) <= 2 * radius:
            return None
        if isinstance(conv, WinogradConv2d):
            return conv.conv_rows(parts)
        x, padding = torch.cat(parts, dim=2), (0, conv.kernel_size[1] // 2)
        if n == 1 and x.device.type == "cpu" and x.numel() <= NATIVE_CONV_SIZE:
            x = torch.cat([x, x])
        return F.conv2d(x, conv.weight, conv.bias, padding=padding, groups=conv.groups)[:n]

    def _residual(self, block: Residual, rows: Tensor, last: bool, max_pixels: int) -> Tensor | None:
        cached = self.cache.get(block, rows[:, :, :0])
        output = self._forward([*block], rows, last, max_pixels)
        num_output = 0 if output is None else output.shape[2]
        self.cache[block] = _tail(cached, rows, cached.shape[2] + rows.shape[2] - num_output)
        if output is not None:
            count = min(cached.shape[2], num_output)
            output[:, :, :count] += cached[:, :, :count]
            output[:, :, count:] += rows[:, :, : num_output - count]
        return output


def stream_rows(
    network: nn.Sequential, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor] | None = None
) -> Iterator[Tensor]:
    """Yield the network's output for an image in strips of rows, from top to bottom.

    Concatenated, they equal the output for the whole image. Their heights vary, since outputs lag behind inputs.

    Args:
        network: A fused generator.
        lr: (N, C, H, W). With `to_input`, only its `shape` and `tensor_split` are used.
        strip_height: Maximum rows of `lr` per step; the image is divided evenly.
        to_input: Converts rows of `lr` to network input, (N, 3, rows, W) in [0, 1].

    Raises:
        ValueError: `strip_height` is less than 1.
        TypeError: The network has a layer that cannot be streamed.
    """
    if strip_height < 1:
        raise ValueError(f"`strip_height` must be at least 1, got {strip_height}.")
    state = StreamingState(network)
    # Evenly, without a small remainder: for few pixels PyTorch may select kernels that round differently.
    strips = lr.tensor_split(-(-lr.shape[2] // strip_height), dim=2)
    for rows in strips:
        # Not around the yield, where it would change the caller's mode.
        with torch.inference_mode(), exact_float32:
            x = to_input(rows) if to_input else rows
            with no_autocast(x.device):
                output = state.step(x, last=rows is strips[-1])
        if output is not None:
            yield output


def receptive_field_radius(network: Sequence[nn.Module] | nn.Sequential, radius: int = 0, *, axis: int = 0) -> int:
    """Return how many input rows above and below, at most, output pixels within `radius` of one another depend on.

    With `axis` 1, columns on each side, including those that only change how results are rounded.
    """
    for layer in reversed(network):
        if isinstance(layer, nn.Sequential):
            radius = receptive_field_radius(layer, radius, axis=axis)
        elif isinstance(layer, WinogradConv2d) and axis == 1:
            radius += TILE
        elif isinstance(layer, (nn.Conv2d, WinogradConv2d)):
            radius += layer.kernel_size[axis] // 2
        elif factor := upsampling_factor(layer):
            radius = -(-radius // factor)
    return radius


def _check(layers: nn.Sequential) -> None:
    for layer in layers:
        if type(layer) is Residual:
            _check(layer)
        elif not (type(layer) in (*POINTWISE, WinogradConv2d) or is_same_conv(layer) or nearest_scale(layer)):
            raise TypeError(f"Cannot stream {layer}: not a layer of a fused generator.")


def _tail(cached: Tensor, rows: Tensor, count: int) -> Tensor:
    """Copy the last `count` rows of two adjacent parts, or all; a view would keep complete strips in memory."""
    missing = count - rows.shape[2]
    if missing > 0:
        return torch.cat([cached[:, :, max(0, cached.shape[2] - missing) :], rows], dim=2)
    return rows[:, :, -missing:].clone()
