"""What an engine is, and which one suits."""

import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .openvino import OpenVINOEngine
from .torch import TorchEngine

ENGINES = ("auto", "torch", "openvino")


class Engine(Protocol):
    """A fused network that was prepared for a device and a precision. Threads may share one.

    Attributes:
        pixels: how many LR pixels should go through the network at once.
        small: how many a picture has at most that should go through at once, beyond these.
    """

    pixels: int
    small: int

    def stream(self, lr: Any, *, band: int, load: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        """Yield the network's output for a picture as bands of rows, from top to bottom, on the network's device.

        Args:
            lr: (N, C, H, W). It may lie elsewhere and be of another type than the network takes; all that it needs is
                `shape` and `tensor_split`.
            band: rows of `lr` that go through the network at once, about.
            load: turns rows of `lr` into the network's input, (N, 3, rows, W) float32 in [0, 1] on its device.

        Yields:
            Tensors (N, C, rows, W * scale). Put together they are the output for the whole picture.
        """
        ...


def choose_engine(name: str, device: torch.device) -> str:
    """Return "torch" or "openvino".

    "auto" takes OpenVINO for a processor of the x86 family, where the extra [openvino] is installed.
    `SRGAN_ENGINE` in the environment overrules that. An upscaler gives pictures for which OpenVINO does not repay to
    PyTorch all the same; see `OpenVINOEngine.repays`.

    Raises:
        ValueError: there is no such engine, or it cannot be used here; the message says why.
    """
    if name not in ENGINES:
        raise ValueError(f"Expected an engine out of {', '.join(ENGINES)}, got {name!r}.")
    installed = all(map(importlib.util.find_spec, ("openvino", "onnx")))
    if name == "auto":
        fits = installed and device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
        asked = os.environ.get("SRGAN_ENGINE", "auto")
        return choose_engine(asked, device) if asked != "auto" else "openvino" if fits else "torch"
    if name == "openvino" and not installed:
        raise ValueError('The engine openvino is missing; pip install "srgan-hub[openvino]".')
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"Expected the device cpu for the engine openvino, got {device.type}.")
    return name


def make_engine(name: str, network: nn.Sequential, *, scale: int, dtype: torch.dtype) -> Engine:
    """Prepare an engine, "torch" or "openvino".

    Args:
        name: from `choose_engine`.
        network: a fused generator, or its first layers, on its device and in float32.
        scale: of the network.
        dtype: float32, bfloat16 or, where it is not OpenVINO, float16.
    """
    if name == "openvino":
        return OpenVINOEngine(network, scale=scale, dtype=dtype)
    return TorchEngine(network, dtype=dtype)
