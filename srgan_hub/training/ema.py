"""Exponential moving average of model weights."""

import copy

import torch
from torch import nn


class EMA:
    """A copy of a network whose weights and batch norm statistics are exponential moving averages.

    After step `step`, counted from 0, each value is `d * average + (1 - d) * value` with the warm-up
    `d = min(decay, (1 + step) / (10 + step))`.

    The network is copied in evaluation mode, before `Accelerator.prepare`, which would bind the copy's `forward` to it.
    The decay is from 0, which copies the latest values, to below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be at least 0 and below 1, got {decay}.")
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Update the averages with the values of `network`, which has the same layers, after step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = self.network.state_dict(), network.state_dict()
        floats = [name for name, average in averages.items() if average.is_floating_point()]
        torch._foreach_lerp_([averages[name] for name in floats], [values[name] for name in floats], 1 - decay)
        for name in averages.keys() - floats:
            averages[name].copy_(values[name])  # number of batches
