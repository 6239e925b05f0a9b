"""Save and load training checkpoints (safetensors)."""

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from ..fileio import atomic_write, remove_stale_parts

FORMAT = "srgan-hub checkpoint 4"
MARGIN = 2**20  # bytes of disk space for the header and the file system

Tensors = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read."""


def save(directory: Path, step: int, parts: dict[str, Tensors], state: dict[str, Any]) -> Path:
    """Write `directory/step-N.safetensors`: tensors of each network and optimizer, and the state as JSON in the header.

    The file is flushed to disk before it is renamed into place. A crash leaves the older checkpoints and at most a
    hidden temporary file, which the next save removes. Raise CheckpointError if the disk is full or cannot be written.
    """
    path = directory / f"step-{step}.safetensors"
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    needed = MARGIN + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    metadata = {"format": FORMAT, "state": json.dumps({"step": step, **state})}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(directory)
        if (free := shutil.disk_usage(directory).free) < needed:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free on the disk")
        with atomic_write(path, fsync=True) as tmp_path:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, tmp_path, metadata)
    except (OSError, SafetensorError) as error:
        found = find(directory)
        latest = f"the latest checkpoint is '{found[-1]}'" if found else "there is no older checkpoint"
        raise CheckpointError(f"'{path}': cannot save the checkpoint: {error}; {latest}.") from error
    return path


def load(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Return the parts, on the CPU, and the state that `save` wrote. Raise CheckpointError for any other file."""
    parts: dict[str, Tensors] = {}
    try:
        with safe_open(path, framework="pt") as file:  # raises if the file is shorter than its header states
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"'{path}' has the format {metadata.get('format')!r}, expected {FORMAT!r}.")
            for name in file.keys():  # noqa: SIM118  # not a dict
                part, _, key = name.partition("/")
                parts.setdefault(part, {})[key] = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' is not a complete checkpoint: {error}.") from error
    return parts, json.loads(metadata["state"])


def find(directory: Path) -> list[Path]:
    """List the complete checkpoints in a directory, oldest first."""
    found = []
    for path in directory.glob("step-*.safetensors"):
        if re.fullmatch(r"step-\d+", path.stem):
            try:
                with safe_open(path, framework="pt"):
                    found.append(path)
            except (OSError, SafetensorError):
                continue  # partial, from an interrupted copy
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def prune(directory: Path, limit: int) -> None:
    """Remove all but the newest `limit` checkpoints."""
    for path in find(directory)[:-limit]:
        path.unlink()


def optimizer_tensors(optimizer: Optimizer) -> Tensors:
    """Flatten the state of an optimizer: `0.exp_avg` belongs to its first parameter."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Tensors) -> None:
    """Load the state that `optimizer_tensors` flattened, in the parameters' memory format."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape:  # load_state_dict would keep the contiguous format, which is slower
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
