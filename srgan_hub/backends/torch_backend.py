"""PyTorch backend."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..network.streaming import receptive_field_radius, stream_rows
from ..network.winograd import convert_to_winograd

# A GPU needs more pixels per strip to hide the latency of kernel launches.
CPU_PIXELS = 8_192
GPU_PIXELS = 262_144


class TorchBackend:
    """Run a network with PyTorch, on any device; see `Backend`."""

    whole_image_pixels = 0  # strips fit CPU caches better

    def __init__(self, network: nn.Sequential, *, dtype: torch.dtype) -> None:
        on_cpu = next(network.parameters()).device.type == "cpu"
        if dtype != torch.float32:
            network = copy.deepcopy(network).to(dtype)
        elif on_cpu:
            network = convert_to_winograd(network)
        self.network, self.dtype = network, dtype
        self.column_radius = receptive_field_radius(network, axis=1)
        self.strip_pixels = CPU_PIXELS if on_cpu else GPU_PIXELS

    def stream(self, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        def prepare(rows: Any) -> Tensor:
            return to_input(rows).to(self.dtype, memory_format=torch.channels_last)

        return stream_rows(self.network, lr, strip_height=strip_height, to_input=prepare)
