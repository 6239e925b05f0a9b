"""What depends on the device: which one there is, what it is fast in, and how results leave it."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def resolve_device(device: str | torch.device) -> torch.device:
    """Return a device that can be used; "auto" takes cuda, then mps, then cpu.

    Raises:
        ValueError: it cannot be used here; the message says why.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"Device {device!r} cannot be used here: {str(error).splitlines()[0]}.") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def preferred_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device computes in it natively; emulation is slower than float32."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def resolve_num_threads(given: int | None, device: torch.device) -> int:
    """Return how many threads compute in this process.

    Accelerate's and torch's launchers leave one to each by default: then it is this process's share of all cores.
    """
    launched = {"ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"} & os.environ.keys()
    if given or device.type != "cpu" or not launched or os.environ.get("OMP_NUM_THREADS") != "1":
        return given or torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class _ExactFloat32(contextlib.AbstractContextManager[None]):
    """Forbid TensorFloat-32, the default of CUDA convolutions, which has ten bits where float32 has 23.

    The switch is the process's: the first thread that enters turns it off, and the last one that leaves puts it back.
    """

    def __init__(self, backend: Any) -> None:
        self.backend, self.before = backend, True
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before, self.backend.allow_tf32 = self.backend.allow_tf32, False
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.backend.allow_tf32 = self.before


exact_float32 = _ExactFloat32(torch.backends.cudnn)


def copy_to_cpu(strips: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Bring strips to the CPU. While the network computes the next strip on a CUDA device, one is on its way."""
    if device.type != "cuda":
        yield from (strip.cpu() for strip in strips)
        return
    on_their_way: deque[tuple[Tensor, Any]] = deque()
    for strip in strips:
        on_their_way.append(_start_copy(strip))
        if len(on_their_way) == 2:
            yield _finish_copy(*on_their_way.popleft())
    yield _finish_copy(*on_their_way.popleft())


def _start_copy(strip: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    # Only a copy to pinned memory, on a stream of its own, runs beside the network's kernels.
    host = torch.empty_like(strip, device="cpu", pin_memory=True)
    beside = torch.cuda.Stream(strip.device)
    beside.wait_stream(torch.cuda.current_stream(strip.device))
    with torch.cuda.stream(beside):
        host.copy_(strip, non_blocking=True)
    strip.record_stream(beside)  # its memory is not to be used again before it is copied
    return host, beside.record_event()


def _finish_copy(host: Tensor, copied: torch.cuda.Event) -> Tensor:
    copied.synchronize()
    return host
