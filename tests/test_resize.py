import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from srgan_hub.resize import downscale, resize


def image(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def matlab_weights(length, size):
    """The matrix of imresize for one axis, written out tap by tap."""
    ratio = min(1.0, size / length)
    matrix = torch.zeros(size, length, dtype=torch.float64)
    for row in range(size):
        centre = (row + 0.5) * length / size - 0.5
        for tap in range(int(centre - 2 / ratio) - 2, int(centre + 2 / ratio) + 3):
            reflected = tap % (2 * length)
            matrix[row, min(reflected, 2 * length - 1 - reflected)] += ratio * cubic((centre - tap) * ratio)
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
def test_equals_the_weights_written_out(old, new):
    source = image(2, 3, *old)
    rows, columns = matlab_weights(old[0], new[0]), matlab_weights(old[1], new[1])
    torch.testing.assert_close(resize(source, new), rows @ source @ columns.T, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("old", "new"), [((24, 36), (12, 12)), ((24, 36), (8, 18)), ((8, 8), (24, 24))])
def test_rounds_after_each_axis_the_one_that_shrinks_most_first(old, new):
    levels = image(1, 1, *old).mul(255).round()
    rows, columns = matlab_weights(old[0], new[0]), matlab_weights(old[1], new[1])
    if new[0] / old[0] <= new[1] / old[1]:
        expected = ((rows @ levels + 0.5).floor().clamp(0, 255) @ columns.T + 0.5).floor().clamp(0, 255)
    else:
        expected = (rows @ (levels @ columns.T + 0.5).floor().clamp(0, 255) + 0.5).floor().clamp(0, 255)
    assert torch.equal(resize(levels / 255, new, round_to_uint8=True).mul(255).round(), expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_equals_the_files_that_matlab_made(benchmark_data, name, scale):
    paths = sorted((benchmark_data / name / f"LRbicx{scale}").glob("*.png"))
    assert len(paths) == {"Set5": 5, "Set14": 14}[name]
    for path in paths:
        lr, hr = (np.asarray(Image.open(p).convert("RGB")) for p in (path, benchmark_data / name / path.name))
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
        made = downscale(torch.from_numpy(hr.copy()).permute(2, 0, 1)[None] / 255, scale, round_to_uint8=True)
        assert np.array_equal(made[0].mul(255).round().byte().permute(1, 2, 0).numpy(), lr), path


def test_gradient_is_the_transposed_resize():
    source = image(1, 1, 8, 12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize(x, (2, 3)), source)
    weights = image(1, 1, 2, 3, seed=1)
    (downscale(source, 4) * weights).sum().backward()
    expected = matlab_weights(8, 2).T @ weights @ matlab_weights(12, 3)
    torch.testing.assert_close(source.grad, expected, rtol=0, atol=1e-7)


def test_half_precision_and_autocast_compute_in_float32():
    source = image(1, 3, 16, 16, dtype=torch.float32)
    exact = downscale(source, 4)
    assert exact.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(downscale(source, 4), exact)
    half = source.bfloat16()
    assert torch.equal(downscale(half, 4), downscale(half.float(), 4).bfloat16())


def test_overshoots_unless_rounded():
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    assert resize(edge, (16, 16)).max() > 1
    rounded = resize(edge, (16, 16), round_to_uint8=True)
    assert rounded.max() == 1 and rounded.min() == 0


def test_keeps_the_size_without_change():
    source = image(1, 3, 7, 5, dtype=torch.float32)
    assert torch.equal(resize(source, (7, 5)), source)


def test_border_is_reflected_not_renormalised():
    source = image(1, 1, 16, 16, dtype=torch.float32)
    plain = F.interpolate(source, (4, 4), mode="bicubic", antialias=True)
    difference = (downscale(source, 4) - plain).abs()
    assert difference[..., 0, :].max() > 0.01


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="divisible by 4, got 10x12"):
        downscale(torch.rand(1, 3, 10, 12), 4)
    with pytest.raises(ValueError, match=r"uint8.*Divide"):
        resize(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (4, 4))
    with pytest.raises(ValueError, match="at least 1 pixel, got 8x8 to 0x4"):
        resize(torch.rand(1, 3, 8, 8), (0, 4))
