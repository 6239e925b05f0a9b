"""Building blocks missing from `torch.nn`."""

import hashlib
from typing import TypeGuard

from torch import Tensor, nn


class Residual(nn.Sequential):
    """A sequence of layers whose input is added to its output: `x + layers(x)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ChannelSlice(nn.Module):
    """Select the first `count` channels."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.count]


def is_same_conv(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a layer is a zero-padded convolution whose output has the size of its input."""
    return (
        type(layer) is nn.Conv2d
        and layer.stride == (1, 1)
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.padding == (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)
        and layer.kernel_size[0] % 2 == layer.kernel_size[1] % 2 == 1
    )


def nearest_scale(layer: nn.Module) -> int:
    """Return the factor of a nearest-neighbor `Upsample` by an integer; 0 for any other layer."""
    factor = layer.scale_factor if type(layer) is nn.Upsample and layer.mode == "nearest" else 0
    return int(factor) if isinstance(factor, (int, float)) and factor == int(factor) else 0


def upsampling_factor(layer: nn.Module) -> int:
    """Return the factor of a `PixelShuffle` or nearest-neighbor `Upsample`; 0 for any other layer."""
    return layer.upscale_factor if type(layer) is nn.PixelShuffle else nearest_scale(layer)


def find_non_finite(network: nn.Module) -> str | None:
    """Return the name of a network's first parameter or buffer with NaN or infinite values, None if there is none."""
    return next((name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()), None)


def weights_sha256(network: nn.Module) -> str:
    """Return the first 16 digits of the SHA-256 of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
