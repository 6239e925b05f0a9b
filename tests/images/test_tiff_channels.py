"""Floats and channels that are no colors: type, layout and range stay, and so does what is no number."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from srgan_hub.batch import upscale_files
from srgan_hub.images.decode import ImageError
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32")


def expect(upscaler: Upscaler, plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """The tensor's way."""
    tensor = torch.from_numpy(((plane.astype(np.float64) - low) / (high - low)).clip(0, 1)).float()
    return upscaler.upscale(tensor.expand(3, -1, -1)).mean(0).double().numpy() * (high - low) + low


def upscale(upscaler: Upscaler, source: Path, target: Path, **options: object) -> np.ndarray:
    ((_, _, problem),) = upscale_files(upscaler, [source], str(target), **options)
    if problem:
        raise problem
    return tifffile.imread(target)


def smooth(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_have_their_own_range(upscaler, tmp_path, dtype):
    array = (smooth(12, 16) * 500 - 100).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, resolution=(50, 60), resolutionunit="CENTIMETER", metadata=None)
    ((_, target, problem),) = upscale_files(upscaler, [tmp_path / "a.tif"])
    assert problem is None and target.name == "a_x4.tif"
    result = tifffile.imread(target)
    assert result.dtype == dtype and result.shape == (48, 64)
    exact = expect(upscaler, array, float(array.min()), float(array.max()))
    assert np.abs(result - exact).max() <= (0.5 if dtype == "float16" else 1e-3)
    with tifffile.TiffFile(target) as file:
        assert file.pages[0].resolution == (50, 60)


def test_the_range_that_is_given(upscaler, tmp_path):
    array = smooth(12, 16).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", array)
    result = upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif", value_range=(-1.0, 3.0))
    assert np.abs(result - expect(upscaler, array, -1, 3)).max() < 1e-5


def test_what_is_no_number_stays_so(upscaler, tmp_path):
    array = smooth(20, 24).astype(np.float32)
    array[4:7, 10:15] = np.nan
    array[12, 3] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", array)
    result = upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
    assert np.array_equal(np.isnan(result), np.isnan(array).repeat(4, 0).repeat(4, 1))
    assert np.array_equal(np.isinf(result), np.isinf(array).repeat(4, 0).repeat(4, 1))
    # What fills the holes lies within what surrounds them: nothing bleeds out of them.
    assert np.nanmax(result[np.isfinite(result)]) <= 1 and np.nanmin(result) >= 0


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_channels_one_by_one(upscaler, tmp_path, dtype, layout):
    array = smooth(10, 12, 5)
    high = 1 if dtype == "float32" else np.iinfo(dtype).max
    array = (array * high).astype(dtype)
    stored = array if layout == "contig" else np.moveaxis(array, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=layout, metadata=None)
    result = upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].planarconfig == (1 if layout == "contig" else 2) and file.pages[0].samplesperpixel == 5
    result = result if layout == "contig" else np.moveaxis(result, 0, -1)
    assert result.dtype == dtype and result.shape == (40, 48, 5)
    low, top = (0, high) if dtype != "float32" else (float(array.min()), float(array.max()))
    for c in range(5):
        exact = expect(upscaler, array[..., c], low, top)
        assert np.abs(result[..., c] - exact).max() <= (1e-5 if dtype == "float32" else 0.51)


def test_pages_of_a_microscope(upscaler, tmp_path):
    array = smooth(3, 10, 12).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
    result = upscale(upscaler, tmp_path / "a.ome.tif", tmp_path / "b.tif", size=24)
    assert result.shape == (3, 20, 24)


def test_what_cannot_be(upscaler, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", smooth(10, 12).astype(np.float32))
    with pytest.raises(ImageError, match=r"b.png: expected .tif or .tiff for floats and channels"):
        upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.png")
    with pytest.raises(ImageError, match="12 x 10 pixels; the limit"):
        upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif", max_pixels=60)
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((8, 8), np.complex64))
    with pytest.raises(ImageError, match=r"c.tif"):
        upscale(upscaler, tmp_path / "c.tif", tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((8, 8, 5), np.int16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=r"holds int16; expected floats"):
        upscale(upscaler, tmp_path / "d.tif", tmp_path / "b.tif")
    assert not (tmp_path / "b.tif").exists()


def test_nothing_but_holes(upscaler, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), np.nan, np.float32))
    assert np.isnan(upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")).all()


def test_how_it_is_turned_stays(upscaler, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", smooth(4, 6).astype(np.float32), extratags=[(274, 3, 1, 6, True)])
    assert upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif").shape == (16, 24)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].tags["Orientation"].value == 6
