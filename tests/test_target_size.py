"""The size that was asked for, and the result reduced to it row by row."""

import numpy as np
import pytest
import torch

from srgan_hub.resize import bicubic_weights, resize
from srgan_hub.target_size import TargetSize, downscale_rows


@pytest.mark.parametrize(
    ("wish", "fitted", "label"),
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
def test_a_wish_becomes_a_size_and_a_name(wish, fitted, label):
    size = TargetSize.parse(wish)
    assert size.resolve(226, 150, scale=4) == fitted and size.suffix(4) == label


def test_sides_follow_whichever_way_the_image_lies():
    assert TargetSize(longest_edge=300).resolve(150, 226, scale=4) == (199, 300)
    assert TargetSize(shortest_edge=300).resolve(150, 226, scale=4) == (300, 452)


@pytest.mark.parametrize("wish", ["5x", 905, (905, None), (None, 601), (100, 601), TargetSize(shortest_edge=601)])
def test_nothing_is_made_larger_than_the_network_can(wish):
    with pytest.raises(ValueError, match=r"at most 904 x 600 pixels, 4 times .* 226 x 150, got .*; ask for less"):
        TargetSize.parse(wish).resolve(226, 150, scale=4)


@pytest.mark.parametrize(
    "wish", ["x", "2", "-2x", "2.5x", True, 2.5, (1, 2, 3), [None], 0, -5, (0, None), (1.5, None), "0x"]
)
def test_what_is_no_size_is_named(wish):
    with pytest.raises(ValueError, match="Expected"):
        TargetSize.parse(wish)


def test_one_size_at_a_time():
    with pytest.raises(
        ValueError, match="Expected one size, got scale_factor and width; only width and height go together"
    ):
        TargetSize(scale_factor=2, width=100)


@pytest.mark.parametrize(("old", "new"), [(24, 12), (24, 23), (37, 5), (600, 401), (7, 1), (9, 9)])
def test_the_written_out_weights_are_those_of_the_resize(old, new):
    indices, weights = bicubic_weights(old, new)
    column = torch.rand(old, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = resize(column[None, None, :, None], (new, 1))[0, 0, :, 0]
    torch.testing.assert_close((column[indices] * weights).sum(1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("heights", [[40], [1] * 40, [3, 17, 20], [39, 1]])
@pytest.mark.parametrize("new", [(26, 20), (51, 39), (13, 1), (1, 33), (52, 7)])
def test_rows_that_come_in_strips_give_the_whole_image_reduced_once(heights, new):
    levels = torch.randint(0, 256, (2, 40, 52, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    strips = list(downscale_rows(iter(levels.split(heights, 1)), (52, 40), new, levels=255, alpha=False))
    expected = resize(levels.permute(0, 3, 1, 2) / 255, (new[1], new[0])).clamp(0, 1) * 255
    result = torch.cat(strips, 1)
    assert result.dtype == torch.uint8
    assert (result.permute(0, 3, 1, 2) - expected).abs().max() <= 0.501


def test_strips_come_as_soon_as_their_rows_are_there():
    rows = torch.zeros(1, 400, 8, 1, dtype=torch.uint8)
    seen = []

    def strips():
        for strip in rows.split(40, 1):
            seen.append(len(made))
            yield strip

    made = []
    made.extend(downscale_rows(strips(), (8, 400), (4, 200), levels=255, alpha=False))
    assert [strip.shape[1] for strip in made] == [18, *[20] * 8, 22]


def test_transparent_colors_do_not_bleed():
    image = np.zeros((1, 40, 40, 4), np.uint8)
    image[:, :, :20] = (10, 200, 30, 255)
    image[:, :, 20:] = (255, 0, 255, 0)
    (result,) = downscale_rows(iter([torch.from_numpy(image)]), (40, 40), (13, 11), levels=255, alpha=True)
    visible = result[result[..., 3] > 0]
    assert (visible[:, :3].int() - torch.tensor([10, 200, 30])).abs().max() <= 1
    assert visible.shape[0] >= 60 and (result[..., 3] == 0).sum() >= 50


def test_sixteen_bits_stay():
    levels = torch.arange(0, 65_536, 16, dtype=torch.int32).reshape(1, 1, 4096, 1).expand(1, 4, -1, -1)
    (result,) = downscale_rows(iter([levels]), (4096, 4), (2048, 2), levels=65_535, alpha=False)
    expected = torch.arange(8, 65_536, 32)
    assert (result[0, 0, 4:-4, 0] - expected[4:-4]).abs().max() <= 1
