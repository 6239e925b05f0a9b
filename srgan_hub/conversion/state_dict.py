"""State dicts out of PyTorch's checkpoint files, without running any code that a pickle may hold."""

import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ..hub import ModelLoadError, shorten_error
from .keras import TENSORLAYER

# Where training scripts put the weights beside other things; the first one found wins.
WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict", "generator", "model")
# What DataParallel and torch.compile put in front of names.
PREFIXES = ("module.", "_orig_mod.")


def read_state(source: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name; optimizer state and the like beside them is left out.

    Raises:
        ModelLoadError: the file is no checkpoint of tensors; the message says what it is.
    """
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            members = archive.namelist()
        if any(name.endswith(".npy") for name in members):
            raise ModelLoadError(f"{source} is a NumPy archive, as tensorlayer writes it: {TENSORLAYER}.")
        if any(name.endswith("constants.pkl") for name in members):
            raise ModelLoadError(
                f"{source} is a TorchScript program, not weights; save its state_dict() and convert that."
            )
    try:
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelLoadError(f"{source} is not converted: {_explain(str(error))}.") from error
    # Which error a file that is no checkpoint causes depends on its first bytes.
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{source} cannot be read as a PyTorch checkpoint: {shorten_error(error)}.") from error
    state = _unwrap(checkpoint)
    if not state:
        kind = f"the entries {', '.join(map(str, list(checkpoint)[:6]))}" if isinstance(checkpoint, dict) else "no dict"
        raise ModelLoadError(f"{source}: expected a state dict of tensors by name, got {kind or 'an empty one'}.")
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
    found = re.search(r"GLOBAL ([\w.]+)|[Uu]nsupported class ([\w.]+)", message)
    name = (found[1] or found[2]) if found else ""
    if not name:
        return f"its pickle holds more than tensors ({message.strip().splitlines()[0]})"
    what = "it is a whole pickled module, or holds" if name[0].islower() else "its pickle holds"
    return (
        f"{what} an object of class {name}, and unpickling that would run code from the file; where it can be trusted, "
        "load it in the project that it comes from, save `model.state_dict()` by torch.save, and convert that file"
    )
