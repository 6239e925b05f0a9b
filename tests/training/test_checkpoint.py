import errno
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from srgan_hub import fileio
from srgan_hub.training import checkpoint
from srgan_hub.training.checkpoint import CheckpointError


def make_parts(step: int) -> dict[str, dict[str, torch.Tensor]]:
    tensors = {
        "a": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last),
        "b": torch.randn(5).bfloat16(),
        "c": torch.tensor(step),
    }
    return {"generator": tensors, "ema": {"d": torch.randn(2)}}


def names(directory):
    return sorted(path.stem for path in directory.iterdir())


def test_round_trip_is_bit_identical(tmp_path):
    parts = make_parts(7)
    path = checkpoint.save(tmp_path, 7, parts, {"best": 0.1})
    assert [path] == list(tmp_path.iterdir()) == [tmp_path / "step-7.safetensors"]
    loaded, state = checkpoint.load(path)
    assert state["step"] == 7 and state["best"] == 0.1
    assert loaded.keys() == parts.keys()
    for name, tensors in parts.items():
        for key, tensor in tensors.items():
            assert loaded[name][key].dtype == tensor.dtype and torch.equal(loaded[name][key], tensor)


def test_partial_checkpoints_are_ignored(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, make_parts(step), {})
    assert [path.stem for path in checkpoint.find(tmp_path)] == ["step-1", "step-2", "step-10"]
    file = tmp_path / "step-10.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    (tmp_path / "step-2.safetensors").write_bytes(b"{")
    (tmp_path / ".step-3.safetensors.0123456789abcdef.part").write_bytes(b"half")
    (tmp_path / "step-4.safetensors").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "step-x.safetensors")
    assert [path.stem for path in checkpoint.find(tmp_path)] == ["step-1"]
    checkpoint.save(tmp_path, 3, make_parts(3), {})
    assert not list(tmp_path.glob(".*"))
    for name, message in (("10", "not a complete checkpoint"), ("5", "not a complete checkpoint"), ("x", "format")):
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load(tmp_path / f"step-{name}.safetensors")


def test_prune_keeps_the_newest(tmp_path):
    for step in (1, 2, 10, 11):
        checkpoint.save(tmp_path, step, make_parts(step), {})
    checkpoint.prune(tmp_path, 2)
    assert names(tmp_path) == ["step-10", "step-11"]


def test_full_disk_is_found_before_writing(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, make_parts(1), {})
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(checkpoint.MARGIN + 100))
    with pytest.raises(CheckpointError, match=r"step-2.* needed, .* free.*step-1\."):
        checkpoint.save(tmp_path, 2, make_parts(2), {})
    assert names(tmp_path) == ["step-1"]
    checkpoint.load(tmp_path / "step-1.safetensors")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left")])
def test_disk_that_fills_up_leaves_the_older_checkpoint(tmp_path, monkeypatch, error):
    checkpoint.save(tmp_path, 1, make_parts(1), {})

    def fill_up(tensors, file, metadata):
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fill_up)
    with pytest.raises(CheckpointError, match=r"No space left.*step-1\."):
        checkpoint.save(tmp_path, 2, make_parts(2), {})
    assert names(tmp_path) == ["step-1"]


def test_restored_optimizer_continues_bit_identical():
    def train(steps: int, optimizer, network) -> torch.Tensor:
        for step in range(steps):
            x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            network(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return network.weight.detach().clone()

    def make():
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return network, torch.optim.Adam(network.parameters(), lr=0.1, betas=(0.9, 0.99))

    network, optimizer = make()
    train(3, optimizer, network)
    moments = checkpoint.optimizer_tensors(optimizer)
    assert moments.keys() == {f"{i}.{key}" for i in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    moments = {name: tensor.clone().contiguous() for name, tensor in moments.items()}
    other, restored = make()
    other.load_state_dict({name: tensor.clone() for name, tensor in network.state_dict().items()})
    checkpoint.restore_optimizer(restored, moments)
    average = restored.state[other.weight]["exp_avg"]
    assert average.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(train(3, restored, other), train(3, optimizer, network))


def test_checkpoint_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(fileio, "_fsync", lambda path: flushed.append((path, checkpoint.find(tmp_path))))
    path = checkpoint.save(tmp_path, 1, make_parts(1), {})
    assert [(each.parent, found) for each, found in flushed] == [(tmp_path, []), (tmp_path.parent, [path])]
