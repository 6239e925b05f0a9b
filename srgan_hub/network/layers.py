"""The building blocks that torch.nn lacks, and what fusing and streaming both ask about torch's own."""

import hashlib

from torch import Tensor, nn


class Residual(nn.Sequential):
    """A sequence of layers whose input is added to its output: `x + layers(x)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ChannelSlice(nn.Module):
    """The first `count` channels of the input."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.count]


def is_same_conv(layer: nn.Module) -> bool:
    """Return whether the layer is a convolution with zero padding whose output is as large as its input."""
    return (
        type(layer) is nn.Conv2d
        and layer.stride == (1, 1)
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.padding == (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)
        and layer.kernel_size[0] % 2 == layer.kernel_size[1] % 2 == 1
    )


def nearest_scale(layer: nn.Module) -> int:
    """Return how often the layer repeats each row and column: 0 unless it is a nearest `Upsample` by an integer."""
    if type(layer) is not nn.Upsample or layer.mode != "nearest" or not isinstance(layer.scale_factor, (int, float)):
        return 0
    factor = int(layer.scale_factor)
    return factor if factor == layer.scale_factor else 0


def weights_sha256(network: nn.Module) -> str:
    """Return a hash of all numbers in a network."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
