"""A switch of the process that threads share."""

import threading
import time

import pytest
import torch

from srgan_hub.devices import exact_float32


@pytest.mark.parametrize("before", [True, False])
def test_tensor_float_32_is_off_while_any_thread_computes_and_then_as_before(monkeypatch, before):
    while exact_float32.inside:  # a run of the demo that another test has left
        time.sleep(0.05)
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
