"""Winograd F(6, 3) convolution along rows for float32 on CPU.

Minimal filtering (Lavin and Gray 2015, https://arxiv.org/abs/1509.09308), along rows only: six neighboring outputs of
one kernel row take 8 multiplications instead of 18. The three kernel rows are summed directly, so an output row
depends on three input rows and not on where a strip starts: it streams like any convolution.

Rounding errors are about those of direct convolution in float32, and too large in half precision. With fewer than 48
channels the transforms take longer than they save.
"""

import functools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn

from .layers import is_same_conv

# Interpolation points in addition to infinity; small integers and their inverses keep rounding errors small.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
TAPS = 3
PRODUCTS = len(POINTS) + 1
TILE = PRODUCTS - TAPS + 1
MIN_CHANNELS = 48


def convert_to_winograd(network: nn.Sequential, *, min_channels: int = MIN_CHANNELS) -> nn.Sequential:
    """Return a fused float32 network with its 3x3 convolutions of at least `min_channels` inputs and outputs replaced.

    All other layers are shared with the original.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in network.named_children():
        if isinstance(layer, nn.Sequential):
            layer = convert_to_winograd(layer, min_channels=min_channels)
        elif is_same_conv(layer) and layer.kernel_size == (TAPS, TAPS) and layer.groups == 1:
            wide = min(layer.in_channels, layer.out_channels) >= min_channels
            layer = WinogradConv2d(layer) if wide else layer
        layers[name] = layer
    return type(network)(layers)


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with zero padding and a copy of the weights of `conv`."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel_size = conv.kernel_size
        to_outputs, to_weights, to_inputs = toom_cook()
        # (kernel row, product, input channel, output channel)
        weight = torch.einsum("pk,oirk->rpio", to_weights, conv.weight.detach().double().cpu())
        bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        self.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
        self.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
        self.register_buffer("to_inputs", to_inputs[:, 1:-1].to(conv.weight, copy=True))
        self.register_buffer("to_outputs", to_outputs.to(conv.weight, copy=True))

    to_inputs: Tensor
    to_outputs: Tensor

    def forward(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(*x.shape[:2], 1, x.shape[3])
        return self.conv_rows([zeros, x, zeros])

    def conv_rows(self, parts: Sequence[Tensor]) -> Tensor:
        """Convolve vertically adjacent parts (N, C, rows, W), without padding above and below.

        At least three rows are required; the output has two rows fewer.
        """
        n, c, _, width = parts[0].shape
        rows, tiles = sum(part.shape[2] for part in parts), -(-width // TILE)
        columns = _to_tiles(parts, rows, tiles)
        inputs = torch.mm(self.to_inputs, columns.flatten(1)).view(PRODUCTS, n, rows, tiles, c)
        # A tile's six outputs depend on eight inputs; the first and the last are columns of its neighbors.
        inputs[0, :, :, 1:].add_(columns[-1, :, :, :-1])
        inputs[-1, :, :, :-1].add_(columns[0, :, :, 1:])
        inputs = inputs.view(PRODUCTS * n, rows * tiles, c)
        end = (rows - TAPS + 1) * tiles
        weight = self.weight if n == 1 else self.weight.repeat_interleave(n, dim=1)
        products = torch.bmm(inputs[:, :end], weight[0])
        for row in range(1, TAPS):
            products.baddbmm_(inputs[:, row * tiles : row * tiles + end], weight[row])
        outputs = torch.mm(self.to_outputs, products.view(PRODUCTS, -1)).view(TILE, n, rows - TAPS + 1, tiles, -1)
        outputs = outputs.permute(1, 2, 3, 0, 4)
        # A single pass reorders the columns and adds the bias.
        result = torch.add(outputs, self.bias, out=torch.empty_like(outputs, memory_format=torch.contiguous_format))
        return result.flatten(2, 3)[:, :, :width].permute(0, 3, 1, 2)


def _to_tiles(parts: Sequence[Tensor], rows: int, tiles: int) -> Tensor:
    """Concatenate rows, split into tiles of columns: (TILE, N, rows, tiles, C), zero beyond the width."""
    n, c, _, width = parts[0].shape
    columns = parts[0].new_empty(TILE, n, rows, tiles, c)
    full, rest = divmod(width, TILE)
    columns[rest:, :, :, full:] = 0
    top = 0
    for part in parts:
        bottom, x = top + part.shape[2], part.permute(0, 2, 3, 1)
        tiled = x[:, :, : full * TILE].unflatten(2, (full, TILE))
        columns[:, :, top:bottom, :full] = tiled.permute(3, 0, 1, 2, 4)
        columns[:rest, :, top:bottom, full:] = x[:, :, None, full * TILE :].permute(3, 0, 1, 2, 4)
        top = bottom
    return columns


@functools.cache
def toom_cook() -> tuple[Tensor, Tensor, Tensor]:
    """Return the Toom-Cook matrices `to_outputs` (6, 8), `to_weights` (8, 3) and `to_inputs` (8, 8), in float64.

    The correlation of `inputs` and `kernel` is `to_outputs @ ((to_weights @ kernel) * (to_inputs @ inputs))`. The first
    input appears in the first product only and the last one in the last product only, both unscaled.
    """
    to_outputs, to_weights = np.zeros((TILE, PRODUCTS)), np.zeros((PRODUCTS, TAPS))
    to_inputs = np.zeros((PRODUCTS, PRODUCTS))
    for i, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        to_outputs[:, i] = point ** np.arange(TILE)
        to_weights[i] = point ** np.arange(TAPS) / np.prod(point - np.array(others))
        to_inputs[i, :-1] = polyfromroots(others)
    to_outputs[-1, -1] = to_weights[-1, -1] = 1  # at infinity
    to_inputs[-1] = polyfromroots(POINTS)
    first = to_inputs[0, 0]
    to_inputs[0] /= first
    to_weights[0] *= first
    return torch.from_numpy(to_outputs), torch.from_numpy(to_weights), torch.from_numpy(to_inputs)
