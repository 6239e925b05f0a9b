import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from srgan_hub import SRGAN
from srgan_hub.network.discriminator import Discriminator
from srgan_hub.training import winograd
from srgan_hub.training.winograd import WinogradConv2d, use_winograd


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_it_is_the_convolution_with_its_gradients(data):
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 99)))
    conv = nn.Conv2d(draw(st.integers(1, 9)), draw(st.integers(1, 9)), 3, padding=1, bias=draw(st.booleans())).double()
    x = torch.randn(draw(st.integers(1, 4)), conv.in_channels, draw(st.integers(1, 11)), draw(st.integers(1, 20)))
    x = x.to(torch.double, memory_format=draw(st.sampled_from([torch.channels_last, torch.contiguous_format])))
    x.requires_grad_(draw(st.booleans()))
    conv.weight.requires_grad_(draw(st.booleans()) or not x.requires_grad)
    tensors = [tensor for tensor in (x, *conv.parameters()) if tensor.requires_grad]
    expected = conv(x)
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, tensors, upstream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "MIN_TILES", 0)
        patch.setattr(winograd, "AT_ONCE", draw(st.sampled_from([1, 1000, 2**21])))  # one picture, some or all
        result = WinogradConv2d(conv)(x)
        gradients = torch.autograd.grad(result, tensors, upstream)
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-11, rtol=0)


def test_it_rounds_like_the_convolution():
    conv = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(16, 64, 24, 24).to(memory_format=torch.channels_last)
    with torch.no_grad():
        results = conv(x), WinogradConv2d(conv)(x)
        plain, ours = ((result - conv.double()(x.double())).abs().max() for result in results)
    assert ours < 5 * plain < 1e-4


def test_an_activation_may_write_over_the_output():
    x = torch.rand(1, 48, 40, 40, requires_grad=True)
    conv = WinogradConv2d(nn.Conv2d(48, 48, 3, padding=1))
    conv(x).relu_().sum().backward()
    expected = torch.autograd.grad(conv(x).relu().sum(), x)[0]
    assert torch.equal(x.grad, expected)


def test_few_tiles_go_the_plain_way():
    x = torch.rand(1, 48, 8, 8)
    conv = nn.Conv2d(48, 48, 3, padding=1)
    assert torch.equal(WinogradConv2d(conv)(x), conv(x))


def replaced(network):
    use_winograd(network)
    return [name for name, layer in network.named_modules() if isinstance(layer, WinogradConv2d)]


def test_what_is_replaced():
    network = Discriminator(hr_size=96)
    before = dict(network.named_parameters())
    assert replaced(network) == ["features.5", "features.11", "features.17"]  # the others have strides or few inputs
    after = dict(network.named_parameters())
    assert before.keys() == after.keys() and all(after[name] is before[name] for name in before)
    assert len(replaced(SRGAN(num_blocks=2).generator)) == 7
    assert not replaced(SRGAN(num_blocks=2, channels=32).generator)
    others = (nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.Conv2d(64, 64, 5, padding=2))
    assert not replaced(nn.Sequential(*others))
