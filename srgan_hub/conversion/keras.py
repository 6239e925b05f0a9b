"""Convert krasserm/super-resolution Keras weights."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..hub import ModelLoadError, shorten_error
from ..model import SRGAN

KERAS_EPSILON = 1e-3
# Tensors of each type of Keras layer.
LAYERS = {
    "conv2d": {"kernel", "bias"},
    "batch_normalization": {"gamma", "beta", "moving_mean", "moving_variance"},
    "p_re_lu": {"alpha"},
}
TENSORLAYER = "its SRGAN has 3x3 and 1x1 convolutions at both ends and ReLU, which this package does not support"
Layer = dict[str, Tensor]


def convert_krasserm(source: Path) -> SRGAN:
    """Build the model from a Keras file. Raise ModelLoadError if it is not an SRGAN generator of krasserm."""
    layers = _read_keras(source)
    convs, norms, slopes = layers["conv2d"], layers["batch_normalization"], layers["p_re_lu"]
    num_blocks = (len(norms) - 1) // 2
    num_stages = len(convs) - 2 * num_blocks - 3
    if num_blocks < 1 or num_stages not in (1, 2) or len(slopes) != num_blocks + 1 + num_stages:
        counts = f"{len(convs)} convolutions, {len(norms)} batch norms and {len(slopes)} PReLUs"
        raise ModelLoadError(f"'{source}' is not an SRGAN generator of krasserm: it has {counts}.")
    channels = convs[0]["kernel"].shape[-1]
    factor = round((convs[-2]["kernel"].shape[-1] / channels) ** 0.5)
    model = SRGAN(scale=factor**num_stages, channels=channels, num_blocks=num_blocks)
    # Both networks have the same layers of each type in the same order.
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
                raise ModelLoadError(f"'{source}': cannot convert {name}: {shorten_error(error)}.") from error
    return model.eval()


def _read_keras(source: Path) -> dict[str, list[Layer]]:
    """Return the layers by type, in numeric order: conv2d, conv2d_1, ..., conv2d_10."""
    try:
        import h5py
    except ImportError as error:
        raise ModelLoadError(f"'{source}': Keras files require h5py: pip install 'srgan-hub[convert]'.") from error

    found: dict[str, dict[int, Layer]] = {layer_type: {} for layer_type in LAYERS}
    others: list[str] = []

    def visit(path: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        match = re.fullmatch(r"(\w+?)(?:_v1)?(?:_(\d+))?/.*?(\w+):0", path)
        if match and match[3] in LAYERS.get(match[1], ()):
            layer = found[match[1]].setdefault(int(match[2] or 0), {})
            layer[match[3]] = torch.from_numpy(np.asarray(item, dtype=np.float32))
        else:
            others.append(path)

    try:
        with h5py.File(source, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise ModelLoadError(f"'{source}': cannot read HDF5: {error}.") from error
    if any(path.endswith("/filters:0") for path in others):
        raise ModelLoadError(f"'{source}' is a tensorlayer file: {TENSORLAYER}.")
    for layer_type, layers in found.items():
        for number, layer in layers.items():
            if missing := LAYERS[layer_type] - layer.keys():
                others.append(f"{layer_type} {number} without {', '.join(sorted(missing))}")
    if others:
        also = ", ".join(others[:4])
        raise ModelLoadError(f"'{source}' is not an SRGAN generator of krasserm: it also holds {also}.")
    return {layer_type: [layers[number] for number in sorted(layers)] for layer_type, layers in found.items()}


def _to_torch(module: nn.Module, keras: Layer) -> Layer:
    if isinstance(module, nn.Conv2d):
        return {"weight": keras["kernel"].permute(3, 2, 0, 1), "bias": keras["bias"]}
    if isinstance(module, nn.PReLU):
        return {"weight": keras["alpha"].flatten()}
    assert isinstance(module, nn.BatchNorm2d)
    var = keras["moving_variance"] + (KERAS_EPSILON - module.eps)
    return {"weight": keras["gamma"], "bias": keras["beta"], "running_mean": keras["moving_mean"], "running_var": var}


def _reorder_for_shuffle(tensor: Tensor, factor: int) -> Tensor:
    """Reorder channels from (row, column, channel) of depth_to_space to (channel, row, column) of PixelShuffle."""
    return tensor.unflatten(0, (factor**2, -1)).transpose(0, 1).flatten(0, 1)
