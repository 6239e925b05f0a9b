"""The same function in fewer operations, for inference.

Two rewrites, both exact up to rounding:

* ``Conv2d, BatchNorm2d`` become one ``Conv2d``.
* The last convolution has three output channels at full size, which starves convolution kernels. After
  ``PixelShuffle(r)`` or a nearest ``Upsample(r)`` it becomes a convolution to ``3 r * r`` channels at ``1 / r`` of the
  size, followed by ``PixelShuffle(r)``: each output phase gets its own kernel. An activation in between moves in front
  of the shuffle, with its slopes repeated. Output channels that fill the processor's vectors are computed and dropped.
"""

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .layers import FirstChannels, keeps_size, repeat_factor

# Convolutions with at most this many output channels are rewritten to run before the upsampling.
FEW_CHANNELS = 4
# Convolution kernels compute so many output channels at a time, and are slower where they have to mask some.
VECTOR = 16


def fuse(network: nn.Sequential) -> nn.Sequential:
    """Return a faster network for inference that computes the same function.

    Batch norm is taken in evaluation mode. The network itself is left as it is; nothing is shared with the result.
    """
    layers = [
        (name, fuse(layer) if isinstance(layer, nn.Sequential) else layer) for name, layer in network.named_children()
    ]
    fused = type(network)(OrderedDict(_move_tail(_fold_batch_norm(layers))))
    return copy.deepcopy(fused).eval().requires_grad_(False)


Layers = list[tuple[str, nn.Module]]


def _fold_batch_norm(layers: Layers) -> Layers:
    folded: Layers = []
    for name, layer in layers:
        conv_name, conv = folded[-1] if folded else ("", None)
        if isinstance(layer, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
            # torch folds only what is in evaluation mode, and the network may be in training.
            folded[-1] = conv_name, fuse_conv_bn_eval(copy.deepcopy(conv).eval(), copy.deepcopy(layer).eval())
        else:
            folded.append((name, layer))
    return folded


def _move_tail(layers: Layers) -> Layers:
    for i in range(len(layers) - 2):
        (up_name, up), (act_name, act), (conv_name, conv) = layers[i : i + 3]
        if not isinstance(conv, nn.Conv2d) or not keeps_size(conv):
            continue
        shuffled = type(up) is nn.PixelShuffle
        factor = up.upscale_factor if isinstance(up, nn.PixelShuffle) else repeat_factor(up)
        moved_act = _before_shuffle(act, factor) if shuffled else act
        if factor and conv.groups == 1 and conv.out_channels <= FEW_CHANNELS and type(act) in (nn.PReLU, nn.LeakyReLU):
            moved_conv = _polyphase(conv, factor, shuffled=shuffled)
            used = FirstChannels(conv.out_channels * factor**2)
            moved = [(act_name, moved_act), (conv_name, moved_conv), (f"{conv_name}_used", used)]
            moved.append((up_name, nn.PixelShuffle(factor)))
            return layers[:i] + moved + layers[i + 3 :]
    return layers


def _before_shuffle(act: nn.Module, factor: int) -> nn.Module:
    """Build the activation that does before a pixel shuffle what ``act`` does after it."""
    if not isinstance(act, nn.PReLU) or act.num_parameters == 1:
        return act
    moved = nn.PReLU(act.num_parameters * factor**2)
    moved.weight = nn.Parameter(act.weight.detach().repeat_interleave(factor**2))
    return moved


def _polyphase(conv: nn.Conv2d, factor: int, *, shuffled: bool) -> nn.Conv2d:
    """Build the convolution on the coarse grid whose pixel-shuffled output is ``conv`` on the fine one.

    It has more output channels, all zero, if that makes a multiple of ``VECTOR``.

    ``shuffled``: the fine input is a pixel shuffle of the coarse one, otherwise each coarse pixel repeated.

    The output at fine row ``factor * Y + p`` reads fine rows ``factor * Y + p + d``. Dividing ``p + d`` by ``factor``
    gives the coarse row as quotient and the input's phase as remainder. Columns likewise.
    """
    height, width = conv.kernel_size
    rows, cols = ((k // 2 + factor - 1) // factor for k in (height, width))
    phases = factor**2 if shuffled else 1
    weight = torch.zeros(
        conv.out_channels, factor, factor, conv.in_channels, phases, 2 * rows + 1, 2 * cols + 1, dtype=torch.float64
    )
    fine = conv.weight.detach().double()
    for py in range(factor):
        for px in range(factor):
            for dy in range(height):
                for dx in range(width):
                    y, in_y = divmod(py + dy - height // 2, factor)
                    x, in_x = divmod(px + dx - width // 2, factor)
                    phase = in_y * factor + in_x if shuffled else 0
                    weight[:, py, px, :, phase, rows + y, cols + x] += fine[:, :, dy, dx]
    outputs = conv.out_channels * factor**2
    unused = -outputs % VECTOR
    coarse = nn.Conv2d(
        conv.in_channels * phases,
        outputs + unused,
        (2 * rows + 1, 2 * cols + 1),
        padding=(rows, cols),
        bias=conv.bias is not None,
    )
    used = weight.flatten(3, 4).flatten(0, 2).to(conv.weight)
    coarse.weight = nn.Parameter(F.pad(used, (0, 0, 0, 0, 0, 0, 0, unused)))
    if conv.bias is not None:
        coarse.bias = nn.Parameter(F.pad(conv.bias.detach().repeat_interleave(factor**2), (0, unused)))
    return coarse
