"""Backend protocol and selection."""

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
    """A fused network prepared for a device and a dtype. Threads may share one.

    Attributes:
        strip_pixels: Preferred LR pixels per strip.
        whole_image_pixels: Images of at most this many LR pixels are processed in one pass.
        column_radius: LR columns on each side that output pixels, including their rounding, depend on.
    """

    strip_pixels: int
    whole_image_pixels: int
    column_radius: int

    def stream(self, lr: Any, *, strip_height: int, to_input: Callable[[Any], Tensor]) -> Iterator[Tensor]:
        """Yield the network's output for an image in strips of rows, from top to bottom, on the network's device.

        Args:
            lr: (N, C, H, W), on any device and of any dtype. Only `shape` and `tensor_split` are used.
            strip_height: Approximate LR rows per strip.
            to_input: Converts rows of `lr` to network input, (N, 3, rows, W) float32 in [0, 1] on the network's device.

        Yields:
            Tensors (N, C, rows, W * scale); concatenated, they are the output for the whole image.
        """
        ...


def select_backend(
    name: str, *, device: torch.device, dtype: torch.dtype | None = None, shape: tuple[int, int] | None = None
) -> str:
    """Return the backend for an image: "torch" or "openvino".

    "auto" selects OpenVINO on x86 CPUs where the extra [openvino] is installed, except for images that PyTorch
    processes as fast. The environment variable SRGAN_BACKEND replaces the check of CPU and installation. `dtype` and
    `shape` (LR height and width) are None if they differ between images.

    Raises:
        ValueError: The backend is unknown or unavailable.
    """
    if name not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(map(repr, BACKENDS))}, got {name!r}.")
    installed = all(map(importlib.util.find_spec, ("openvino", "onnx")))
    if name == "auto":
        requested = os.environ.get("SRGAN_BACKEND", "auto")
        if requested != "auto":
            name = select_backend(requested, device=device)
        elif installed and device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
            name = "openvino"
        slower = dtype is not None and shape is not None and not OpenVINOBackend.is_faster_for(*shape, dtype)
        return "openvino" if name == "openvino" and dtype != torch.float16 and not slower else "torch"
    if name == "openvino" and not installed:
        raise ValueError('The OpenVINO backend requires the extra [openvino]: pip install "srgan-hub[openvino]".')
    if name == "openvino" and device.type != "cpu":
        raise ValueError(f"The OpenVINO backend runs on device 'cpu' only, got {device.type!r}.")
    if name == "openvino" and dtype == torch.float16:
        raise ValueError("The OpenVINO backend supports float32 and bfloat16 only, got float16.")
    return name


def create_backend(name: str, network: nn.Sequential, *, scale: int, dtype: torch.dtype) -> Backend:
    """Create the backend that `select_backend` returned, for a fused float32 network, or its first layers."""
    if name == "openvino":
        return OpenVINOBackend(network, scale=scale, dtype=dtype)
    return TorchBackend(network, dtype=dtype)
