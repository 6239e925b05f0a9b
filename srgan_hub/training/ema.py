"""Exponential moving average of model weights."""

import copy

import torch
from torch import Tensor, nn


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
        self._floats: list[tuple[Tensor, Tensor]] = []  # averages and values
        self._counts: list[tuple[Tensor, Tensor]] = []  # batches that batch norms have seen

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Update the averages with the values of `network`, which has the same layers, after step `step`.

        It is the same network in each call: its tensors are collected in the first one, which is slow.
        """
        if not self._floats:
            for pair in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
                (self._floats if pair[0].is_floating_point() else self._counts).append(pair)
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([average for average, _ in self._floats], [value for _, value in self._floats], 1 - decay)
        if self._counts:
            torch._foreach_copy_([average for average, _ in self._counts], [value for _, value in self._counts])
