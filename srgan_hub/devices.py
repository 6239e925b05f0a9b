"""Device, dtype and thread-count selection."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPES |= {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device) -> torch.device:
    """Return a device; "auto" selects cuda, then mps, then cpu. Raises ValueError if it is not available."""
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"Device {str(device)!r} is not available: {str(error).splitlines()[0]}.") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """Return the dtype for a key of `DTYPES` or a dtype, None for "auto". Raises ValueError if it is not supported."""
    parsed = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype != "auto" and parsed not in DTYPES.values():
        raise ValueError(f"`dtype` must be one of 'auto', {', '.join(map(repr, DTYPES))}, got {dtype!r}.")
    return parsed


def preferred_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device computes in it natively, else float32, which is faster than emulation."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def resolve_num_threads(requested: int | None, device: torch.device) -> int:
    """Return the number of threads to compute with in this process.

    The one thread that the launchers of accelerate and torch set by default becomes the process's share of all cores.
    """
    launched = {"ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"} & os.environ.keys()
    if requested or device.type != "cpu" or not launched or os.environ.get("OMP_NUM_THREADS") != "1":
        return requested or torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class _ExactFloat32(contextlib.AbstractContextManager[None]):
    """Disable TensorFloat-32, which CUDA convolutions use by default, while any thread is inside.

    `torch.backends.cudnn.flags` would leave it disabled after two threads overlap: the second one saves the first one's
    setting as the previous one.
    """

    def __init__(self, backend: Any) -> None:
        self.backend, self.previous = backend, True
        self.lock, self.num_inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.num_inside:
                self.previous, self.backend.allow_tf32 = self.backend.allow_tf32, False
            self.num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.num_inside -= 1
            if not self.num_inside:
                self.backend.allow_tf32 = self.previous


exact_float32 = _ExactFloat32(torch.backends.cudnn)


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which the host program's autocast does not change the dtype of convolutions and products."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else contextlib.nullcontext()


def copy_to_cpu(strips: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Return strips on the CPU. From a CUDA device, each is copied while the network computes the next one."""
    if device.type == "cpu":
        return strips
    return _copy_asynchronously(strips) if device.type == "cuda" else (strip.cpu() for strip in strips)


def _copy_asynchronously(strips: Iterator[Tensor]) -> Iterator[Tensor]:
    pending: deque[tuple[Tensor, Any]] = deque()
    for strip in strips:
        pending.append(_start_copy(strip))
        if len(pending) == 2:
            yield _finish_copy(*pending.popleft())
    yield from (_finish_copy(*copy) for copy in pending)


def _start_copy(strip: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    # Only a copy to pinned memory, on a stream of its own, runs concurrently with the network's kernels.
    host = torch.empty_like(strip, device="cpu", pin_memory=True)
    stream = torch.cuda.Stream(strip.device)
    stream.wait_stream(torch.cuda.current_stream(strip.device))
    with torch.cuda.stream(stream):
        host.copy_(strip, non_blocking=True)
    strip.record_stream(stream)  # keeps its memory from being reused before it is copied
    return host, stream.record_event()


def _finish_copy(host: Tensor, copied: torch.cuda.Event) -> Tensor:
    copied.synchronize()
    return host
