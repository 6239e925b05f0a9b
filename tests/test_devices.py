"""What the process does with the memory of tensors, each time in a fresh one, and with a switch that threads share."""

import platform
import subprocess
import sys
import threading

import pytest
import torch

from srgan_hub.devices import exact_float32

FAULTS = """
import resource, torch
from srgan_hub.devices import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    together = [torch.ones(2_500_000) for _ in range(5)]
    del together
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
{}
print([faults() for _ in range(4)][-1])
"""
RESIDENT = """
import torch
from pathlib import Path
from srgan_hub.devices import give_back_memory, keep_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
keep_freed_memory()
before = resident()
large, small = [], []
for _ in range(100):
    large.append(torch.ones(500_000))
    small.append(torch.ones(1000))
del large
{}
print((resident() - before) // 1_000_000)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators need no such help")


def run(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
@glibc
def test_freed_memory_is_kept_for_the_next_tensor():
    # The tensors have 12,207 pages, which mostly come anew each time otherwise; what importing freed has a say in it.
    assert run(FAULTS.format("keep_freed_memory()")) < 122


@pytest.mark.slow
@glibc
def test_memory_is_given_back():
    assert run(RESIDENT.format("")) > 150
    assert run(RESIDENT.format("give_back_memory()")) < 50


@pytest.mark.parametrize("before", [True, False])
def test_tensor_float_32_is_off_while_any_thread_computes_and_then_as_before(monkeypatch, before):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", before)
    entered, leave, seen = threading.Event(), threading.Event(), []

    def compute():
        with exact_float32:
            entered.set()
            leave.wait(10)
            seen.append(cudnn.allow_tf32)

    other = threading.Thread(target=compute)
    with exact_float32:
        other.start()
        assert entered.wait(10) and not cudnn.allow_tf32
    assert not cudnn.allow_tf32  # the other thread is still at it
    leave.set()
    other.join()
    assert seen == [False] and cudnn.allow_tf32 is before
