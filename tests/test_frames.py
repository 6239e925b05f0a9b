"""Frames equal those upscaled alone, and nothing is computed twice."""

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


def test_only_changed_regions_are_computed(upscaler, log):
    halo = upscaler.receptive_field
    scene = np.random.default_rng(0).integers(0, 256, (12 * halo, 10 * halo, 3), dtype=np.uint8)
    moved, corner = scene.copy(), scene.copy()
    moved[5 * halo : 5 * halo + 3, 4 * halo] ^= 1
    corner[0, -1] ^= 255
    frames = [scene, moved, scene, corner, moved]
    results = list(upscale_frames(upscaler, frames))
    assert log == [scene.shape, (4 * halo + 3, 4 * halo + 1, 3), (2 * halo + 1, 2 * halo + 1, 3)]
    expected = [upscaler.upscale(frame) for frame in frames]
    for result, wanted in zip(results, expected, strict=True):
        assert np.abs(result.astype(int) - wanted).max() <= 1
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[3])


@pytest.mark.parametrize("change", ["alpha", "size", "shape"])
def test_frames_that_are_computed_in_full(upscaler, log, change):
    halo = upscaler.receptive_field
    scene = np.full((8 * halo, 8 * halo, 4 if change == "alpha" else 3), 90, np.uint8)
    moved = scene.copy() if change != "shape" else scene[:-1].copy()
    moved[0, 0] ^= 1
    list(upscale_frames(upscaler, [scene, moved], TargetSize(2) if change == "size" else None))
    assert log == [scene.shape, moved.shape]


def test_cache_is_bounded(upscaler, log, monkeypatch):
    frames = [np.full((4, 4), value, np.uint8) for value in (1, 2, 3)]
    monkeypatch.setattr("srgan_hub.frames.CACHE_BYTES", 2 * 16 * 16)
    list(upscale_frames(upscaler, [*frames, frames[1], frames[0]]))
    assert len(log) == 4


def test_restart_interval(upscaler, log):
    """Nothing is reused across restarts: each interval gives what it would give alone."""
    frames = [np.full((4, 4), value, np.uint8) for value in (1, 1, 1, 2, 2)]
    list(upscale_frames(upscaler, frames, restart_interval=2))
    assert log == [(4, 4)] * 4
