"""Exponential moving average of model weights."""

import copy

import torch
from torch import nn


class EMA:
    """A copy of a network whose weights and batch norm statistics are exponential moving averages.

    After step `step`, counted from 0, each value is `d * average + (1 - d) * value` with the warm-up
    `d = min(decay, (1 + step) / (10 + step))`.

    The network is copied in evaluation mode, before `Accelerator.prepare`, which would bind the copy's `forward` to it.
    Its tensors are kept by reference: they may be trained inside any wrapper, but not replaced. The decay is from 0,
    which copies the latest values, to below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be at least 0 and below 1, got {decay}.")
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        pairs = [*zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # batches that batch norms have seen

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages with the network's values after step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([average for average, _ in self._floats], [value for _, value in self._floats], 1 - decay)
        if self._counts:
            torch._foreach_copy_([average for average, _ in self._counts], [value for _, value in self._counts])
