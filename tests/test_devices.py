import os
import threading
from types import SimpleNamespace

import pytest
import torch

from srgan_hub.devices import _ExactFloat32, exact_float32, parse_dtype, resolve_num_threads


@pytest.mark.parametrize("previous", [True, False])
def test_tf32_is_disabled_while_any_thread_computes_and_then_restored(previous):
    assert exact_float32.backend is torch.backends.cudnn
    backend = SimpleNamespace(allow_tf32=previous)
    exact = _ExactFloat32(backend)  # not the process's, which other tests may be using
    entered, leave, seen = threading.Event(), threading.Event(), []

    def compute():
        with exact:
            entered.set()
            leave.wait(10)
            seen.append(backend.allow_tf32)

    other = threading.Thread(target=compute)
    with exact:
        other.start()
        assert entered.wait(10) and not backend.allow_tf32
    assert not backend.allow_tf32  # the other thread is still inside
    leave.set()
    other.join()
    assert seen == [False] and backend.allow_tf32 is previous


def test_parse_dtype():
    assert parse_dtype("auto") is None
    for short, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        assert parse_dtype(short) == parse_dtype(str(dtype).removeprefix("torch.")) == parse_dtype(dtype) == dtype
    for dtype in ("float64", torch.float64, torch.uint8, None):
        with pytest.raises(ValueError, match=f"`dtype`.*{dtype}"):
            parse_dtype(dtype)


@pytest.mark.parametrize(
    ("requested", "environment", "expected"),
    [
        (None, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 6),  # set by accelerate launch
        (None, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no", "LOCAL_WORLD_SIZE": "2"}, 3),
        (None, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no", "LOCAL_WORLD_SIZE": "8"}, 1),
        (None, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 3),  # set by torchrun
        (2, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 2),
        (None, {"OMP_NUM_THREADS": "5", "ACCELERATE_MIXED_PRECISION": "no"}, 5),
        (None, {"OMP_NUM_THREADS": "1"}, 5),
    ],
)
def test_launched_processes_share_all_cores(requested, environment, expected, monkeypatch):
    for name in ("OMP_NUM_THREADS", "ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert resolve_num_threads(requested, torch.device("cpu")) == expected
    if not requested:
        assert resolve_num_threads(requested, torch.device("cuda")) == 5
