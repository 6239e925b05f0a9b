"""3x3 convolutions in less than half of the multiplications, for float32 on a CPU.

Winograd's minimal filtering (Lavin and Gray 2015, https://arxiv.org/abs/1509.09308), along the rows of an image alone:
six neighbouring outputs of a kernel's row are a product of polynomials of degrees 5 and 2, which eight multiplications
give where the plain sum takes eighteen. Down the columns the kernel's three rows are added up as they are, so that an
output row depends on three input rows and not on where a strip of rows begins: it streams like any convolution.

The transforms are products with matrices of 6 x 8 numbers, whatever the image. Rounding errors are those of the plain
sum. It repays from 48 channels on; in half precision the errors would be too large.
"""

import functools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn

from .layers import is_same_conv

# Where the polynomials are evaluated, beside infinity: small numbers and their inverses keep the matrices' range small.
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
TAPS = 3
PRODUCTS = len(POINTS) + 1
TILE = PRODUCTS - TAPS + 1
# With fewer channels the transforms take longer than what they save.
MIN_CHANNELS = 48


def convert_to_winograd(network: nn.Sequential, *, min_channels: int = MIN_CHANNELS) -> nn.Sequential:
    """Return the same network with its 3x3 convolutions replaced; what is not replaced is shared with the original.

    Args:
        network: a fused generator in float32.
        min_channels: convolutions with fewer input or output channels stay.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in network.named_children():
        if isinstance(layer, nn.Sequential):
            layer = convert_to_winograd(layer, min_channels=min_channels)
        elif isinstance(layer, nn.Conv2d) and _fits(layer, min_channels):
            layer = WinogradConv2d(layer)
        layers[name] = layer
    return type(network)(layers)


def _fits(conv: nn.Conv2d, min_channels: int) -> bool:
    many = min(conv.in_channels, conv.out_channels) >= min_channels
    return many and is_same_conv(conv) and conv.kernel_size == (TAPS, TAPS) and conv.groups == 1


class WinogradConv2d(nn.Module):
    """The function of a 3x3 convolution with zero padding.

    Args:
        conv: such a convolution; its weights are copied.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel_size = conv.kernel_size
        to_outputs, to_weights, to_inputs = toom_cook()
        # (kernel row, product, input channel, output channel)
        weight = torch.einsum("pk,oirk->rpio", to_weights, conv.weight.detach().double().cpu())
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
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
        """Convolve rows (N, C, rows, W) that stand one below another, without padding above and below.

        There must be three rows at least; two fewer come out.
        """
        n, c, _, width = parts[0].shape
        rows, tiles = sum(part.shape[2] for part in parts), -(-width // TILE)
        columns = _to_tiles(parts, rows, tiles)
        inputs = torch.mm(self.to_inputs, columns.flatten(1)).view(PRODUCTS, n, rows, tiles, c)
        # A tile's six outputs depend on eight inputs: the first and the last belong to its neighbours.
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
        # One pass puts the columns in order and adds the bias.
        result = torch.add(outputs, self.bias, out=torch.empty_like(outputs, memory_format=torch.contiguous_format))
        return result.flatten(2, 3)[:, :, :width].permute(0, 3, 1, 2)


def _to_tiles(parts: Sequence[Tensor], rows: int, tiles: int) -> Tensor:
    """Join rows, sorted by the columns' place in their tile: (TILE, N, rows, tiles, C), zeros beyond the width."""
    n, c, _, width = parts[0].shape
    columns = parts[0].new_empty(TILE, n, rows, tiles, c)
    whole, left = divmod(width, TILE)
    columns[left:, :, :, whole:] = 0
    top = 0
    for part in parts:
        bottom, x = top + part.shape[2], part.permute(0, 2, 3, 1)
        tiled = x[:, :, : whole * TILE].unflatten(2, (whole, TILE))
        columns[:, :, top:bottom, :whole] = tiled.permute(3, 0, 1, 2, 4)
        columns[:left, :, top:bottom, whole:] = x[:, :, None, whole * TILE :].permute(3, 0, 1, 2, 4)
        top = bottom
    return columns


@functools.cache
def toom_cook() -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices of Toom and Cook's algorithm in float64, for `POINTS` and infinity.

    They lead to outputs (6, 8), to weights (8, 3) and to inputs (8, 8): the sums of `kernel[k] * inputs[i + k]` are
    `to_outputs @ ((to_weights @ kernel) * (to_inputs @ inputs))`. The first input is in the first product alone and
    the last one in the last product alone, as they are.
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
