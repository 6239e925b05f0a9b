import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from srgan_hub.network.fusion import PolyphaseGenerator, fuse
from srgan_hub.network.layers import Residual


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (11, 7)])
def test_fused_network_computes_the_same_function(upsampler, scale, size, tiny_generator):
    network = tiny_generator(scale=scale, upsampler=upsampler)
    before = copy.deepcopy(network.state_dict())
    lr = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    fused = fuse(network)
    torch.testing.assert_close(fused(lr), network(lr), atol=1e-5, rtol=0)
    assert not [layer for layer in fused.modules() if isinstance(layer, nn.BatchNorm2d)]
    # The 9x9 convolution at full resolution became a smaller one before the upsampling.
    factor = 3 if scale == 3 else 2
    assert (fused.tail_conv.out_channels, fused.tail_conv.kernel_size) == ({2: 16, 3: 32}[factor], (5, 5))
    assert list(fused.named_children())[-2][1].upscale_factor == factor
    # The original is not modified, and shares nothing with the result.
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for parameter in fused.parameters():
        parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_prelu_trunk_and_clamp_output(tiny_generator):
    network = tiny_generator(trunk_end="prelu", output_activation="clamp")
    lr = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fuse(network)(lr), network(lr), atol=1e-5, rtol=0)


def test_batch_norm_is_folded_in_evaluation_mode(tiny_generator):
    network = tiny_generator().train()
    lr = torch.rand(1, 3, 5, 5)
    fused = fuse(network)
    assert network.training and network.trunk.block0.bn1.training
    torch.testing.assert_close(fused(lr), network.eval()(lr), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.PixelShuffle(2), nn.PReLU(1), nn.Conv2d(4, 3, 7, padding=3)],
        [nn.PixelShuffle(4), nn.LeakyReLU(0.3), nn.Conv2d(1, 2, 3, padding=1, bias=False)],
        [nn.Upsample(scale_factor=2), nn.PReLU(16), nn.Conv2d(16, 1, (1, 5), padding=(0, 2))],
    ],
)
def test_other_tails_are_moved(layers):
    torch.manual_seed(0)
    network = nn.Sequential(*layers)
    x = torch.randn(1, 16, 5, 4)
    assert type(fuse(network)[-1]) is nn.PixelShuffle
    torch.testing.assert_close(fuse(network)(x), network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.PixelShuffle(2), nn.Conv2d(4, 3, 3, padding=1)],  # no activation between
        [nn.PixelShuffle(2), nn.Softmax(1), nn.Conv2d(4, 3, 3, padding=1)],  # does not commute
        [nn.Upsample(scale_factor=1.5), nn.PReLU(16), nn.Conv2d(16, 3, 3, padding=1)],
        [nn.Upsample(scale_factor=2, mode="bilinear"), nn.PReLU(16), nn.Conv2d(16, 3, 3, padding=1)],
    ],
)
def test_other_layers_are_unchanged(layers):
    network = nn.Sequential(*layers)
    x = torch.randn(1, 16, 4, 4)
    fused = fuse(network)
    assert [type(layer) for layer in fused] == [type(layer) for layer in network]
    assert torch.equal(fused(x), network(x))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.PixelShuffle(2), nn.PReLU(4), nn.Conv2d(4, 16, 3, padding=1)],  # enough channels for efficient kernels
        [nn.PixelShuffle(2), nn.PReLU(1), nn.Conv2d(4, 3, 3)],  # no padding
        [nn.PixelShuffle(2), nn.PReLU(4), nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")],
        [nn.Upsample(scale_factor=2), nn.LeakyReLU(0.3), nn.Conv2d(16, 16, 3, padding=1)],
    ],
)
def test_activation_is_hoisted_without_a_tail(layers):
    network = nn.Sequential(*layers)
    if isinstance(layers[1], nn.PReLU):
        nn.init.uniform_(layers[1].weight)
    x = torch.randn(1, 16, 4, 4)
    fused = fuse(network)
    assert [type(layer) for layer in fused] == [type(layers[index]) for index in (1, 0, 2)]
    assert torch.equal(fused(x), network(x))


def test_residual_stays_residual():
    network = nn.Sequential(Residual(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2))).eval()
    x = torch.randn(1, 2, 4, 4)
    assert [type(layer) for layer in fuse(network)[0]] == [nn.Conv2d]
    torch.testing.assert_close(fuse(network)(x), network(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{}, {"scale": 3}, {"upsampler": "nearest"}, {"scale": 2, "channels": 5}])
def test_polyphase_generator_has_the_same_names_outputs_and_gradients(options, tiny_generator):
    network = tiny_generator(**options).double().train()
    other = PolyphaseGenerator(OrderedDict(copy.deepcopy(network).named_children()))
    assert list(other.state_dict()) == list(network.state_dict())
    lr = torch.rand(2, 3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for each in (network, other):
        sr = each(lr)
        (sr * torch.linspace(-1, 1, sr.numel()).view_as(sr)).sum().backward()
        results.append([sr.detach(), *(parameter.grad for parameter in each.parameters())])
    for expected, got in zip(*results, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_polyphase_generator_without_a_tail():
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(PolyphaseGenerator(OrderedDict(network.named_children()))(x), network(x))
