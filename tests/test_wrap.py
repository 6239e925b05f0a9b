"""Images that repeat are upscaled as the middle of their repetition, and alpha that is data as an image of its own."""

import itertools

import numpy as np
import pytest
import torch

from srgan_hub.upscaler import Upscaler

SHAPES = [(1, 1), (3, 5), (20, 31), (61, 7), (7, 61)]


@pytest.fixture(scope="module")
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="float32", backend="torch")


def repeat(array, wrap: str, rows: int = 0):
    """Repeat an image three times along the axes; `rows` is the index of its height."""
    counts = [1] * array.ndim
    counts[rows : rows + 2] = [3 if axis in wrap else 1 for axis in "yx"]
    return array.repeat(counts) if isinstance(array, torch.Tensor) else np.tile(array, counts)


def middle(array, wrap: str, rows: int = 0):
    for axis, name in ((rows, "y"), (rows + 1, "x")):
        if name in wrap:
            side = array.shape[axis] // 3
            array = array[(slice(None),) * axis + (slice(side, 2 * side),)]
    return array


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("wrap", ["x", "y", "xy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tensors_are_bit_exact(upscaler, shape, wrap):
    for image in (torch.rand(3, *shape), torch.rand(2, 3, *shape)):
        expected = middle(upscaler.upscale(repeat(image, wrap, image.ndim - 2)), wrap, image.ndim - 2)
        assert torch.equal(upscaler.upscale(image, wrap=wrap), expected)


@pytest.mark.parametrize(("channels", "shape"), [(48, (20, 64)), (48, (30, 67)), (64, (9, 130))])
def test_columns_have_the_repetitions_rounding(tiny_generator, channels, shape):
    """Minimal filtering computes columns in tiles; the halo begins where a tile does, and covers all that rounding
    depends on."""
    network = tiny_generator(channels=channels, num_blocks=1)
    upscaler = Upscaler(network, scale=4, device="cpu", dtype="float32", backend="torch", strip_height=8)
    image = torch.rand(3, *shape)
    assert upscaler._backend_for(torch.float32).column_radius < shape[1]
    expected = middle(upscaler.upscale(repeat(image, "xy", 1)), "xy", 1)
    assert torch.equal(upscaler.upscale(image, wrap="xy"), expected)


@pytest.mark.parametrize("size", [None, "3x", 41, (50, 40), (124, 7), (1, 80), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exact_sizes_wrap_too(upscaler, channels, size):
    image = noise(20, 31, channels)
    for wrap in ("x", "y", "xy"):
        result = upscaler.upscale(image, size=size, wrap=wrap)
        height, width = result.shape[:2]
        repeated = tuple(side * (3 if axis in wrap else 1) for side, axis in ((width, "x"), (height, "y")))
        expected = middle(upscaler.upscale(repeat(image, wrap), size=repeated), wrap)
        assert np.array_equal(result, expected), wrap


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays(upscaler, channels, dtype):
    for shape, wrap in itertools.product(SHAPES, ("x", "xy")):
        image = noise(*shape, *([channels] if channels else []), dtype=dtype)
        if channels in (2, 4):  # hidden colors are filled from around, across the edges
            image[..., -1][noise(*shape, seed=1) < 200] = 0
        expected = middle(upscaler.upscale(repeat(image, wrap)), wrap)
        assert np.array_equal(upscaler.upscale(image, wrap=wrap), expected), (shape, wrap)
