"""Checkpoints `step-N.safetensors`: one file of tensors with its state as JSON in the header, whole or not there."""

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..fileio import atomic_write, remove_stale_parts

FORMAT = "srgan-hub checkpoint 2"
# Kept free beyond the checkpoint itself, for the header and the file system.
MARGIN = 2**20

Tensors = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message says why and what still stands."""


def save(folder: Path, step: int, parts: dict[str, Tensors], state: dict[str, Any]) -> Path:
    """Write `folder/step-N.safetensors` aside, flush it to the disk and rename it.

    A crash leaves the older checkpoints and at most a hidden file, which the next save removes.

    Args:
        folder: where checkpoints lie; it is made.
        step: N.
        parts: tensors by name, for each part; on any device, of any memory format.
        state: JSON-able; `step` is added.

    Raises:
        CheckpointError: the disk is full or cannot be written; older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(folder)
    path = folder / f"step-{step}.safetensors"
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    needed = MARGIN + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(_failed(folder, step, f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"))
    metadata = {"format": FORMAT, "state": json.dumps({"step": step, **state})}
    try:
        with atomic_write(path, fsync=True) as tmp_path:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, tmp_path, metadata)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        raise CheckpointError(_failed(folder, step, "the disk is full" if full else str(error))) from error
    return path


def load(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Read what `save` wrote: the parts, on the CPU, and the state. CheckpointError if it is not whole."""
    parts: dict[str, Tensors] = {}
    try:
        with safe_open(path, framework="pt") as file:  # this compares the file's size with what its header promises
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"Expected {path} of format {FORMAT!r}, got {metadata.get('format')!r}.")
            for name in file.keys():  # noqa: SIM118  # it is no dict
                part, _, key = name.partition("/")
                parts.setdefault(part, {})[key] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {error}.") from error
    return parts, json.loads(metadata["state"])


def find(folder: Path) -> list[Path]:
    """List the whole checkpoints in a folder, oldest first."""
    found = []
    for path in folder.glob("step-*.safetensors"):
        if re.fullmatch(r"step-\d+", path.stem):
            try:
                with safe_open(path, framework="pt"):
                    found.append(path)
            except (OSError, SafetensorError):
                continue  # half written by something else, such as an interrupted copy
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for path in find(folder)[:-keep]:
        path.unlink()


def restore(network: nn.Module, tensors: Tensors) -> None:
    """Copy tensors into a network with exactly their names and shapes. CheckpointError if they are not its own."""
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CheckpointError(f"The checkpoint is of another network: {lines[-1].strip()}.") from error


def optimizer_tensors(optimizer: Optimizer) -> Tensors:
    """Name an optimizer's state: `0.exp_avg` is that of its first parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Tensors) -> None:
    """Put back what `optimizer_tensors` named, in the parameters' memory format."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        like = parameters[int(number)]
        if tensor.shape == like.shape:  # load_state_dict keeps the file's format, and a foreign one is slow
            tensor = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _failed(folder: Path, step: int, reason: str) -> str:
    found = find(folder)
    stands = f"{found[-1].stem} still stands" if found else "there is no older one"
    return f"Cannot save step {step} in {folder}: {reason}; {stands}."
