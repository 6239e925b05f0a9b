"""The exponential moving average of a network: what is exported."""

import copy

import torch
from torch import Tensor, nn


class EMA:
    """A copy of a network whose weights, and batch norm statistics alike, follow slowly.

    After update `step`, counted from 0, each value is `d * average + (1 - d) * value`, where
    `d = min(decay, (1 + step) / (10 + step))`: the start is forgotten soon.

    Args:
        network: copied in evaluation mode, so do this before `Accelerator.prepare`, which binds the forward of what
            it prepares to the original.
        decay: 0 to below 1; 0 follows at once.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"Expected an EMA decay from 0 to below 1, got {decay}.")
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow `network`, which has the same layers, after update `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values: dict[str, Tensor] = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(values[name], 1 - decay)
            else:
                average.copy_(values[name])  # the count of batches
