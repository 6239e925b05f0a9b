"""Bicubic resizing against MATLAB's files and its formula, in memory and in strips; target sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from srgan_hub.resize import TargetSize, downscale, downscale_rows, resize


def random_image(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def keys_cubic(x):
    x = x.abs()
    return torch.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, torch.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def imresize_matrix(length, size):
    """Return the (size, length) matrix of MATLAB's imresize for one axis."""
    ratio = min(1.0, size / length)
    center = (torch.arange(size, dtype=torch.float64) + 0.5) * length / size - 0.5
    margin = int(2 / ratio) + 3
    taps = torch.arange(-margin, length + margin)
    matrix = torch.zeros(size, length, dtype=torch.float64)
    reflected = taps % (2 * length)
    matrix.index_add_(
        1, torch.minimum(reflected, 2 * length - 1 - reflected), keys_cubic((center[:, None] - taps) * ratio)
    )
    return matrix / matrix.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((24, 36), (6, 9)),
        ((12, 20), (48, 80)),
        ((21, 18), (7, 6)),
        ((13, 29), (9, 31)),
        ((2, 3), (8, 12)),
        ((5, 4), (1, 1)),
        ((40, 1), (20, 1)),
        ((1, 40), (1, 30)),
    ],
)
def test_resize_equals_the_imresize_matrix(old, new):
    image = random_image(2, 3, *old)
    rows, columns = imresize_matrix(old[0], new[0]), imresize_matrix(old[1], new[1])
    torch.testing.assert_close(resize(image, new), rows @ image @ columns.T, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("old", "new"), [((24, 36), (12, 12)), ((24, 36), (8, 18)), ((8, 8), (24, 24))])
def test_rounds_after_each_axis_starting_with_the_one_that_shrinks_most(old, new):
    values = random_image(1, 1, *old).mul(255).round()
    rows, columns = imresize_matrix(old[0], new[0]), imresize_matrix(old[1], new[1])
    if new[0] / old[0] <= new[1] / old[1]:
        expected = ((rows @ values + 0.5).floor().clamp(0, 255) @ columns.T + 0.5).floor().clamp(0, 255)
    else:
        expected = (rows @ (values @ columns.T + 0.5).floor().clamp(0, 255) + 0.5).floor().clamp(0, 255)
    assert torch.equal(resize(values / 255, new, round_to_uint8=True).mul(255).round(), expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_downscale_is_bit_identical_to_matlab_files(benchmark_data, name, scale):
    paths = sorted((benchmark_data / name / f"LRbicx{scale}").glob("*.png"))
    assert len(paths) == {"Set5": 5, "Set14": 14}[name]
    for path in paths:
        lr, hr = (np.asarray(Image.open(p).convert("RGB")) for p in (path, benchmark_data / name / path.name))
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
        result = downscale(torch.from_numpy(hr.copy()).permute(2, 0, 1)[None] / 255, scale, round_to_uint8=True)
        assert np.array_equal(result[0].mul(255).round().byte().permute(1, 2, 0).numpy(), lr), path


def test_gradient_is_the_transposed_matrix():
    image = random_image(1, 1, 8, 12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize(x, (2, 3)), image)
    weights = random_image(1, 1, 2, 3, seed=1)
    (downscale(image, 4) * weights).sum().backward()
    expected = imresize_matrix(8, 2).T @ weights @ imresize_matrix(12, 3)
    torch.testing.assert_close(image.grad, expected, rtol=0, atol=1e-7)


def test_half_precision_and_autocast_compute_in_float32():
    image = random_image(1, 3, 16, 16, dtype=torch.float32)
    exact = downscale(image, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(downscale(image, 4), exact)
    half = image.bfloat16()
    assert torch.equal(downscale(half, 4), downscale(half.float(), 4).bfloat16())


def test_overshoots_unless_rounded():
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    assert resize(edge, (16, 16)).max() > 1
    rounded = resize(edge, (16, 16), round_to_uint8=True)
    assert rounded.max() == 1 and rounded.min() == 0


def test_same_size_returns_the_same_values():
    image = random_image(1, 3, 7, 5, dtype=torch.float32)
    assert torch.equal(resize(image, (7, 5)), image)


def test_border_is_reflected_not_renormalized():
    image = random_image(1, 1, 16, 16, dtype=torch.float32)
    plain = F.interpolate(image, (4, 4), mode="bicubic", antialias=True)
    assert (downscale(image, 4) - plain).abs()[..., 0, :].max() > 0.01


def test_invalid_input_raises_value_error():
    with pytest.raises(ValueError, match="divisible by 4, got 10x12"):
        downscale(torch.rand(1, 3, 10, 12), 4)
    with pytest.raises(ValueError, match="uint8"):
        resize(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (4, 4))
    with pytest.raises(ValueError, match="8x8 to 0x4"):
        resize(torch.rand(1, 3, 8, 8), (0, 4))


@pytest.mark.parametrize(
    ("given", "resolved", "suffix"),
    [
        (None, (904, 600), "x4"),
        ("2x", (452, 300), "x2"),
        ("3x", (678, 450), "x3"),
        (800, (800, 531), "800"),
        ((300, None), (300, 199), "300x"),
        ((None, 301), (454, 301), "x301"),
        ((640, 480), (640, 480), "640x480"),
        (TargetSize(shortest_edge=500), (753, 500), "500"),
        (1, (1, 1), "1"),
        (904, (904, 600), "904"),
    ],
)
def test_target_size_resolves_to_pixels_and_suffix(given, resolved, suffix):
    size = TargetSize.parse(given)
    assert size.resolve(226, 150, scale=4) == resolved and size.suffix(4) == suffix


def test_longest_and_shortest_edge_in_portrait_orientation():
    assert TargetSize(longest_edge=300).resolve(150, 226, scale=4) == (199, 300)
    assert TargetSize(shortest_edge=300).resolve(150, 226, scale=4) == (300, 452)


@pytest.mark.parametrize("given", ["5x", 905, (905, None), (None, 601), (100, 601), TargetSize(shortest_edge=601)])
def test_target_size_beyond_the_models_scale_is_rejected(given):
    with pytest.raises(ValueError, match=r"\d+x\d+ exceeds .* 904x600 \(4x the 226x150 input\)"):
        TargetSize.parse(given).resolve(226, 150, scale=4)


@pytest.mark.parametrize(
    "given", ["x", "2", "-2x", "2.5x", True, 2.5, (1, 2, 3), [None], 0, -5, (0, None), (1.5, None), "0x"]
)
def test_invalid_target_size_is_rejected(given):
    with pytest.raises(ValueError, match="must be"):
        TargetSize.parse(given)


def test_only_width_and_height_combine():
    with pytest.raises(ValueError, match="`scale_factor` and `width`"):
        TargetSize(scale_factor=2, width=100)


@pytest.mark.parametrize("heights", [[40], [1] * 40, [3, 30, 7]])
@pytest.mark.parametrize("new", [(26, 20), (51, 39), (13, 1), (1, 33), (52, 7)])
def test_downscale_rows_equals_resize(heights, new):
    values = torch.randint(0, 65_536, (2, 40, 52, 3), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    strips = list(downscale_rows(iter(values.split(heights, 1)), (52, 40), new, max_value=65_535, alpha=False))
    expected = resize(values.permute(0, 3, 1, 2) / 65_535, (new[1], new[0])).clamp(0, 1) * 65_535
    result = torch.cat(strips, 1)
    assert result.dtype == torch.int32
    assert (result.permute(0, 3, 1, 2) - expected).abs().max() <= 1  # of 65535: float32 computes 1.5e-5 apart


def test_downscale_rows_is_bit_identical_for_any_strip_height():
    values = torch.randint(0, 256, (1, 90, 30, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    results = [
        torch.cat(list(downscale_rows(iter(values.split(rows, 1)), (30, 90), (23, 70), max_value=255, alpha=True)), 1)
        for rows in (1, 7, 90)
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_downscale_rows_yields_each_row_as_soon_as_its_input_has_arrived():
    strips = torch.zeros(1, 400, 8, 1, dtype=torch.uint8).split(40, 1)
    outputs = list(downscale_rows(iter(strips), (8, 400), (4, 200), max_value=255, alpha=False))
    assert [strip.shape[1] for strip in outputs] == [18, *[20] * 8, 22]


def test_colors_of_transparent_pixels_do_not_bleed():
    image = np.zeros((1, 40, 40, 4), np.uint8)
    image[:, :, :20] = (10, 200, 30, 255)
    image[:, :, 20:] = (255, 0, 255, 0)
    (result,) = downscale_rows(iter([torch.from_numpy(image)]), (40, 40), (13, 11), max_value=255, alpha=True)
    visible = result[result[..., 3] > 0]
    assert (visible[:, :3].int() - torch.tensor([10, 200, 30])).abs().max() <= 1
    assert visible.shape[0] >= 60 and (result[..., 3] == 0).sum() >= 50


def test_downscale_rows_keeps_16_bits():
    values = torch.arange(0, 65_536, 16, dtype=torch.int32).reshape(1, 1, 4096, 1).expand(1, 4, -1, -1)
    (result,) = downscale_rows(iter([values]), (4096, 4), (2048, 2), max_value=65_535, alpha=False)
    expected = torch.arange(8, 65_536, 32)
    assert (result[0, 0, 4:-4, 0] - expected[4:-4]).abs().max() <= 1
