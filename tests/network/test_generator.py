import pytest
import torch
from torch import nn

from srgan_hub import SRGAN


def count(network: nn.Module) -> dict[str, int]:
    """Parameters by layer name."""
    return {
        name: sum(p.numel() for p in layer.parameters(recurse=False))
        for name, layer in network.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    }


def test_paper_generator_layer_by_layer():
    counts = count(SRGAN().generator)
    conv64, norm, slopes = 64 * 64 * 9 + 64, 2 * 64, 64
    expected = {"head_conv": 3 * 64 * 81 + 64, "head_act": slopes}
    for i in range(16):
        names = ("conv1", "bn1", "act", "conv2", "bn2")
        expected |= {f"trunk.block{i}.{n}": c for n, c in zip(names, (conv64, norm, slopes, conv64, norm), strict=True)}
    expected |= {"trunk.conv": conv64, "trunk.bn": norm}
    for stage in ("up0", "up1"):
        expected |= {f"{stage}_conv": 64 * 256 * 9 + 256, f"{stage}_act": slopes}
    expected["tail_conv"] = 64 * 3 * 81 + 3
    assert counts == expected
    assert sum(counts.values()) == 1_550_659


def test_printed_generator():
    network = SRGAN(upsampler="nearest").generator
    trainable = sum(count(network).values())
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert (trainable, statistics, trainable + statistics) == (2_039_555, 4_224, 2_043_779)
    assert count(network)["up1_conv"] == 256 * 256 * 9 + 256


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_any_size(scale, upsampler, size, tiny_generator):
    sr = tiny_generator(scale=scale, upsampler=upsampler)(torch.rand(2, 3, *size))
    assert sr.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert sr.min() > 0 and sr.max() < 1


def test_forward_matches_the_paper(tiny_generator):
    """An independent implementation of the forward pass, with tanh and explicit residuals."""
    network = tiny_generator(scale=4, num_blocks=1)
    p = {**dict(network.named_parameters()), **dict(network.named_buffers())}

    def conv(x, name):
        weight = p[f"{name}.weight"]
        return nn.functional.conv2d(x, weight, p[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(x, name):
        mean, var, gamma, beta = (p[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        column = (1, -1, 1, 1)
        return (x - mean.view(column)) / (var.view(column) + 1e-5).sqrt() * gamma.view(column) + beta.view(column)

    def prelu(x, name):
        return torch.where(x > 0, x, x * p[f"{name}.weight"].view(1, -1, 1, 1))

    def shuffle(x):
        n, c, h, w = x.shape
        return x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)

    torch.manual_seed(0)
    lr = torch.rand(1, 3, 6, 5)
    head = prelu(conv(lr, "head_conv"), "head_act")
    inner = prelu(norm(conv(head, "trunk.block0.conv1"), "trunk.block0.bn1"), "trunk.block0.act")
    block = head + norm(conv(inner, "trunk.block0.conv2"), "trunk.block0.bn2")
    x = head + norm(conv(block, "trunk.conv"), "trunk.bn")
    for stage in ("up0", "up1"):
        x = prelu(shuffle(conv(x, f"{stage}_conv")), f"{stage}_act")
    sr = (torch.tanh(conv(x, "tail_conv") / 2) + 1) / 2
    torch.testing.assert_close(network(lr), sr, atol=1e-6, rtol=0)


def test_prelu_trunk_and_clamp_output(tiny_generator):
    paper = tiny_generator(num_blocks=1)
    network = tiny_generator(num_blocks=1, trunk_end="prelu", output_activation="clamp")
    state = network.state_dict()
    assert {k for k in paper.state_dict() if k.startswith("trunk.bn")} == paper.state_dict().keys() - state.keys()
    network.load_state_dict({k: v for k, v in paper.state_dict().items() if k in state}, strict=False)
    slopes = network.trunk.act.weight.view(1, -1, 1, 1)
    lr = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    head = paper.head_act(paper.head_conv(lr))
    end = paper.trunk.conv(paper.trunk.block0(head))
    z = paper[3:-1](head + end.clamp(min=0) + slopes * end.clamp(max=0))
    assert (z < 0).any() and (z > 0.5).any()
    shift = 1 - z.max().item() / 2  # both limits are exceeded
    network.tail_conv.bias.data.add_(shift)
    torch.testing.assert_close(network(lr), (z + shift).clip(0, 1), atol=1e-6, rtol=0)
    assert (network(lr) == 0).any() and (network(lr) == 1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 5}, "`scale`.*5"),
        ({"upsampler": "bilinear"}, "`upsampler`.*'bilinear'"),
        ({"trunk_end": "relu"}, "`trunk_end`.*'relu'"),
        ({"output_activation": "tanh"}, "`output_activation`.*'tanh'"),
        ({"channels": 0}, "`channels`.*0"),
        ({"num_blocks": True}, "`num_blocks`.*True"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SRGAN(**options)
