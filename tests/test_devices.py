"""A switch of the process that threads share."""

import threading
from types import SimpleNamespace

import pytest
import torch

from srgan_hub.devices import _ExactFloat32, exact_float32


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
