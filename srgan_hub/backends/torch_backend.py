"""PyTorch on any device."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import exact_float32
from ..network.streaming import stream_rows
from ..network.winograd import convert_to_winograd

# A GPU needs more pixels at once, or it waits for its own launches.
CPU_PIXELS = 8_192
GPU_PIXELS = 262_144


class TorchBackend:
    """A network that PyTorch runs; see `Backend`.

    Args:
        network: a fused generator, or its first layers, on its device and in float32.
        dtype: what it computes in.
    """

    def __init__(self, network: nn.Sequential, *, dtype: torch.dtype) -> None:
        device = next(network.parameters()).device
        if dtype != torch.float32:
            network = copy.deepcopy(network).to(dtype)
        elif device.type == "cpu":
            network = convert_to_winograd(network)
        self.network, self.dtype = network, dtype
        self.whole_image_pixels = 0  # strips fit the caches better
        self.strip_pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS

    def stream(self, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        """Yield the output for an image, as `Backend.stream` does."""

        def prepare(rows: Any) -> Tensor:
            return to_input(rows).to(self.dtype, memory_format=torch.channels_last)

        strips = stream_rows(self.network, lr, strip_height=strip_height, to_input=prepare)
        while True:
            with exact_float32:  # not around the yield, which would hold the caller in it
                rows = next(strips, None)
            if rows is None:
                return
            yield rows
