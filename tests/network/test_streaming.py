import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from srgan_hub import SRGAN, bundled_model_path
from srgan_hub.network.fusion import fuse
from srgan_hub.network.generator import OUTPUTS, TRUNK_ENDS
from srgan_hub.network.layers import Residual
from srgan_hub.network.streaming import StreamingState, receptive_field_radius, stream_rows
from srgan_hub.network.winograd import convert_to_winograd


def streamed(network, lr, strip):
    return torch.cat(list(stream_rows(network, lr, strip_height=strip)), dim=2)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_streamed_equals_whole(tiny_generator, data):
    draw = data.draw
    scale, upsampler = draw(st.sampled_from([2, 3, 4])), draw(st.sampled_from(["pixelshuffle", "nearest"]))
    channels, num_blocks = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    size = draw(st.integers(1, 3)), 3, draw(st.integers(1, 40)), draw(st.integers(1, 12))
    ends = {"trunk_end": draw(st.sampled_from(TRUNK_ENDS)), "output_activation": draw(st.sampled_from(OUTPUTS))}
    network = fuse(tiny_generator(scale=scale, upsampler=upsampler, channels=channels, num_blocks=num_blocks, **ends))
    if draw(st.booleans()):
        network = convert_to_winograd(network, min_channels=1)
    lr = torch.rand(size, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    if draw(st.booleans()):
        network, lr = network.to(memory_format=torch.channels_last), lr.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        whole = network(lr)
    torch.testing.assert_close(streamed(network, lr, draw(st.integers(1, 45))), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["srgan-x4", "srresnet-x4"])
@pytest.mark.parametrize("strip", [1, 7, 40])
@pytest.mark.parametrize("winograd", [False, True])
def test_bundled_weights_give_the_same_image_bit_for_bit(name, strip, winograd):
    network = fuse(SRGAN.from_pretrained(name).generator).to(memory_format=torch.channels_last)
    network = convert_to_winograd(network) if winograd else network
    with Image.open(bundled_model_path(name).parent.parent / "examples" / "cat.png") as cat:
        array = np.asarray(cat.crop((20, 30, 180, 80)))
    lr = torch.from_numpy(array / np.float32(255)).permute(2, 0, 1)[None]  # channels last already
    with torch.inference_mode():
        whole = network(lr)
    assert torch.equal(streamed(network, lr, strip), whole)


class Step(nn.Module):
    """A push as a pure function: rows and kept rows in, output rows and kept rows out."""

    def __init__(self, network, keepers):
        super().__init__()
        self.network, self.keepers = network, keepers

    def forward(self, rows, *kept):
        walk = StreamingState(self.network)
        walk.cache = dict(zip(self.keepers, kept, strict=True))
        return walk.step(rows), *(walk.cache[keeper] for keeper in self.keepers)


def test_a_step_is_exported_with_what_it_keeps(tiny_generator):
    """The graph is for middle strips: before them not all rows are kept yet, and the last one meets the border."""
    network = fuse(tiny_generator(channels=64, num_blocks=1)).to(memory_format=torch.channels_last)
    lr = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    first, second, third, *_ = strips = lr.split(16, dim=2)
    walk = StreamingState(network)
    with torch.inference_mode():
        whole = network(lr)
    with torch.no_grad():
        done = [walk.step(strip) for strip in (first, second)]
        keepers, kept = [*walk.cache], [*walk.cache.values()]
        step = torch.export.export(Step(network, keepers), (third, *kept), strict=False).module()
        for strip in strips[2:-1]:
            before = [rows.clone() for rows in kept]
            rows, *after = step(strip, *kept)
            assert all(map(torch.equal, kept, before)) and [x.shape for x in after] == [x.shape for x in kept]
            kept = after
            done.append(rows)
        walk.cache = dict(zip(keepers, kept, strict=True))
        done.append(walk.step(strips[-1], last=True))
    assert torch.equal(torch.cat([rows for rows in done if rows is not None], 2), whole)


def test_strips_are_even(tiny_generator):
    network = nn.Sequential(nn.Sigmoid())
    heights = [rows.shape[2] for rows in stream_rows(network, torch.rand(1, 3, 101, 2), strip_height=50)]
    assert heights == [34, 34, 33]


def test_each_row_is_computed_once(tiny_generator, monkeypatch):
    """No halo: the convolutions see as many rows as in the whole image, and the rows that they kept."""
    network = fuse(tiny_generator())
    rows = []
    convolve = nn.functional.conv2d

    def spy(x, *args, **kwargs):
        result = convolve(x, *args, **kwargs)
        rows.append(result.shape[2])
        return result

    monkeypatch.setattr(nn.functional, "conv2d", spy)
    list(stream_rows(network, torch.rand(1, 3, 30, 4), strip_height=4))
    at_lr, at_double = 30 * 7, 60 * 2  # head, two blocks, trunk and first stage; second stage and tail
    assert sum(rows) == at_lr + at_double


def test_the_strip_bounds_the_pixels_at_double_size_too(tiny_generator, monkeypatch):
    """Also at the end of the image, when all rows that waited in the network come out."""
    network = fuse(tiny_generator(num_blocks=9))
    pixels = []
    convolve = nn.functional.conv2d

    def spy(x, *args, **kwargs):
        result = convolve(x, *args, **kwargs)
        if result.shape[3] == 16:
            pixels.append(result.shape[2] * 16)
        return result

    monkeypatch.setattr(nn.functional, "conv2d", spy)
    list(stream_rows(network, torch.rand(1, 3, 48, 8), strip_height=8))
    assert len(pixels) > 20 and max(pixels) <= 1.5 * 8 * 8 + 2 * 16  # what the last convolution's padding adds


def test_memory_does_not_grow_with_height(tiny_generator):
    network = fuse(tiny_generator())

    def most_kept(height):
        walk, kept = StreamingState(network), []
        for top in range(0, height, 4):
            walk.step(torch.rand(1, 3, 4, 8), last=top + 4 >= height)
            # A view would keep alive the whole of what it shows a part of.
            assert all(rows.untyped_storage().nbytes() == rows.nbytes for rows in walk.cache.values())
            kept.append(sum(rows.nbytes for rows in walk.cache.values()))
        return max(kept)

    assert most_kept(400) == most_kept(100)
    # At LR size: 8 rows of 3 channels, six times 2 of 4, and what waits for its partner; at double size 2 + 4 of 4.
    width = 8 * 4
    assert most_kept(100) < width * (8 * 3 + 6 * 2 * 4 + (5 + 2 + 2) * 4 + 4 * 4) + 2 * width * (2 * 4 + 4 * 16) + 5000


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.Upsample(scale_factor=2, mode="bilinear")])
def test_unknown_layers_raise_at_once(layer):
    network = nn.Sequential(nn.Conv2d(3, 3, 9, padding=4), Residual(layer))
    with pytest.raises(TypeError, match="Cannot stream"):
        StreamingState(network)  # long before a row could reach it


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 3, 3),
        nn.Conv2d(3, 3, 3, padding=1, stride=2),
        nn.Conv2d(3, 3, 3, padding=2, dilation=2),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 3, 2, padding=1),
        nn.Upsample(scale_factor=1.5),
        type("Other", (nn.Sequential,), {})(nn.Sigmoid()),
    ],
)
def test_layers_of_known_kind_but_other_function_raise(layer):
    with pytest.raises(TypeError, match="Cannot stream"):
        list(stream_rows(nn.Sequential(layer), torch.rand(1, 3, 4, 4), strip_height=2))


def test_interleaved_streams_do_not_touch(tiny_generator):
    network = fuse(tiny_generator())
    images = [torch.rand(1, 3, 33, 6), torch.rand(1, 3, 20, 6)]
    strips = itertools.zip_longest(*(stream_rows(network, lr, strip_height=3) for lr in images))
    for lr, parts in zip(images, zip(*strips, strict=True), strict=True):
        torch.testing.assert_close(torch.cat([p for p in parts if p is not None], 2), network(lr), atol=1e-5, rtol=0)


def test_caller_is_not_left_in_inference_mode(tiny_generator):
    strips = stream_rows(fuse(tiny_generator()), torch.rand(1, 3, 40, 4), strip_height=4)
    next(strips)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    strips.close()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
def test_receptive_radius_by_gradient(scale, upsampler, tiny_generator):
    network = tiny_generator(scale=scale, upsampler=upsampler)
    radius = receptive_field_radius(network)
    assert radius == receptive_field_radius(fuse(network))
    lr = torch.rand(1, 3, 2 * radius + 9, 3, requires_grad=True)
    row = lr.shape[2] // 2
    network(lr)[:, :, row * scale : (row + 1) * scale].sum().backward()
    touched = lr.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (touched.min(), touched.max()) == (row - radius, row + radius)


def test_receptive_radius_of_the_paper():
    assert receptive_field_radius(SRGAN().generator) == 40


def test_strip_of_no_rows():
    with pytest.raises(ValueError, match="at least one row"):
        next(stream_rows(nn.Sequential(nn.Sigmoid()), torch.rand(1, 3, 2, 2), strip_height=0))
