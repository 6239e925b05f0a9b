"""Checkpoints in the naming of each project, compared with the project's network written with torch functions."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard
from torch import nn

from srgan_hub import SRGAN
from srgan_hub.conversion import convert
from srgan_hub.hub import ModelLoadError
from srgan_hub.network.fusion import fuse

CHANNELS = 5


class Maker:
    """Random tensors with given names."""

    def __init__(self):
        self.state = OrderedDict()
        self.random = torch.Generator().manual_seed(0)

    def draw(self, *shape):
        return torch.randn(shape, generator=self.random)

    def conv(self, name, inside, outside, size, *, bias=True):
        self.state[f"{name}.weight"] = self.draw(outside, inside, size, size) / (inside * size**2) ** 0.5
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.draw(outside)

    def norm(self, name, *, counted=True):
        self.state[f"{name}.weight"] = 1 + 0.3 * self.draw(CHANNELS)
        self.state[f"{name}.bias"] = 0.3 * self.draw(CHANNELS)
        self.state[f"{name}.running_mean"] = 0.3 * self.draw(CHANNELS)
        self.state[f"{name}.running_var"] = 0.5 + self.draw(CHANNELS).abs()
        if counted:
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def slope(self, name):
        self.state[f"{name}.weight"] = 0.3 * self.draw(1)


def make_lornatang(conv="conv_block", *, blocks=2, stages=2, channels_out=4 * CHANNELS):
    make = Maker()
    make.conv(f"{conv}1.0", 3, CHANNELS, 9)
    make.slope(f"{conv}1.1")
    for i in range(blocks):
        make.conv(f"trunk.{i}.rcb.0", CHANNELS, CHANNELS, 3, bias=False)
        make.norm(f"trunk.{i}.rcb.1")
        make.slope(f"trunk.{i}.rcb.2")
        make.conv(f"trunk.{i}.rcb.3", CHANNELS, CHANNELS, 3, bias=False)
        make.norm(f"trunk.{i}.rcb.4")
    make.conv(f"{conv}2.0", CHANNELS, CHANNELS, 3, bias=False)
    make.norm(f"{conv}2.1")
    for i in range(stages):
        make.conv(f"upsampling.{i}.upsample_block.0", CHANNELS, channels_out, 3)
        make.slope(f"upsampling.{i}.upsample_block.2")
    make.conv(f"{conv}3", CHANNELS, 3, 9)
    return make.state


def make_leftthomas(*, end="norm", stages=2, counted=True):
    make = Maker()
    make.conv("block1.0", 3, CHANNELS, 9)
    make.slope("block1.1")
    for i in range(2, 7):
        make.conv(f"block{i}.conv1", CHANNELS, CHANNELS, 3)
        make.norm(f"block{i}.bn1", counted=counted)
        make.slope(f"block{i}.prelu")
        make.conv(f"block{i}.conv2", CHANNELS, CHANNELS, 3)
        make.norm(f"block{i}.bn2", counted=counted)
    make.conv("block7.0", CHANNELS, CHANNELS, 3)
    if end == "norm":
        make.norm("block7.1", counted=counted)
    else:
        make.slope("block7.1")
    for i in range(stages):
        make.conv(f"block8.{i}.conv", CHANNELS, 4 * CHANNELS, 3)
        make.slope(f"block8.{i}.prelu")
    make.conv(f"block8.{stages}", CHANNELS, 3, 9)
    return make.state


class Forward:
    """Layers by name, computed from a state dict in float64."""

    def __init__(self, state):
        self.state = {name: tensor.double() for name, tensor in state.items()}

    def conv(self, x, name):
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(self, x, name):
        mean, var, gamma, beta = (
            self.state[f"{name}.{k}"].view(1, -1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    def prelu(self, x, name):
        return torch.where(x > 0, x, x * self.state[f"{name}.weight"])


def shuffle(x):
    n, c, h, w = x.shape
    return x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def forward_lornatang(state, lr, conv="conv_block", *, blocks=2, stages=2):
    net = Forward(state)
    head = x = net.prelu(net.conv(lr, f"{conv}1.0"), f"{conv}1.1")
    for i in range(blocks):
        inner = net.prelu(net.norm(net.conv(x, f"trunk.{i}.rcb.0"), f"trunk.{i}.rcb.1"), f"trunk.{i}.rcb.2")
        x = x + net.norm(net.conv(inner, f"trunk.{i}.rcb.3"), f"trunk.{i}.rcb.4")
    x = head + net.norm(net.conv(x, f"{conv}2.0"), f"{conv}2.1")
    for i in range(stages):
        x = net.prelu(shuffle(net.conv(x, f"upsampling.{i}.upsample_block.0")), f"upsampling.{i}.upsample_block.2")
    return net.conv(x, f"{conv}3").clamp(0, 1)


def forward_leftthomas(state, lr, *, end="norm", stages=2):
    net = Forward(state)
    head = x = net.prelu(net.conv(lr, "block1.0"), "block1.1")
    for i in range(2, 7):
        inner = net.prelu(net.norm(net.conv(x, f"block{i}.conv1"), f"block{i}.bn1"), f"block{i}.prelu")
        x = x + net.norm(net.conv(inner, f"block{i}.conv2"), f"block{i}.bn2")
    x = head + getattr(net, end)(net.conv(x, "block7.0"), "block7.1")
    for i in range(stages):
        x = net.prelu(shuffle(net.conv(x, f"block8.{i}.conv")), f"block8.{i}.prelu")
    return (torch.tanh(net.conv(x, f"block8.{stages}")) + 1) / 2


LR = torch.rand(2, 3, 7, 6, generator=torch.Generator().manual_seed(1))


def check(model, expected):
    with torch.no_grad():
        torch.testing.assert_close(model(LR).double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(fuse(model.generator)(LR).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("conv", "stages"), [("conv_block", 2), ("conv", 2), ("conv", 1)])
def test_lornatang(tmp_path, conv, stages):
    state = make_lornatang(conv, stages=stages)
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    source = tmp_path / "g_best.pth.tar"
    checkpoint = {"epoch": 3, "best_psnr": 28.5, "best_ssim": 0.8, "state_dict": state}
    torch.save({**checkpoint, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, source)
    convert(source, tmp_path / "model")
    model = SRGAN.from_pretrained(tmp_path / "model")
    expected = forward_lornatang(state, LR.double(), conv, stages=stages)
    assert (expected == 0).any() and (expected == 1).any() and ((expected > 0.1) & (expected < 0.9)).any()
    check(model, expected)
    assert model.config == {
        "scale": 2**stages,
        "channels": CHANNELS,
        "num_blocks": 2,
        "upsampler": "pixelshuffle",
        "trunk_end": "batchnorm",
        "output_activation": "clamp",
    }


@pytest.mark.parametrize(("end", "stages"), [("norm", 2), ("norm", 1), ("prelu", 2)])
def test_leftthomas(tmp_path, end, stages):
    # Older weights have no batch counts and PyTorch's legacy file format.
    state = make_leftthomas(end=end, stages=stages, counted=end == "norm")
    source = tmp_path / "netG_epoch_4_100.pth"
    torch.save(state, source, _use_new_zipfile_serialization=end == "norm")
    convert(source, tmp_path / "model")
    model = SRGAN.from_pretrained(tmp_path / "model")
    expected = forward_leftthomas(state, LR.double(), end=end, stages=stages)
    assert expected.min() < 0.3 and expected.max() > 0.7
    check(model, expected)
    assert (model.config["num_blocks"], model.config["scale"], model.config["output_activation"]) == (
        5,
        2**stages,
        "sigmoid",
    )


def test_prefixes_of_wrapper_modules_are_removed(tmp_path):
    state = make_leftthomas()
    torch.save({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, tmp_path / "g.pth")
    model = convert(tmp_path / "g.pth", tmp_path / "model", origin="leftthomas")
    check(model, forward_leftthomas(state, LR.double()))


@pytest.mark.parametrize(
    ("make", "license", "project"),
    [(make_lornatang, "apache-2.0", "Lornatang/SRGAN-PyTorch"), (make_leftthomas, "mit", "leftthomas/SRGAN")],
)
def test_card_states_origin_license_and_hash(tmp_path, make, license, project):
    torch.save(make(), tmp_path / "g.pth")
    convert(tmp_path / "g.pth", tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.license == license
    assert project in card.text and "`g.pth` (SHA-256 `" in card.text


def write_krasserm(path, *, blocks=2, stages=2, extra=(), without=()):
    """Write a Keras file: HWIO kernels, names numbered from the second on, unordered."""
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(0)
    sizes = [(3, CHANNELS, 9), *[(CHANNELS, CHANNELS, 3)] * (2 * blocks + 1)]
    sizes += [(CHANNELS, 4 * CHANNELS, 3)] * stages + [(CHANNELS, 3, 9)]
    keras = {}
    for i, (inside, outside, size) in enumerate(sizes):
        name = f"conv2d_{i}" if i else "conv2d"
        keras[f"{name}/{name}/kernel:0"] = random.normal(0, (inside * size**2) ** -0.5, (size, size, inside, outside))
        keras[f"{name}/{name}/bias:0"] = random.normal(0, 0.1, outside)
    for i in range(2 * blocks + 1):
        name = f"batch_normalization_{i}" if i else "batch_normalization"
        for kind in ("gamma", "beta", "moving_mean", "moving_variance"):
            keras[f"{name}/{name}/{kind}:0"] = random.uniform(0.3, 1.5, CHANNELS)
    for i in range(1 + blocks + stages):
        name = f"p_re_lu_{i}" if i else "p_re_lu"
        keras[f"{name}/{name}/alpha:0"] = random.normal(0, 0.3, (1, 1, CHANNELS))
    keras = {name: value.astype(np.float32) for name, value in keras.items() if name not in without}
    with h5py.File(path, "w") as file:
        for name, value in [*keras.items(), *((name, np.ones(2)) for name in extra)]:
            file[name] = value
    return keras


def forward_krasserm(keras, lr, *, blocks=2, stages=2):
    tensors = {name.split("/", 1)[1]: torch.from_numpy(value).double() for name, value in keras.items()}

    def get(kind, number, tensor):
        name = f"{kind}_{number}" if number else kind
        return tensors[f"{name}/{tensor}:0"]

    def conv(x, i):
        kernel = get("conv2d", i, "kernel").permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, get("conv2d", i, "bias"), padding=kernel.shape[-1] // 2)

    def norm(x, i):
        gamma, beta, mean, variance = (
            get("batch_normalization", i, kind).view(1, -1, 1, 1)
            for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    def prelu(x, i):
        return torch.where(x > 0, x, x * get("p_re_lu", i, "alpha").view(1, -1, 1, 1))

    def depth_to_space(x):
        n, c, h, w = x.shape
        return x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)

    head = x = prelu(conv(lr, 0), 0)
    for i in range(blocks):
        x = x + norm(conv(prelu(norm(conv(x, 2 * i + 1), 2 * i), i + 1), 2 * i + 2), 2 * i + 1)
    x = head + norm(conv(x, 2 * blocks + 1), 2 * blocks)
    for i in range(stages):
        x = prelu(depth_to_space(conv(x, 2 * blocks + 2 + i)), blocks + 1 + i)
    return (torch.tanh(conv(x, 2 * blocks + 2 + stages)) + 1) / 2


# With six blocks there are conv2d_2 and conv2d_10, which must be sorted numerically.
@pytest.mark.parametrize(("blocks", "stages"), [(1, 1), (6, 2)])
def test_krasserm(tmp_path, blocks, stages):
    keras = write_krasserm(tmp_path / "gan_generator.h5", blocks=blocks, stages=stages)
    model = convert(tmp_path / "gan_generator.h5", tmp_path / "model")
    check(model, forward_krasserm(keras, LR.double(), blocks=blocks, stages=stages))
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == model.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra": ["dense/dense/kernel:0"]}, "also holds dense/dense/kernel:0"),
        ({"without": ["batch_normalization_1/batch_normalization_1/beta:0"]}, "batch_normalization 1 without beta"),
        ({"stages": 3}, "10 convolutions"),
        ({"extra": ["conv2d_1/filters:0"]}, "tensorlayer"),
    ],
)
def test_other_keras_files_raise(tmp_path, options, message):
    write_krasserm(tmp_path / "g.h5", **options)
    with pytest.raises(ModelLoadError, match=message):
        convert(tmp_path / "g.h5", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def edited(state, **changes):
    """A state dict with tensors replaced, or removed if the change is None."""
    changes = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (edited(make_leftthomas(), block3__bn2__bias=None), 'Missing key.*"trunk.block1.bn2.bias"'),
        (edited(make_leftthomas(), block2__bn1__weight=None), 'Missing key.*"trunk.block0.bn1.weight"'),
        (edited(make_leftthomas(), block3__conv1__bias=None), 'Missing key.*"trunk.block1.conv1.bias"'),
        (edited(make_leftthomas(), block9__weight=ONE), 'Unexpected key.*"block9.weight"'),
        (edited(make_leftthomas(), block1__0__bias=ONE), r"size mismatch for head_conv.bias: .*\[1\].*\[5\]"),
        (make_leftthomas(stages=3), r"scale.*got 8"),
        (edited(make_lornatang(), conv_block1__0__bias=None), 'Missing key.*"head_conv.bias"'),
        (make_lornatang(channels_out=9 * CHANNELS), r"size mismatch for up0_conv.weight: .*\[45, 5, 3, 3\]"),
        ({"conv3.0.weight": ONE, "subpixel_conv.0.conv.weight": ONE}, "early network of Lornatang"),
        ({"RRDB_trunk.0.RDB1.conv1.weight": ONE}, r"ESRGAN \(RRDB\)"),
        ({"model.1.sub.0.RDB1.conv1.0.weight": ONE}, r"ESRGAN \(RRDB\)"),
        ({"params_ema": {"conv_first.weight": ONE, "body.0.rdb1.conv1.weight": ONE}}, r"ESRGAN \(RRDB\)"),
        ({"params": {"conv_first.weight": ONE, "body.0.conv1.weight": ONE}}, "MSRResNet"),
        ({"recon_trunk.0.conv1.weight": ONE, "HRconv.weight": ONE}, "MSRResNet"),
        ({"model.1.sub.0.res.0.weight": ONE}, "MSRResNet"),
        ({"state_dict": {"features.0.weight": ONE, "classifier.0.weight": ONE}}, "a discriminator"),
        ({"net.0.weight": ONE}, "a discriminator"),
        ({"encoder.weight": ONE}, "its tensors are encoder.weight"),
        ({"epoch": 3}, "state dict of tensors, got keys epoch"),
        ([ONE], "state dict of tensors, got no dict"),
        ({}, "state dict of tensors"),
    ],
)
def test_unsupported_checkpoints_raise(tmp_path, state, message):
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(ModelLoadError, match=message):
        convert(tmp_path / "g.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Payload:
    """Pickles to a call that would run when the file is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_pickled_code_is_not_executed(tmp_path):
    torch.save(nn.Sequential(nn.Conv2d(3, 3, 3)), tmp_path / "module.pth")
    with pytest.raises(ModelLoadError, match=r"torch\.nn\.modules\.container\.Sequential.*state_dict"):
        convert(tmp_path / "module.pth", tmp_path / "model")
    torch.save({"state_dict": make_leftthomas(), "note": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ModelLoadError, match="run code from the file"):
        convert(tmp_path / "evil.pth", tmp_path / "model")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "model").exists()


def test_other_file_types_raise(tmp_path):
    np.savez(tmp_path / "g_srgan.npz", params=np.ones(3))
    with pytest.raises(ModelLoadError, match="tensorlayer"):
        convert(tmp_path / "g_srgan.npz", tmp_path / "model")
    torch.jit.script(nn.Conv2d(1, 1, 1)).save(str(tmp_path / "script.pt"))
    with pytest.raises(ModelLoadError, match="TorchScript"):
        convert(tmp_path / "script.pt", tmp_path / "model")
    (tmp_path / "text.pth").write_text("<html>Not found</html>")
    with pytest.raises(ModelLoadError, match=r"text\.pth"):
        convert(tmp_path / "text.pth", tmp_path / "model")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="PyTorch checkpoint"):
        convert(tmp_path / "empty.pth", tmp_path / "model")
    with pytest.raises(ModelLoadError, match="No such file"):
        convert(tmp_path / "none.pth", tmp_path / "model")


def test_non_finite_weights_raise(tmp_path):
    state = make_lornatang()
    state["trunk.0.rcb.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(ModelLoadError, match=r"g\.pth' has NaN .*trunk\.block0\.conv1\.weight"):
        convert(tmp_path / "g.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_origin_must_match(tmp_path):
    torch.save(make_leftthomas(), tmp_path / "g.pth")
    with pytest.raises(ModelLoadError, match="a checkpoint of leftthomas, not of lornatang"):
        convert(tmp_path / "g.pth", tmp_path / "model", origin="lornatang")
