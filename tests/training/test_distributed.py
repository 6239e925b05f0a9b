import os

import pytest
import torch

from srgan_hub.training.distributed import choose_threads


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
    assert choose_threads(given, torch.device("cpu")) == expected
    if not given:
        assert choose_threads(given, torch.device("cuda")) == 5
