"""Convert Lornatang and leftthomas PyTorch checkpoints.

A layout maps layer names of the project to ours. Other differences are expressed exactly: a PReLU with a single slope
repeats it for every channel, a convolution without bias has a bias of zero, tanh becomes a sigmoid of twice the last
convolution, and a clamp, or a PReLU at the end of the trunk, is an option of the model.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from ..hub import ModelLoadError, shorten_error
from ..model import SRGAN

State = dict[str, Tensor]

# Unsupported architectures: pattern of a tensor name, architecture and reason.
UNSUPPORTED = (
    (
        r"(^|\.)(RRDB_trunk|body)\.\d+\.(RDB|rdb)\d\.|^model\.1\.sub\.\d+\.RDB\d\.",
        "ESRGAN (RRDB): its blocks are dense and have no batch norm; use spandrel",
    ),
    (
        r"^(recon_trunk|body)\.\d+\.conv1\.weight$|^model\.1\.sub\.\d+\.res\.\d",
        "MSRResNet (SRResNet of BasicSR): it has no batch norm and adds the upscaled input to its output",
    ),
    (
        r"^conv3\.0\.weight$",
        "an early network of Lornatang/SRGAN-PyTorch (2020, 2021): its output range is unknown; use one since 2022",
    ),
    (r"^(features|net|main)\.0\.weight$", "a discriminator: convert the generator instead"),
)


def convert_state(state: State, source: Path) -> tuple[str, SRGAN]:
    """Return the project that a state dict comes from, and the model built from it.

    Raise ModelLoadError if the project or architecture is not supported, or tensors are missing.
    """
    if "trunk.0.rcb.0.weight" in state:
        return "lornatang", _convert_lornatang(state, source)
    if "block1.0.weight" in state and "block2.conv1.weight" in state:
        return "leftthomas", _convert_leftthomas(state, source)
    for pattern, reason in UNSUPPORTED:
        if any(re.search(pattern, key) for key in state):
            raise ModelLoadError(f"'{source}': cannot convert {reason}.")
    names = ", ".join(list(state)[:4])
    raise ModelLoadError(
        f"'{source}' is not a checkpoint of krasserm, Lornatang or leftthomas; its tensors are {names}, ..."
    )


def _convert_lornatang(state: State, source: Path) -> SRGAN:
    """Convert https://github.com/Lornatang/SRGAN-PyTorch: Generator (2022) or SRResNet (2023)."""
    conv = "conv_block" if "conv_block1.0.weight" in state else "conv"
    num_blocks = _count(state, r"trunk\.(\d+)\.rcb\.0\.weight")
    num_stages = _count(state, r"upsampling\.(\d+)\.upsample_block\.0\.weight")
    layout = {f"{conv}1.0": "head_conv", f"{conv}1.1": "head_act", f"{conv}3": "tail_conv"}
    layout |= {f"{conv}2.0": "trunk.conv", f"{conv}2.1": "trunk.bn"}
    for i in range(num_blocks):
        for position, ours in enumerate(("conv1", "bn1", "act", "conv2", "bn2")):
            layout[f"trunk.{i}.rcb.{position}"] = f"trunk.block{i}.{ours}"
    for i in range(num_stages):
        stage = f"upsampling.{i}.upsample_block"
        layout |= {f"{stage}.0": f"up{i}_conv", f"{stage}.2": f"up{i}_act"}
    renamed = _rename(state, layout)
    zeros = torch.zeros(renamed["trunk.block0.conv1.weight"].shape[:1])
    biases = {f"{ours}.bias": zeros for ours in layout.values() if re.match(r"trunk\..*conv", ours)}
    return _build(biases | renamed, source, num_blocks=num_blocks, num_stages=num_stages, output_activation="clamp")


def _convert_leftthomas(state: State, source: Path) -> SRGAN:
    """Convert https://github.com/leftthomas/SRGAN; older weights have a PReLU in place of the last batch norm."""
    num_blocks = _count(state, r"block(\d+)\.conv1\.weight")
    end, tail = f"block{num_blocks + 2}", f"block{num_blocks + 3}"
    num_stages = _count(state, rf"{tail}\.(\d+)\.conv\.weight")
    trunk_end = "batchnorm" if f"{end}.1.running_mean" in state else "prelu"
    layout = {"block1.0": "head_conv", "block1.1": "head_act", f"{tail}.{num_stages}": "tail_conv"}
    layout |= {f"{end}.0": "trunk.conv", f"{end}.1": "trunk.bn" if trunk_end == "batchnorm" else "trunk.act"}
    for i in range(num_blocks):
        for theirs, ours in (("conv1", "conv1"), ("bn1", "bn1"), ("prelu", "act"), ("conv2", "conv2"), ("bn2", "bn2")):
            layout[f"block{i + 2}.{theirs}"] = f"trunk.block{i}.{ours}"
    for i in range(num_stages):
        layout |= {f"{tail}.{i}.conv": f"up{i}_conv", f"{tail}.{i}.prelu": f"up{i}_act"}
    renamed = _rename(state, layout)
    # (tanh(z) + 1) / 2 = sigmoid(2 z)
    doubled = {name: 2 * tensor for name, tensor in renamed.items() if name.startswith("tail_conv.")}
    return _build(renamed | doubled, source, num_blocks=num_blocks, num_stages=num_stages, trunk_end=trunk_end)


def _count(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _rename(state: State, layout: dict[str, str]) -> State:
    """Rename layers by the layout; other layers keep their names."""
    split = {name: name.rpartition(".") for name in state}
    return {f"{layout.get(layer, layer)}.{kind}": state[name] for name, (layer, _, kind) in split.items()}


def _build(state: State, source: Path, *, num_blocks: int, num_stages: int, **options: str) -> SRGAN:
    """Build the model from renamed tensors. Raise ModelLoadError for missing, unexpected or misshapen ones."""
    channels = state["trunk.block0.conv1.weight"].shape[:1].numel()
    single = {name: value for name, value in state.items() if name.endswith("act.weight") and value.numel() == 1}
    try:
        model = SRGAN(scale=2**num_stages, channels=channels, num_blocks=num_blocks, **options)
        model.generator.load_state_dict(state | {name: value.expand(channels) for name, value in single.items()})
    except (ValueError, RuntimeError) as error:
        raise ModelLoadError(f"'{source}': cannot convert: {shorten_error(error)}.") from error
    return model.eval()
