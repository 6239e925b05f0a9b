"""3x3 convolutions of training in a quarter of the multiplications, for float32 on a CPU.

Winograd's minimal filtering as in ``network/winograd.py``, here along rows and columns, since nothing streams: a tile
of 4 x 4 neighbouring outputs takes 6 x 6 products where the plain sum takes 144. The gradients are the same steps,
transposed. All results are those of the plain convolution up to rounding.

Within this module pictures are (N, H, W, C), of whole tiles, and products are (6, 6, N, tiles down, tiles across, C).
"""

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network.winograd import TAPS, fits, toom_cook

# Where the polynomials are evaluated, beside infinity. Of the points that floats hold exactly, these round best.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
# Outputs of a tile, down and across.
TILE = len(POINTS) - 1
# With fewer tiles the weights' transform takes longer than what is saved.
MIN_TILES = 96
# As many pictures go at once as make about so many products: 8 MiB, which processors keep at hand.
AT_ONCE = 2**21


def use_winograd(network: nn.Module) -> None:
    """Let the 3x3 convolutions of a network compute so, forwards and backwards. Parameters and their names stay."""
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d) and fits(layer):
            setattr(network, name, WinogradConv2d(layer))
        else:
            use_winograd(layer)


class WinogradConv2d(nn.Module):
    """The function of a 3x3 convolution with zero padding. It shares the parameters of ``conv``."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        below, right = -height % TILE, -width % TILE
        if n * (height + below) * (width + right) < MIN_TILES * TILE**2:
            return F.conv2d(x, self.weight, self.bias, padding=TAPS // 2)
        if not (below or right):
            return _Convolution.apply(x, self.weight, self.bias)
        return _Convolution.apply(F.pad(x, (0, right, 0, below)), self.weight, self.bias)[:, :, :height, :width]


class _Convolution(torch.autograd.Function):
    """The convolution of whole tiles (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.pictures = max(1, AT_ONCE // (2 * x[0, 0].numel() * max(weight.shape[:2])))
        result = _empty(x, len(weight))
        lifted, kept = _lift_weight(weight), []
        for some, out in zip(x.split(ctx.pictures), result.split(ctx.pictures), strict=True):
            inputs = _lift_inputs(some.permute(0, 2, 3, 1))
            _lower_outputs(_multiply(inputs, lifted), 0 if bias is None else bias, out.permute(0, 2, 3, 1))
            if ctx.needs_input_grad[1]:
                kept.append(inputs)
        ctx.save_for_backward(lifted, *kept)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (lifted, *kept) = gradients, ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        x = _empty(gradient, lifted.shape[1]) if of_x else None
        weight = torch.zeros_like(lifted) if of_weight else None
        for i, some in enumerate(gradient.split(ctx.pictures)):
            products = _lift_gradient(some.permute(0, 2, 3, 1))
            if weight is not None:
                weight.baddbmm_(_flat(kept[i]).transpose(1, 2), _flat(products))
            if x is not None:
                out = x[i * ctx.pictures :][: len(some)].permute(0, 2, 3, 1)
                _lower_gradient(_multiply(products, lifted.transpose(1, 2)), out)
        bias = gradient.sum((0, 2, 3)) if of_bias else None
        return x, None if weight is None else _lower_weight(weight), bias


def _empty(like: Tensor, channels: int) -> Tensor:
    n, _, height, width = like.shape
    shape = n, channels, height, width
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _lift_inputs(x: Tensor) -> Tensor:
    """Turn inputs into those of the products.

    A tile's outputs depend on a row and a column more on each side, which are its neighbours': the one before is in the
    first product alone, the one behind in the last.
    """
    tiles = _tiles(x).contiguous()
    from_inputs = _matrices(x).from_inputs
    by_column = torch.mm(from_inputs, tiles.flatten(1)).view(-1, *tiles.shape[1:])
    by_column[0, :, :, :, 1:] += tiles[-1, :, :, :, :-1]
    by_column[-1, :, :, :, :-1] += tiles[0, :, :, :, 1:]
    products = torch.matmul(from_inputs, by_column.flatten(2)).view(len(by_column), -1, *by_column.shape[2:])
    products[:, 0, :, 1:] += by_column[:, -1, :, :-1]
    products[:, -1, :, :-1] += by_column[:, 0, :, 1:]
    return products


def _lower_gradient(products: Tensor, out: Tensor) -> None:
    """The transpose of ``_lift_inputs``."""
    to_inputs = _matrices(products).from_inputs.t()
    by_column = torch.matmul(to_inputs, products.flatten(2)).view(len(products), -1, *products.shape[2:])
    by_column[:, -1, :, :-1] += products[:, 0, :, 1:]
    by_column[:, 0, :, 1:] += products[:, -1, :, :-1]
    tiles = torch.mm(to_inputs, by_column.flatten(1)).view(-1, *by_column.shape[1:])
    tiles[-1, :, :, :, :-1] += by_column[0, :, :, :, 1:]
    tiles[0, :, :, :, 1:] += by_column[-1, :, :, :, :-1]
    _tiles(out).copy_(tiles)


def _lower_outputs(products: Tensor, bias: Tensor | int, out: Tensor) -> None:
    """Turn products into outputs."""
    to_outputs = _matrices(products).to_outputs
    by_column = torch.matmul(to_outputs, products.flatten(2))
    tiles = torch.mm(to_outputs, by_column.flatten(1)).view(TILE, TILE, *products.shape[2:])
    torch.add(tiles, bias, out=_tiles(out))


def _lift_gradient(x: Tensor) -> Tensor:
    """The transpose of ``_lower_outputs``."""
    tiles = _tiles(x).contiguous()
    from_outputs = _matrices(x).to_outputs.t()
    by_column = torch.mm(from_outputs, tiles.flatten(1)).view(-1, TILE, tiles[0, 0].numel())
    return torch.matmul(from_outputs, by_column).view(len(by_column), -1, *tiles.shape[2:])


def _lift_weight(weight: Tensor) -> Tensor:
    """Turn (outputs, inputs, 3, 3) into (products, inputs, outputs)."""
    kernels = weight.permute(3, 2, 1, 0)
    return torch.mm(_matrices(weight).from_kernel, kernels.flatten(2).flatten(0, 1)).view(-1, *kernels.shape[2:])


def _lower_weight(products: Tensor) -> Tensor:
    """The transpose of ``_lift_weight``."""
    kernels = torch.mm(_matrices(products).from_kernel.t(), products.flatten(1))
    return kernels.view(TAPS, TAPS, *products.shape[1:]).permute(3, 2, 1, 0)


def _multiply(inputs: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(_flat(inputs), weight).view(*inputs.shape[:-1], -1)


def _flat(products: Tensor) -> Tensor:
    return products.flatten(2, -2).flatten(0, 1)


def _tiles(x: Tensor) -> Tensor:
    """View pictures as (column in the tile, row in the tile, N, tiles down, tiles across, C)."""
    return x.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).permute(4, 2, 0, 1, 3, 5)


class _Matrices(NamedTuple):
    """From a tile's own inputs (6, 4) and to its outputs (4, 6), each along one side; from its kernel (36, 9)."""

    from_inputs: Tensor
    to_outputs: Tensor
    from_kernel: Tensor


def _matrices(like: Tensor) -> _Matrices:
    return _make_matrices(like.dtype, like.device)


@functools.cache
def _make_matrices(dtype: torch.dtype, device: torch.device) -> _Matrices:
    to_outputs, to_weights, to_inputs = toom_cook(POINTS)
    with torch.inference_mode(False):  # whoever asks first
        matrices = to_inputs[:, 1:-1].contiguous(), to_outputs, torch.kron(to_weights, to_weights)
        return _Matrices(*(matrix.to(device, dtype) for matrix in matrices))
