import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from srgan_hub import SRGAN
from srgan_hub.network.fusion import fuse
from srgan_hub.network.generator import OUTPUT_ACTIVATIONS, TRUNK_ENDS
from srgan_hub.network.layers import Residual
from srgan_hub.network.streaming import StreamingState, receptive_field_radius, stream_rows
from srgan_hub.network.winograd import convert_to_winograd


def streamed(network, lr, strip_height):
    return torch.cat(list(stream_rows(network, lr, strip_height=strip_height)), dim=2)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_streamed_equals_whole(tiny_generator, data):
    draw = data.draw
    options = {
        "scale": draw(st.sampled_from([2, 3, 4])),
        "upsampler": draw(st.sampled_from(["pixelshuffle", "nearest"])),
        "channels": draw(st.integers(1, 6)),
        "num_blocks": draw(st.integers(1, 3)),
        "trunk_end": draw(st.sampled_from(TRUNK_ENDS)),
        "output_activation": draw(st.sampled_from(OUTPUT_ACTIVATIONS)),
    }
    size = draw(st.integers(1, 3)), 3, draw(st.integers(1, 40)), draw(st.integers(1, 12))
    network = fuse(tiny_generator(**options))
    if draw(st.booleans()):
        network = convert_to_winograd(network, min_channels=1)
    lr = torch.rand(size, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    if draw(st.booleans()):
        network, lr = network.to(memory_format=torch.channels_last), lr.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        whole = network(lr)
    torch.testing.assert_close(streamed(network, lr, draw(st.integers(1, 45))), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "winograd"), [("srgan-x4", True), ("srresnet-x4", False)])
def test_bundled_weights_stream_bit_identically(name, winograd, bundled_model, cat_image):
    network = fuse(bundled_model(name).generator).to(memory_format=torch.channels_last)
    network = convert_to_winograd(network) if winograd else network
    lr = torch.from_numpy(cat_image[30:80, 20:180] / np.float32(255)).permute(2, 0, 1)[None]  # channels last
    with torch.inference_mode():
        whole = network(lr)
    for strip_height in (1, 7, 40):
        assert torch.equal(streamed(network, lr, strip_height), whole), strip_height


class Step(nn.Module):
    """A streaming step as a pure function: rows and cache in, output rows and cache out."""

    def __init__(self, network, layers):
        super().__init__()
        self.network, self.layers = network, layers

    def forward(self, rows, *cache):
        state = StreamingState(self.network)
        state.cache = dict(zip(self.layers, cache, strict=True))
        return state.step(rows), *(state.cache[layer] for layer in self.layers)


def test_exported_step_is_bit_identical(tiny_generator):
    """The graph is that of middle strips: the cache is full, and the image does not end."""
    network = fuse(tiny_generator(channels=64, num_blocks=1)).to(memory_format=torch.channels_last)
    lr = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    first, second, third, *_ = strips = lr.split(16, dim=2)
    state = StreamingState(network)
    with torch.inference_mode():
        whole = network(lr)
    with torch.no_grad():
        outputs = [state.step(strip) for strip in (first, second)]
        layers, cache = [*state.cache], [*state.cache.values()]
        step = torch.export.export(Step(network, layers), (third, *cache), strict=False).module()
        for strip in strips[2:-1]:
            before = [rows.clone() for rows in cache]
            rows, *new_cache = step(strip, *cache)
            assert all(map(torch.equal, cache, before))
            assert [rows.shape for rows in new_cache] == [rows.shape for rows in cache]
            cache = new_cache
            outputs.append(rows)
        state.cache = dict(zip(layers, cache, strict=True))
        outputs.append(state.step(strips[-1], last=True))
    assert torch.equal(torch.cat([rows for rows in outputs if rows is not None], 2), whole)


def test_strips_are_even():
    strips = stream_rows(nn.Sequential(nn.Sigmoid()), torch.rand(1, 3, 101, 2), strip_height=50)
    assert [rows.shape[2] for rows in strips] == [34, 34, 33]


@pytest.fixture
def conv_outputs(monkeypatch):
    """The shapes of all convolutions' outputs."""
    shapes, conv2d = [], nn.functional.conv2d

    def record(*args, **kwargs):
        output = conv2d(*args, **kwargs)
        shapes.append(output.shape)
        return output

    monkeypatch.setattr(nn.functional, "conv2d", record)
    return shapes


def test_each_row_is_computed_once(tiny_generator, conv_outputs):
    streamed(fuse(tiny_generator()), torch.rand(1, 3, 30, 4), 4)
    at_lr, at_double = 30 * 7, 60 * 2  # head, two blocks, trunk and first upsampling; second upsampling and tail
    assert sum(shape[2] for shape in conv_outputs) == at_lr + at_double


def test_strip_height_bounds_pixels_after_upsampling(tiny_generator, conv_outputs):
    """Even at the end of the image, where all cached rows come out."""
    streamed(fuse(tiny_generator(num_blocks=9)), torch.rand(1, 3, 48, 8), 8)
    pixels = [shape[2] * 16 for shape in conv_outputs if shape[3] == 16]
    assert len(pixels) > 20 and max(pixels) <= 1.5 * 8 * 8 + 2 * 16  # the last convolution's padding


def test_cache_size_is_independent_of_image_height(tiny_generator):
    network = fuse(tiny_generator())

    def max_cache_bytes(height):
        state, sizes = StreamingState(network), []
        for top in range(0, height, 4):
            state.step(torch.rand(1, 3, 4, 8), last=top + 4 >= height)
            # A view would keep the storage of a complete strip.
            assert all(rows.untyped_storage().nbytes() == rows.nbytes for rows in state.cache.values())
            sizes.append(sum(rows.nbytes for rows in state.cache.values()))
        return max(sizes)

    assert max_cache_bytes(400) == max_cache_bytes(100)
    # At LR size: 8 rows of 3 channels, six times 2 rows of 4, and the residuals' rows; at double size 2 + 4 rows of 4.
    width = 8 * 4
    at_lr = 8 * 3 + 6 * 2 * 4 + (5 + 2 + 2) * 4 + 4 * 4
    assert max_cache_bytes(100) < width * at_lr + 2 * width * (2 * 4 + 4 * 16) + 5000


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.BatchNorm2d(3),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=1.5),
        nn.Conv2d(3, 3, 3),
        nn.Conv2d(3, 3, 3, padding=1, stride=2),
        nn.Conv2d(3, 3, 3, padding=2, dilation=2),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 3, 2, padding=1),
        type("Other", (nn.Sequential,), {})(nn.Sigmoid()),
    ],
)
def test_unsupported_layers_are_refused_at_once(layer):
    for network in (nn.Sequential(layer), nn.Sequential(nn.Conv2d(3, 3, 9, padding=4), Residual(layer))):
        with pytest.raises(TypeError, match="Cannot stream"):
            StreamingState(network)


def test_interleaved_streams_are_independent(tiny_generator):
    network = fuse(tiny_generator())
    images = [torch.rand(1, 3, 33, 6), torch.rand(1, 3, 20, 6)]
    strips = itertools.zip_longest(*(stream_rows(network, lr, strip_height=3) for lr in images))
    for lr, parts in zip(images, zip(*strips, strict=True), strict=True):
        torch.testing.assert_close(torch.cat([p for p in parts if p is not None], 2), network(lr), atol=1e-5, rtol=0)


def test_caller_is_not_left_in_inference_mode(tiny_generator):
    strips = stream_rows(fuse(tiny_generator()), torch.rand(1, 3, 40, 4), strip_height=4)
    next(strips)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    strips.close()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
def test_receptive_field_radius_matches_the_gradient(scale, upsampler, tiny_generator):
    network = tiny_generator(scale=scale, upsampler=upsampler)
    radius = receptive_field_radius(network)
    assert radius == receptive_field_radius(fuse(network))
    lr = torch.rand(1, 3, 2 * radius + 9, 3, requires_grad=True)
    row = lr.shape[2] // 2
    network(lr)[:, :, row * scale : (row + 1) * scale].sum().backward()
    rows = lr.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (row - radius, row + radius)


def test_receptive_field_radius_of_the_paper():
    assert receptive_field_radius(SRGAN().generator) == 40


def test_strip_height_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"`strip_height`.*0"):
        next(stream_rows(nn.Sequential(nn.Sigmoid()), torch.rand(1, 3, 2, 2), strip_height=0))
