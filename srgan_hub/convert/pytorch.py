"""Generators of other PyTorch projects, recognised by the names of their tensors.

A layout maps our names of layers to the project's. What differs besides names is expressed exactly:
a PReLU with one slope repeats it for every channel, a convolution without bias has a bias of zero, tanh becomes a
sigmoid of twice the last convolution, and a clamp, or a PReLU at the trunk's end, is an option of the model.
"""

import re
from collections.abc import Set
from pathlib import Path

import torch
from torch import Tensor, nn

from ..hub import ModelError
from ..model import SRGAN

State = dict[str, Tensor]

# Other architectures by a name that only they have, and why they cannot be converted.
REFUSED = (
    (
        r"(^|\.)(RRDB_trunk|body)\.\d+\.(RDB|rdb)\d\.|^model\.1\.sub\.\d+\.RDB\d\.",
        "ESRGAN (RRDB)",
        "its blocks are dense and have no batch norm; spandrel loads it",
    ),
    (
        r"^(recon_trunk|body)\.\d+\.conv1\.weight$|^model\.1\.sub\.\d+\.res\.\d",
        "MSRResNet (SRResNet of BasicSR)",
        "it has no batch norm, 3x3 convolutions at the ends, and adds the enlarged input to its output",
    ),
    (
        r"^conv3\.0\.weight$",
        "an early network of Lornatang/SRGAN-PyTorch (2020, 2021)",
        "it ends in tanh, and its code changed how levels are scaled, while the weights do not say which applies; "
        "those of 2022 and later (.pth.tar) can be converted",
    ),
    (r"^(features|net|main)\.0\.weight$", "a discriminator", "convert the generator, which lies beside it"),
)


def convert_state(state: State, source: Path) -> tuple[str, SRGAN]:
    """Build the model of a state dict and name the project that it comes from.

    Raises:
        ModelError: it is of no known project, of another architecture, or not complete.
    """
    if "trunk.0.rcb.0.weight" in state:
        return "lornatang", _convert_lornatang(state, source)
    if "block1.0.weight" in state and "block2.conv1.weight" in state:
        return "leftthomas", _convert_leftthomas(state, source)
    for pattern, name, reason in REFUSED:
        if any(re.search(pattern, key) for key in state):
            raise ModelError(f"{source} cannot be converted: it is {name}; {reason}")
    raise ModelError(
        f"{source} is of no known project: its tensors are {', '.join(list(state)[:4])}, ...; known are the SRGAN "
        "generators of krasserm, Lornatang and leftthomas"
    )


def _convert_lornatang(state: State, source: Path) -> SRGAN:
    """Convert https://github.com/Lornatang/SRGAN-PyTorch, its Generator of 2022 and SRResNet of 2023."""
    conv = "conv_block" if "conv_block1.0.weight" in state else "conv"
    num_blocks = _count(state, r"trunk\.(\d+)\.rcb\.0\.weight")
    num_stages = _count(state, r"upsampling\.(\d+)\.upsample_block\.0\.weight")
    layout = {"head_conv": f"{conv}1.0", "head_act": f"{conv}1.1", "tail_conv": f"{conv}3"}
    layout |= {"trunk.conv": f"{conv}2.0", "trunk.bn": f"{conv}2.1"}
    for i in range(num_blocks):
        for position, layer in enumerate(("conv1", "bn1", "act", "conv2", "bn2")):
            layout[f"trunk.block{i}.{layer}"] = f"trunk.{i}.rcb.{position}"
    for i in range(num_stages):
        stage = f"upsampling.{i}.upsample_block"
        layout |= {f"up{i}_conv": f"{stage}.0", f"up{i}_act": f"{stage}.2"}
    model = _build(state, source, layout, num_blocks=num_blocks, num_stages=num_stages, output="clamp")
    without_bias = {theirs for ours, theirs in layout.items() if re.search(r"^trunk\..*conv", ours)}
    _fill(model, state, source, layout, without_bias=without_bias)
    return model


def _convert_leftthomas(state: State, source: Path) -> SRGAN:
    """Convert https://github.com/leftthomas/SRGAN; the weights in its repository are older than its last batch norm."""
    num_blocks = _count(state, r"block(\d+)\.conv1\.weight")
    end, tail = f"block{num_blocks + 2}", f"block{num_blocks + 3}"
    num_stages = _count(state, rf"{tail}\.(\d+)\.conv\.weight")
    trunk_end = "batchnorm" if f"{end}.1.running_mean" in state else "prelu"
    layout = {"head_conv": "block1.0", "head_act": "block1.1", "tail_conv": f"{tail}.{num_stages}"}
    layout |= {"trunk.conv": f"{end}.0", "trunk.bn" if trunk_end == "batchnorm" else "trunk.act": f"{end}.1"}
    for i in range(num_blocks):
        for ours, theirs in (("conv1", "conv1"), ("bn1", "bn1"), ("act", "prelu"), ("conv2", "conv2"), ("bn2", "bn2")):
            layout[f"trunk.block{i}.{ours}"] = f"block{i + 2}.{theirs}"
    for i in range(num_stages):
        layout |= {f"up{i}_conv": f"{tail}.{i}.conv", f"up{i}_act": f"{tail}.{i}.prelu"}
    model = _build(state, source, layout, num_blocks=num_blocks, num_stages=num_stages, trunk_end=trunk_end)
    # (tanh(z) + 1) / 2 = sigmoid(2 z)
    doubled = {
        name: 2 * tensor if name.startswith(f"{layout['tail_conv']}.") else tensor for name, tensor in state.items()
    }
    _fill(model, doubled, source, layout)
    return model


def _count(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _build(
    state: State, source: Path, layout: dict[str, str], *, num_blocks: int, num_stages: int, **options: str
) -> SRGAN:
    if num_stages not in (1, 2):
        raise ModelError(
            f"{source} cannot be converted: it has {num_stages} stages and enlarges {2**num_stages} times, "
            "this package's generator 2, 3 or 4 times"
        )
    factors = state.get(f"{layout['trunk.block0.bn1']}.weight", torch.empty(0))
    if not factors.numel():
        raise ModelError(f"{source} cannot be converted: {layout['trunk.block0.bn1']}.weight is missing")
    return SRGAN(scale=2**num_stages, channels=factors.numel(), num_blocks=num_blocks, **options).eval()


def _fill(
    model: SRGAN, state: State, source: Path, layout: dict[str, str], without_bias: Set[str] = frozenset()
) -> None:
    """Load every tensor of a state dict into the model; one too many, too few or of another shape is an error."""
    unused, missing = dict(state), []
    filled = model.generator.state_dict()
    for ours, expected in filled.items():
        layer, _, kind = ours.rpartition(".")
        theirs = f"{layout[layer]}.{kind}"
        tensor = unused.pop(theirs, None)
        # PyTorch before 0.4.1 did not count batches, and nothing depends on their number.
        if tensor is None and (kind == "num_batches_tracked" or (kind == "bias" and layout[layer] in without_bias)):
            tensor = torch.zeros_like(expected)
        if tensor is None:
            missing.append(theirs)
            continue
        if isinstance(model.generator.get_submodule(layer), nn.PReLU) and tensor.numel() == 1:
            tensor = tensor.expand(expected.shape)
        if tensor.shape != expected.shape:
            shapes = f"has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}"
            raise ModelError(f"{source} cannot be converted: {theirs} {shapes}")
        filled[ours] = tensor.to(expected.dtype)
    found = ((missing, "is missing"), (list(unused), "is left over"))
    problems = [f"{', '.join(names[:4])} {verdict}" for names, verdict in found if names]
    if problems:
        raise ModelError(f"{source} cannot be converted: {'; '.join(problems)}")
    model.generator.load_state_dict(filled)
