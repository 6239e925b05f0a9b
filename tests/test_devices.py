"""A switch of the process that threads share, and how many threads compute."""

import os
import threading
from types import SimpleNamespace

import pytest
import torch

from srgan_hub.devices import _ExactFloat32, exact_float32, resolve_num_threads


def test_the_switch_is_that_of_cuda_convolutions():
    assert exact_float32.backend is torch.backends.cudnn


@pytest.mark.parametrize("before", [True, False])
def test_tensor_float_32_is_off_while_any_thread_computes_and_then_as_before(before):
    backend = SimpleNamespace(allow_tf32=before)
    switch = _ExactFloat32(backend)  # its own: runs of the demo that other tests have left use the process's
    entered, leave, seen = threading.Event(), threading.Event(), []

    def compute():
        with switch:
            entered.set()
            leave.wait(10)
            seen.append(backend.allow_tf32)

    other = threading.Thread(target=compute)
    with switch:
        other.start()
        assert entered.wait(10) and not backend.allow_tf32
    assert not backend.allow_tf32  # the other thread is still at it
    leave.set()
    other.join()
    assert seen == [False] and backend.allow_tf32 is before


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 6),  # what accelerate launch sets
        (None, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no", "LOCAL_WORLD_SIZE": "2"}, 3),
        (None, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no", "LOCAL_WORLD_SIZE": "8"}, 1),
        (None, {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 3),  # and torchrun
        (2, {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 2),
        (None, {"OMP_NUM_THREADS": "5", "ACCELERATE_MIXED_PRECISION": "no"}, 5),
        (None, {"OMP_NUM_THREADS": "1"}, 5),
    ],
)
def test_all_cores_are_used_unless_it_is_told_otherwise(given, environment, expected, monkeypatch):
    for name in ("OMP_NUM_THREADS", "ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert resolve_num_threads(given, torch.device("cpu")) == expected
    if not given:
        assert resolve_num_threads(given, torch.device("cuda")) == 5
