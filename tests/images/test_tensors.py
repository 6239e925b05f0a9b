"""Conversion of images, with and without alpha, to network inputs and back."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN, bundled_models
from srgan_hub.hub import DEFAULT_MODEL, FIDELITY_MODEL, bundled_model_path
from srgan_hub.images.tensors import TensorImage


def save(pixels: TensorImage, sr: torch.Tensor, top: int) -> np.ndarray:
    return pixels.to_numpy(pixels.from_output(sr, top))


def nearest(pixels: TensorImage, strips: list[int]) -> np.ndarray:
    """Pass an image through a network that repeats pixels, in strips of rows of the result."""
    sr = torch.nn.functional.interpolate(pixels.to_input(pixels.lr), scale_factor=pixels.scale, mode="nearest")
    tops = np.cumsum([0, *strips])
    return np.concatenate([save(pixels, sr[:, :, a:b], a) for a, b in itertools.pairwise(tops)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 2), (5, 4, 3), (5, 4, 4), (1, 1, 3)])
def test_round_trip(dtype, shape):
    values = np.iinfo(dtype).max
    array = np.random.default_rng(0).integers(0, values, shape, dtype=dtype, endpoint=True)
    if shape[-1] in (2, 4) and len(shape) == 3:
        array[..., -1] = np.random.default_rng(1).choice([0, values // 2, values], shape[:2])
    height = 3 * shape[0]
    result = nearest(TensorImage(array, 3), [2, height - 2])
    expected = array.repeat(3, 0).repeat(3, 1)
    assert result.dtype == dtype and result.shape == expected.shape
    if shape[-1] in (2, 4) and len(shape) == 3:
        assert np.array_equal(result[..., -1], expected[..., -1])
        expected = np.where(expected[..., -1:] > 0, expected, 0)
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= (0 if dtype == np.uint8 else 1)


def test_gray_stays_gray():
    array = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    tinted = torch.rand(1, 3, 8, 8)
    assert save(TensorImage(array, 2), tinted, 0).shape == (8, 8)
    for colors in (np.dstack([array] * 3), np.dstack([array] * 4)):
        result = save(TensorImage(colors, 2), tinted if colors.shape[2] == 3 else tinted.repeat(2, 1, 1, 1), 0)
        assert (result[..., 0] == result[..., 1]).all() and (result[..., 0] == result[..., 2]).all()


def test_hidden_colors_do_not_reach_the_network():
    array = np.zeros((2, 4, 4), np.uint8)
    array[:, 2:] = (10, 200, 30, 255)
    array[:, :2, :3] = (255, 0, 0)  # red, but fully transparent
    shown = TensorImage(array, 2).to_input(TensorImage(array, 2).lr)
    assert shown.shape == (2, 3, 2, 4)
    assert torch.equal(shown[0] * 255, torch.tensor([10.0, 200, 30])[:, None, None].expand(3, 2, 4))
    assert torch.equal(shown[1, 0], torch.tensor([[0.0, 0, 1, 1]] * 2))


def test_hidden_pixels_are_inpainted():
    """Hidden pixels get the color of the visible row next to them, and far away the mean of all rows."""
    array = np.zeros((64, 128, 2), np.uint8)
    array[:, :64, 0] = np.arange(64)[:, None]
    array[:, :64, 1] = 255
    array[5, 5] = (77, 1)  # nearly transparent is visible all the same
    shown = TensorImage(array, 2).to_input(TensorImage(array, 2).lr)[0, 0].mul(255).round().numpy()
    assert np.array_equal(shown[:, :64], array[:, :64, 0])
    adjacent = np.abs(shown[:, 64] - np.arange(64))
    assert adjacent.max() <= 12  # the mean of all would be off by 32
    assert shown[:, 64:].min() >= 0 and shown[:, 64:].max() <= 63 and np.ptp(shown[:, 127]) < np.ptp(shown[:, 64])


def test_fully_transparent_image():
    array = np.full((3, 5, 4), 9, np.uint8)
    array[..., 3] = 0
    assert not nearest(TensorImage(array, 2), [6]).any()


@pytest.mark.parametrize(
    ("name", "image"),
    [*((name, "disc") for name in bundled_models()), (DEFAULT_MODEL, "astronaut.png"), (FIDELITY_MODEL, "coffee.jpg")],
)
def test_edges_of_transparency_have_no_rim(name, image):
    """A hard-edged circle, composed on three backgrounds, against the same of the opaque image."""
    y, x = np.mgrid[:96, :96]
    if image == "disc":
        opaque = np.dstack([60 + y, 200 - x, np.full_like(x, 120)]).astype(np.uint8)
    else:
        path = bundled_model_path(name).parent.parent / "examples" / image
        opaque = np.asarray(Image.open(path).convert("RGB"))[:96, :96]
    inside = np.hypot(y - 48, x - 48) < 40
    clear = np.dstack([opaque * inside[:, :, None], 255 * inside]).astype(np.uint8)
    model = SRGAN.from_pretrained(name)
    got, expected = (model.upscale(array, dtype="fp32").astype(float) for array in (clear, opaque))
    alpha = got[..., 3:] / 255
    distance = np.hypot(*(np.mgrid[:384, :384] - 191.5)) - 160
    edge = np.abs(distance) < 6
    assert 0.3 < alpha[edge].mean() < 0.7
    for ground in ((0, 0, 0), (255, 255, 255), (255, 0, 0)):
        composed = [colors[..., :3] * alpha + np.array(ground) * (1 - alpha) for colors in (got, expected)]
        assert np.abs(composed[0] - composed[1])[edge].mean() < 3


def test_opaque_and_empty_regions_stay():
    array = np.full((6, 12, 4), 100, np.uint8)
    array[:, :6, 3], array[:, 6:, 3] = 0, 255
    network_is_off = torch.full((2, 3, 12, 24), 0.5)
    alpha = save(TensorImage(array, 2), network_is_off, 0)[:, :, 3]
    assert (alpha[:, :10] == 0).all() and (alpha[:, 14:] == 255).all()
    assert (alpha[:, 10:14] == 128).all()  # at the edge the network decides


def test_opaque_alpha_is_not_upscaled():
    array = np.full((3, 3, 4), 255, np.uint8)
    pixels = TensorImage(array, 4)
    assert pixels.to_input(pixels.lr).shape == (1, 3, 3, 3)
    assert (save(pixels, torch.zeros(1, 3, 12, 12), 0) == (0, 0, 0, 255)).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3, 3), np.float32), "uint8 or uint16"),
        (np.zeros((3, 3, 5), np.uint8), r"got \(3, 3, 5\)"),
        (np.zeros((0, 3, 3), np.uint8), r"got \(0, 3, 3\)"),
        (np.zeros(3, np.uint8), r"got \(3,\)"),
    ],
)
def test_invalid_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        TensorImage(array, 2)
