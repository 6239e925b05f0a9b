"""Checkpoints ``step-N/`` of safetensors and JSON alone: whole or not there at all."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

STATE = "state.json"
FORMAT = 1
# Kept free beyond the checkpoint itself, for headers, JSON and the file system.
MARGIN = 2**20

Tensors = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; the message says why and what still stands."""


def save(folder: Path, step: int, parts: dict[str, Tensors], state: dict[str, Any]) -> Path:
    """Write ``folder/step-N``: one safetensors file per part, and the state as JSON.

    Everything is written aside, flushed to the disk and renamed, so that a crash leaves the older checkpoints and at
    most a hidden folder, which the next save removes.

    Args:
        folder: where checkpoints lie; it is made.
        step: N.
        parts: tensors by name, for each file; on any device, of any memory format.
        state: JSON-able; ``step`` and the files' sizes are added.

    Raises:
        CheckpointError: the disk is full or cannot be written; older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_remains(folder)
    final, partial = folder / f"step-{step}", folder / f".step-{step}.partial"
    needed = MARGIN + sum(t.numel() * t.element_size() for tensors in parts.values() for t in tensors.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(_full(folder, step, f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"))
    try:
        partial.mkdir()
        for name, tensors in parts.items():
            save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, partial / _file(name))
        sizes = {_file(name): (partial / _file(name)).stat().st_size for name in parts}
        whole = {"format": FORMAT, "step": step, "files": sizes, **state}
        (partial / STATE).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        for file in partial.iterdir():
            flush(file)
        flush(partial)
        if final.exists():  # of an earlier run that was resumed from before it
            shutil.rmtree(final)
        partial.rename(final)
        flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        raise CheckpointError(_full(folder, step, "the disk is full" if full else str(error))) from error
    return final


def load(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Read what :func:`save` wrote: the parts, on the CPU, and the state. CheckpointError if it is not whole."""
    try:
        state = read_state(path)
        return {Path(file).stem: load_file(path / file) for file in state["files"]}, state
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint's JSON, and check that its files are there in full. CheckpointError if not."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise CheckpointError(f"{path} is of format {state['format']}, expected {FORMAT}")
        short = [name for name, size in state["files"].items() if (path / name).stat().st_size != size]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {error}") from error
    if short:
        raise CheckpointError(f"{path} is no whole checkpoint: {', '.join(short)} is cut short")
    return state


def find(folder: Path) -> list[Path]:
    """List the whole checkpoints in a folder, oldest first."""
    found = []
    for path in folder.glob("step-*") if folder.is_dir() else ():
        if re.fullmatch(r"step-\d+", path.name):
            try:
                read_state(path)
            except CheckpointError:
                continue  # half written by something else, such as an interrupted copy
            found.append(path)
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints."""
    for path in find(folder)[:-keep]:
        # Hidden first: a removal that is interrupted must not leave half a checkpoint by its name.
        hidden = path.with_name(f".{path.name}.partial")
        path.rename(hidden)
        shutil.rmtree(hidden)


def remove_remains(folder: Path) -> None:
    """Remove what interrupted saves left."""
    for path in folder.glob(".*.partial"):
        shutil.rmtree(path)


def replace(partial: Path, final: Path) -> None:
    """Put a folder that was written aside in the place of an older one, which goes."""
    for file in partial.iterdir():
        flush(file)
    old = final.with_name(f".{final.name}.old.partial")
    if old.exists():
        shutil.rmtree(old)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def restore(network: nn.Module, tensors: Tensors) -> None:
    """Copy tensors into a network with exactly their names and shapes. CheckpointError if they are not its own."""
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CheckpointError(f"the checkpoint is of another network: {lines[-1].strip()}") from error


def optimizer_tensors(optimizer: Optimizer) -> Tensors:
    """Name an optimizer's state: ``0.exp_avg`` is that of its first parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Tensors) -> None:
    """Put back what :func:`optimizer_tensors` named, in the parameters' memory format."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        like = parameters[int(number)]
        if tensor.shape == like.shape:  # load_state_dict keeps the file's format, and a foreign one is slow
            tensor = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _full(folder: Path, step: int, reason: str) -> str:
    found = find(folder)
    stands = f"{found[-1]} still stands" if found else "there is no older one"
    return f"cannot save step {step} in {folder}: {reason}; {stands}"
