"""Inference-time graph fusion; the fused network computes the same function up to rounding.

* `Conv2d, BatchNorm2d` become one `Conv2d`.
* An activation after `PixelShuffle(r)` or a nearest-neighbor `Upsample(r)` is hoisted before it, with its slopes
  repeated, where backends compute it together with the preceding convolution.
* The final convolution has three output channels at full resolution, too few for efficient kernels. After
  `PixelShuffle(r)` or a nearest-neighbor `Upsample(r)` it becomes a convolution to `3 r * r` channels at `1 / r` of the
  resolution, followed by `PixelShuffle(r)`: each output phase has its own kernel. Padding channels that fill the CPU's
  vectors are computed and dropped.
"""

import copy
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .layers import ChannelSlice, is_same_conv, upsampling_factor

Layers = list[tuple[str, Any]]
# Convolutions with at most this many output channels are moved before the upsampling.
MAX_TAIL_CHANNELS = 4
# Convolution kernels compute this many output channels at a time, and masking some is slower.
CHANNEL_MULTIPLE = 16


def fuse(network: nn.Sequential) -> nn.Sequential:
    """Return a faster float32 copy of a network for inference that computes the same function, in evaluation mode."""
    return _fuse(copy.deepcopy(network).float().eval()).eval().requires_grad_(False)


def _fuse(network: nn.Sequential) -> nn.Sequential:
    children = network.named_children()
    layers = [(name, _fuse(layer) if isinstance(layer, nn.Sequential) else layer) for name, layer in children]
    fused = _hoist_activations(_move_tail_before_upsampling(_fold_batch_norm(layers)))
    return type(network)(OrderedDict(fused))


def _fold_batch_norm(layers: Layers) -> Layers:
    folded: Layers = []
    for name, layer in layers:
        conv_name, conv = folded[-1] if folded else ("", None)
        if isinstance(layer, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
            folded[-1] = conv_name, fuse_conv_bn_eval(conv, layer)
        else:
            folded.append((name, layer))
    return folded


def _move_tail_before_upsampling(layers: Layers) -> Layers:
    index = _find_tail([layer for _, layer in layers])
    if index is None:
        return layers
    (up_name, up), (act_name, act), (conv_name, conv) = layers[index : index + 3]
    weight, bias = _polyphase(conv, up)
    outputs, inputs, height, width = weight.shape
    unused = -outputs % CHANNEL_MULTIPLE
    size, padding = (height, width), (height // 2, width // 2)
    coarse = nn.Conv2d(inputs, outputs + unused, size, padding=padding, bias=bias is not None)
    coarse.weight = nn.Parameter(F.pad(weight.detach(), (0, 0, 0, 0, 0, 0, 0, unused)))
    if bias is not None:
        coarse.bias = nn.Parameter(F.pad(bias.detach(), (0, unused)))
    used: Layers = [(f"{conv_name}_used", ChannelSlice(outputs))] if unused else []
    moved = [(act_name, _hoisted_activation(act, up)), (conv_name, coarse), *used]
    return [*layers[:index], *moved, (up_name, nn.PixelShuffle(upsampling_factor(up))), *layers[index + 3 :]]


def _hoist_activations(layers: Layers) -> Layers:
    hoisted = [*layers]
    for i in range(len(layers) - 1):
        (up_name, up), (act_name, act) = hoisted[i : i + 2]
        if upsampling_factor(up) and type(act) in (nn.PReLU, nn.LeakyReLU):
            hoisted[i : i + 2] = [(act_name, _hoisted_activation(act, up)), (up_name, up)]
    return hoisted


class PolyphaseGenerator(nn.Sequential):
    """A generator for training whose final convolution is computed as in `fuse`.

    Parameters and their names are unchanged, and gradients are equal up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        layers = [*self]
        index = _find_tail(layers)
        if index is None:
            return super().forward(x)
        x = self[:index](x)
        up, act, conv = layers[index : index + 3]
        x = F.prelu(x, _hoisted_slopes(act, up)) if isinstance(act, nn.PReLU) else act(x)
        weight, bias = _polyphase(conv, up)
        x = F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
        return self[index + 3 :](F.pixel_shuffle(x, upsampling_factor(up)))


def _find_tail(layers: list[nn.Module]) -> int | None:
    """Return the index of an upsampling followed by an activation and a convolution to few channels."""
    for i in range(len(layers) - 2):
        up, act, conv = layers[i : i + 3]
        is_tail = is_same_conv(conv) and conv.groups == 1 and conv.out_channels <= MAX_TAIL_CHANNELS
        if is_tail and upsampling_factor(up) and type(act) in (nn.PReLU, nn.LeakyReLU):
            return i
    return None


def _hoisted_activation(act: nn.Module, up: nn.Module) -> nn.Module:
    """Return the activation that, before the upsampling, is equivalent to `act` after it."""
    if not isinstance(act, nn.PReLU):
        return act
    slopes = _hoisted_slopes(act, up)
    hoisted = nn.PReLU(len(slopes))
    hoisted.weight = nn.Parameter(slopes.detach())
    return hoisted


def _hoisted_slopes(act: nn.PReLU, up: nn.Module) -> Tensor:
    """Return the slopes that, before the upsampling, are equivalent to those of `act` after it."""
    if type(up) is not nn.PixelShuffle or act.num_parameters == 1:
        return act.weight
    return act.weight.repeat_interleave(up.upscale_factor**2)


def _polyphase(conv: nn.Conv2d, up: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the convolution before the upsampling whose pixel-shuffled output is that of `conv`.

    The output at fine row `factor * Y + p` reads the fine rows around it, so its kernel is that of `conv`, placed `p`
    rows lower in a window of complete coarse rows; columns likewise. Unshuffled, the window's pixels become channels.
    """
    factor = upsampling_factor(up)
    height, width = conv.kernel_size
    rows, cols = ((k // 2 + factor - 1) // factor for k in (height, width))
    kernels = []
    for y in range(factor):
        for x in range(factor):
            top, left = rows * factor + y - height // 2, cols * factor + x - width // 2
            bottom, right = (2 * rows + 1) * factor - top - height, (2 * cols + 1) * factor - left - width
            kernels.append(F.pixel_unshuffle(F.pad(conv.weight, (left, right, top, bottom)), factor))
    weight = torch.stack(kernels, dim=1).flatten(0, 1)
    if type(up) is not nn.PixelShuffle:  # nearest-neighbor: the pixels of a block are equal, so their weights add up
        weight = weight.unflatten(1, (conv.in_channels, factor**2)).sum(2)
    return weight, None if conv.bias is None else conv.bias.repeat_interleave(factor**2)
