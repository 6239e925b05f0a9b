"""PyTorch on any device."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import exact_float32
from ..network.stream import stream
from ..network.winograd import use_winograd

# A GPU needs more pixels at once, or it waits for its own launches.
CPU_PIXELS = 8_192
GPU_PIXELS = 262_144


class TorchEngine:
    """A network that PyTorch runs; see `Engine`.

    Args:
        network: a fused generator, or its first layers, on its device and in float32.
        dtype: what it computes in.
    """

    def __init__(self, network: nn.Sequential, *, dtype: torch.dtype) -> None:
        device = next(network.parameters()).device
        if dtype != torch.float32:
            network = copy.deepcopy(network).to(dtype)
        elif device.type == "cpu":
            network = use_winograd(network)
        self.network, self.dtype = network, dtype
        self.small = 0  # bands fit the caches better
        self.pixels = CPU_PIXELS if device.type == "cpu" else GPU_PIXELS

    def stream(self, lr: Any, *, band: int, load: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        """Yield the output for a picture, as `Engine.stream` does."""

        def prepare(rows: Any) -> Tensor:
            return load(rows).to(self.dtype, memory_format=torch.channels_last)

        bands = stream(self.network, lr, band=band, load=prepare)
        while True:
            with exact_float32:  # not around the yield, which would hold the caller in it
                rows = next(bands, None)
            if rows is None:
                return
            yield rows
