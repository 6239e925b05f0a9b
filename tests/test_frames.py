"""Frames: the same as if each came alone, and nothing twice."""

import numpy as np
import pytest

from srgan_hub.frames import upscale_frames
from srgan_hub.resize import TargetSize
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32")


@pytest.fixture
def log(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes that are computed."""
    shapes = []
    upscale = Upscaler.upscale
    monkeypatch.setattr(
        Upscaler, "upscale", lambda self, array, **more: shapes.append(array.shape) or upscale(self, array, **more)
    )
    return shapes


def test_what_changes_is_computed_and_no_more(upscaler, log):
    radius = upscaler.receptive_field
    scene = np.random.default_rng(0).integers(0, 256, (12 * radius, 10 * radius, 3), dtype=np.uint8)
    moved, corner = scene.copy(), scene.copy()
    moved[5 * radius : 5 * radius + 3, 4 * radius] ^= 1
    corner[0, -1] ^= 255
    frames = [scene, moved, scene, corner, moved]
    results = list(upscale_frames(upscaler, frames))
    assert log == [
        scene.shape,
        (4 * radius + 3, 4 * radius + 1, 3),
        (2 * radius + 1, 2 * radius + 1, 3),
    ]
    expected = [upscaler.upscale(frame) for frame in frames]
    for result, wanted in zip(results, expected, strict=True):
        assert np.abs(result.astype(int) - wanted).max() <= 1
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[3])


@pytest.mark.parametrize("change", ["alpha", "size", "shape"])
def test_what_is_computed_whole(upscaler, log, change):
    radius = upscaler.receptive_field
    scene = np.full((8 * radius, 8 * radius, 4 if change == "alpha" else 3), 90, np.uint8)
    moved = scene.copy() if change != "shape" else scene[:-1].copy()
    moved[0, 0] ^= 1
    list(upscale_frames(upscaler, [scene, moved], TargetSize(scale_factor=2) if change == "size" else None))
    assert log == [scene.shape, moved.shape]


def test_results_are_kept_within_bounds(upscaler, log, monkeypatch):
    frames = [np.full((4, 4), level, np.uint8) for level in (1, 2, 3)]
    monkeypatch.setattr("srgan_hub.frames.KEPT_BYTES", 2 * 16 * 16)
    list(upscale_frames(upscaler, [*frames, frames[1], frames[0]]))
    assert len(log) == 4
