"""Read the values of training steps without waiting for the device."""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

CUDA_LAG = 2  # steps; long enough for the copy to have finished, so that the device never waits for Python


class StepValues(NamedTuple):
    """Scalars of one step, on the device."""

    names: tuple[str, ...]
    tensor: Tensor


class Readback:
    """A queue of step values that are copied to the host asynchronously and read `lag` steps later.

    The lag is a constant, so all ranks read the values of a step at the same step.
    """

    def __init__(self, device: torch.device) -> None:
        self.lag = CUDA_LAG if device.type == "cuda" else 0
        self._sent: deque[tuple[int, tuple[str, ...], Tensor, torch.cuda.Event | None]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, step: int, values: StepValues) -> None:
        """Start the copy of the values of a step."""
        host, event = values.tensor.to("cpu", non_blocking=True), None
        if values.tensor.is_cuda:
            event = torch.cuda.Event()
            event.record()
        self._sent.append((step, values.names, host, event))

    def receive(self) -> tuple[int, dict[str, float]]:
        """Return the oldest step that was sent and its values."""
        step, names, host, event = self._sent.popleft()
        if event:
            event.synchronize()
        return step, dict(zip(names, host.tolist(), strict=True))
