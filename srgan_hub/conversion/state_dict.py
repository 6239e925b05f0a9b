"""Load state dicts from PyTorch checkpoint files without executing pickled code."""

import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ..hub import ModelLoadError, shorten_error
from .keras import TENSORLAYER

# Keys of the weights in checkpoints, by priority.
WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict", "generator", "model")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


def read_state(source: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint. Raise ModelLoadError if it cannot be read or holds code."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            members = archive.namelist()
        if any(name.endswith(".npy") for name in members):
            raise ModelLoadError(f"'{source}' is a NumPy archive of tensorlayer: {TENSORLAYER}.")
        if any(name.endswith("constants.pkl") for name in members):
            raise ModelLoadError(f"'{source}' is a TorchScript program; convert its state_dict() instead.")
    try:
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelLoadError(f"'{source}': cannot convert: {_explain(str(error))}.") from error
    # torch.load raises any of these, depending on the first bytes.
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"'{source}': cannot read as a PyTorch checkpoint: {shorten_error(error)}.") from error
    state = _unwrap(checkpoint)
    if not state:
        found = f"keys {', '.join(map(str, list(checkpoint)[:6]))}" if isinstance(checkpoint, dict) else "no dict"
        raise ModelLoadError(f"'{source}' must hold a state dict of tensors, got {found}.")
    return state


def _unwrap(checkpoint: object) -> dict[str, Tensor]:
    if not isinstance(checkpoint, dict):
        return {}
    wrapped = next((checkpoint[name] for name in WRAPPERS if isinstance(checkpoint.get(name), dict)), checkpoint)
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in wrapped.items()):
        return {}
    state = dict(wrapped)
    for prefix in (*PREFIXES, *PREFIXES):
        if state and all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state


def _explain(message: str) -> str:
    found = re.search(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", message)
    if not found:
        return f"its pickle holds more than tensors ({message.strip().splitlines()[0]})"
    return f"loading its object of class {found[1]} could run code from the file; save `model.state_dict()` instead"
