"""What a backend is, and which one suits."""

import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .openvino_backend import OpenVINOBackend
from .torch_backend import TorchBackend

BACKENDS = ("auto", "torch", "openvino")


class Backend(Protocol):
    """A fused network that was prepared for a device and a precision. Threads may share one.

    Attributes:
        strip_pixels: how many LR pixels should go through the network at once.
        whole_image_pixels: how many an image has at most that should go through at once, beyond these.
    """

    strip_pixels: int
    whole_image_pixels: int

    def stream(self, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        """Yield the network's output for an image as strips of rows, from top to bottom, on the network's device.

        Args:
            lr: (N, C, H, W). It may lie elsewhere and be of another type than the network takes; all that it needs is
                `shape` and `tensor_split`.
            strip_height: rows of `lr` that go through the network at once, about.
            to_input: turns rows of `lr` into the network's input, (N, 3, rows, W) float32 in [0, 1] on its device.

        Yields:
            Tensors (N, C, rows, W * scale). Put together they are the output for the whole image.
        """
        ...


def select_backend(name: str, device: torch.device) -> str:
    """Return "torch" or "openvino".

    "auto" takes OpenVINO for a CPU of the x86 family, where the extra [openvino] is installed.
    `SRGAN_BACKEND` in the environment overrules that. An upscaler gives images for which OpenVINO does not repay to
    PyTorch all the same; see `OpenVINOBackend.repays`.

    Raises:
        ValueError: there is no such backend, or it cannot be used here; the message says why.
    """
    if name not in BACKENDS:
        raise ValueError(f"Expected a backend out of {', '.join(BACKENDS)}, got {name!r}.")
    installed = all(map(importlib.util.find_spec, ("openvino", "onnx")))
    if name == "auto":
        fits = installed and device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
        asked = os.environ.get("SRGAN_BACKEND", "auto")
        return select_backend(asked, device) if asked != "auto" else "openvino" if fits else "torch"
    if name == "openvino" and not installed:
        raise ValueError('The backend openvino is missing; pip install "srgan-hub[openvino]".')
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"Expected the device cpu for the backend openvino, got {device.type}.")
    return name


def create_backend(name: str, network: nn.Sequential, *, scale: int, dtype: torch.dtype) -> Backend:
    """Prepare a backend, "torch" or "openvino".

    Args:
        name: from `select_backend`.
        network: a fused generator, or its first layers, on its device and in float32.
        scale: of the network.
        dtype: float32, bfloat16 or, where it is not OpenVINO, float16.
    """
    if name == "openvino":
        return OpenVINOBackend(network, scale=scale, dtype=dtype)
    return TorchBackend(network, dtype=dtype)
