import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from srgan_hub import SRGAN
from srgan_hub.network.fusion import fuse
from srgan_hub.network.winograd import WinogradConv2d, convert_to_winograd, toom_cook


def test_toom_cook_matrices_compute_the_correlation():
    to_outputs, to_weights, to_inputs = toom_cook()
    kernel, inputs = torch.rand(3, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    sums = torch.stack([(kernel * inputs[i : i + 3]).sum() for i in range(6)])
    torch.testing.assert_close(to_outputs @ ((to_weights @ kernel) * (to_inputs @ inputs)), sums, atol=1e-14, rtol=0)
    ends = torch.eye(len(inputs), dtype=torch.float64)[:, [0, -1]]
    assert torch.equal(to_inputs[:, [0, -1]], ends)  # each in one product only, unscaled


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_winograd_equals_convolution(data):
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 99)))
    conv = nn.Conv2d(draw(st.integers(1, 9)), draw(st.integers(1, 9)), 3, padding=1, bias=draw(st.booleans()))
    x = torch.randn(draw(st.integers(1, 3)), conv.in_channels, draw(st.integers(1, 9)), draw(st.integers(1, 20)))
    if draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    expected = conv.double()(x.double())
    torch.testing.assert_close(WinogradConv2d(conv.float())(x).double(), expected, atol=3e-6, rtol=0)


def test_rows_are_bit_identical_in_any_strip():
    conv = WinogradConv2d(nn.Conv2d(64, 64, 3, padding=1))
    x = torch.rand(2, 64, 40, 131).to(memory_format=torch.channels_last)
    whole = conv.conv_rows([x])
    for top in (0, 1, 5, 11):
        assert torch.equal(
            conv.conv_rows([x[:, :, top : top + 9], x[:, :, top + 9 : top + 20]]), whole[:, :, top : top + 18]
        )


def conv_types(network):
    return [type(layer) for layer in network.modules() if isinstance(layer, (nn.Conv2d, WinogradConv2d))]


def test_only_wide_3x3_convolutions_are_replaced():
    fused = fuse(SRGAN(num_blocks=2).generator)
    before = fused.state_dict()
    network = convert_to_winograd(fused)
    assert conv_types(network) == [nn.Conv2d, *[WinogradConv2d] * 7, nn.Conv2d]  # head and tail have few channels
    assert network.tail_conv is fused.tail_conv
    assert conv_types(fused) == [nn.Conv2d] * 9 and fused.state_dict().keys() == before.keys()
    assert conv_types(convert_to_winograd(fuse(SRGAN(channels=32, num_blocks=2).generator))) == [nn.Conv2d] * 9
    others = (nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.Conv2d(64, 64, 5, padding=2))
    assert conv_types(convert_to_winograd(nn.Sequential(*others))) == [nn.Conv2d] * 3


@pytest.mark.parametrize("name", ["srgan-x4", "srresnet-x4"])
def test_bundled_networks_compute_the_same(name, bundled_model):
    generator = bundled_model(name).generator
    lr = torch.rand(1, 3, 48, 65, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(convert_to_winograd(fuse(generator))(lr), generator(lr), atol=1e-5, rtol=0)
