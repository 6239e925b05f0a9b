"""The same function strip by strip: bounded memory, same result.

An image is pushed through the network in strips of full-width rows. Every layer that looks at neighbouring rows keeps
the few rows that the next strip needs, so nothing is computed twice and there is no seam:

* `Conv2d` of height k keeps the last k - 1 rows of its input; rows of zeros stand above the first strip and below the
  last one, exactly as in the padded image.
* `Residual` keeps the input rows whose partners its inner layers have not produced yet.
* The other supported layers look at single rows and keep nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ChannelSlice, Residual, is_same_conv, nearest_scale
from .winograd import WinogradConv2d

# Layers that look at one row at a time, beside nearest upsampling.
POINTWISE = (nn.PReLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardtanh, nn.PixelShuffle, ChannelSlice)


class StreamingState:
    """A network on its way down one image; the rows that its layers keep between two strips are here.

    A push writes over no tensor that it was given or has kept, so that it can be exported as a function of the rows and
    of `cache`.

    Args:
        network: a fused generator, in which no layer is used twice.

    Attributes:
        cache: for each layer that has been reached, the rows that it keeps.

    Raises:
        TypeError: the network has a layer that cannot be streamed.
    """

    def __init__(self, network: nn.Sequential) -> None:
        _check(network)
        self.network = network
        self.cache: dict[nn.Module, Tensor] = {}

    def step(self, rows: Tensor, *, last: bool = False) -> Tensor | None:
        """Return the output rows that are complete with the next rows of the image, or None if there are none yet.

        Where the network has upscaled the image, about as many pixels go on at once as are in `rows`.

        Args:
            rows: (N, C, rows, W).
            last: the image ends with these rows; nothing may be pushed after them.
        """
        return self._forward([*self.network], rows, last, rows[:, 0].numel())

    def _forward(self, layers: Sequence[nn.Module], rows: Tensor, last: bool, pixels: int) -> Tensor | None:
        ready: Tensor | None = rows
        for number, layer in enumerate(layers):
            pieces = round(rows[:, 0].numel() / pixels)
            if pieces > 1 and rows.shape[2] > 1:
                # Depth first: after an upscaling, or at the end of the image, where all rows that were kept come.
                cut = rows.tensor_split(min(pieces, rows.shape[2]), dim=2)
                done = [self._forward(layers[number:], piece, last and piece is cut[-1], pixels) for piece in cut]
                complete = [piece for piece in done if piece is not None]
                return torch.cat(complete, dim=2) if complete else None
            if isinstance(layer, Residual):
                ready = self._residual(layer, rows, last, pixels)
            elif isinstance(layer, (nn.Conv2d, WinogradConv2d)):
                ready = self._conv(layer, rows, last)
            else:
                ready = layer(rows)
            if ready is None:
                return None
            rows = ready
        return ready

    def _conv(self, conv: nn.Conv2d | WinogradConv2d, rows: Tensor, last: bool) -> Tensor | None:
        reach = conv.kernel_size[0] // 2
        n, channels, _, width = rows.shape
        zeros = rows.new_zeros(n, reach, width, channels).permute(0, 3, 1, 2)  # channels last, as joined rows shall be
        above = self.cache.get(conv, zeros)
        parts = [above, rows, *([zeros] if last else [])]
        self.cache[conv] = _tail(above, rows, 2 * reach)
        if sum(part.shape[2] for part in parts) <= 2 * reach:
            return None
        if isinstance(conv, WinogradConv2d):
            return conv.conv_rows(parts)
        padding = (0, conv.kernel_size[1] // 2)
        return F.conv2d(torch.cat(parts, dim=2), conv.weight, conv.bias, padding=padding, groups=conv.groups)

    def _residual(self, block: Residual, rows: Tensor, last: bool, pixels: int) -> Tensor | None:
        above = self.cache.get(block, rows[:, :, :0])
        waiting = above.shape[2] + rows.shape[2]
        ready = self._forward([*block], rows, last, pixels)
        self.cache[block] = _tail(above, rows, waiting - (0 if ready is None else ready.shape[2]))
        if ready is not None:
            count = min(above.shape[2], ready.shape[2])
            ready[:, :, :count] += above[:, :, :count]
            ready[:, :, count:] += rows[:, :, : ready.shape[2] - count]
        return ready


def stream_rows(
    network: nn.Sequential, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor] | None = None
) -> Iterator[Tensor]:
    """Yield the network's output for an image as strips of rows, from top to bottom.

    Put together they are the output for the whole image. The strips differ in height, since the network looks ahead.

    Args:
        network: a fused generator.
        lr: (N, C, H, W). It may lie elsewhere and be of another type than the network takes, if `to_input` converts it;
            all that it needs then is `shape` and `tensor_split`.
        strip_height: rows of `lr` in a push, at most: the image is divided evenly.
        to_input: turns rows of `lr` into the network's input, (N, 3, rows, W) in [0, 1].

    Raises:
        ValueError: the strip has no rows.
        TypeError: the network has a layer that cannot be streamed.
    """
    if strip_height < 1:
        raise ValueError(f"Expected a strip of at least one row, got {strip_height}.")
    state = StreamingState(network)
    # No small remainder at the end: for few pixels PyTorch may take other kernels, which round the last bit otherwise.
    strips = lr.tensor_split(-(-lr.shape[2] // strip_height), dim=2)
    for rows in strips:
        # Entered again for each strip: around the yield it would hold the caller in inference mode.
        with torch.inference_mode():
            ready = state.step(to_input(rows) if to_input else rows, last=rows is strips[-1])
        if ready is not None:
            yield ready


def receptive_field_radius(network: nn.Sequential, radius: int = 0) -> int:
    """Count the input rows above and below that output pixels within `radius` of one another depend on."""
    for layer in reversed(network):
        if isinstance(layer, nn.Sequential):
            radius = receptive_field_radius(layer, radius)
        elif isinstance(layer, (nn.Conv2d, WinogradConv2d)):
            radius += layer.kernel_size[0] // 2
        elif isinstance(layer, nn.PixelShuffle):
            radius = -(-radius // layer.upscale_factor)
        elif isinstance(layer, nn.Upsample):
            radius = -(-radius // int(layer.scale_factor))  # type: ignore[arg-type]
    return radius


def _check(layers: nn.Sequential) -> None:
    for layer in layers:
        if type(layer) is Residual:
            _check(layer)
        elif not (type(layer) in (*POINTWISE, WinogradConv2d) or is_same_conv(layer) or nearest_scale(layer)):
            raise TypeError(f"Cannot stream {layer}: only the fused generator's layers are known to work row by row.")


def _tail(above: Tensor, rows: Tensor, count: int) -> Tensor:
    """Copy the last `count` rows, or all, of two parts of an image: a view would keep whole strips."""
    missing = count - rows.shape[2]
    if missing > 0:
        return torch.cat([above[:, :, max(0, above.shape[2] - missing) :], rows], dim=2)
    return rows[:, :, -missing:].clone()
