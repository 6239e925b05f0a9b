"""TIFF of several pages: each with its own size, depth and resolution; smaller copies are no pages."""

import importlib.util

import numpy as np
import pytest
import tifffile
from PIL import Image

from srgan_hub.batch import upscale_files
from srgan_hub.images import decode
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32")


def test_every_page(upscaler, tmp_path):
    random = np.random.default_rng(0)
    pages = [
        random.integers(0, 256, (10, 12, 3), dtype=np.uint8),
        random.integers(0, 65_536, (8, 6), dtype=np.uint16),
        random.integers(0, 65_536, (7, 9, 4), dtype=np.uint16),
        random.integers(0, 256, (5, 5), dtype=np.uint8),
    ]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, page in enumerate(pages):
            extra = {"extrasamples": ["unassalpha"]} if page.shape[-1] == 4 else {}
            photometric = "rgb" if page.ndim == 3 else "minisblack"
            resolution = {"resolution": (100 + number, 100), "resolutionunit": "INCH"}
            file.write(page, photometric=photometric, metadata=None, **resolution, **extra)
    ((_, target, problem),) = upscale_files(upscaler, [tmp_path / "a.tif"])
    assert problem is None and target.name == "a_x4.tif"
    with tifffile.TiffFile(target) as file:
        assert len(file.pages) == 4
        for number, (page, result) in enumerate(zip(pages, file.pages, strict=True)):
            assert result.dtype == page.dtype
            assert np.abs(result.asarray().astype(int) - upscaler.upscale(page)).max() <= 1
            assert result.resolution == (100 + number, 100)


def test_smaller_copies_and_masks_are_no_pages(upscaler, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(image[::4, ::4], photometric="rgb", subfiletype=1)  # a thumbnail that comes first
        file.write(image, photometric="rgb")
        file.write(image[::2, ::2], photometric="rgb", subfiletype=1)
        file.write(image[..., 0] > 9, photometric="mask", subfiletype=4)
    assert np.array_equal(decode.load_raster(tmp_path / "a.tif").array, image)
    ((_, target, _),) = upscale_files(upscaler, [tmp_path / "a.tif"])
    assert target.name == "a_x4.png" and Image.open(target).size == (80, 64)


def test_what_cannot_be(upscaler, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(2):
            file.write(np.zeros((8, 8), np.uint8))
    ((_, _, problem),) = upscale_files(upscaler, [tmp_path / "a.tif"], str(tmp_path / "b.png"))
    assert str(problem).endswith("b.png: expected .tif or .tiff for a file of several pages, got .png.")
    ((_, _, problem),) = upscale_files(upscaler, [tmp_path / "a.tif"], str(tmp_path / "b.tif"), max_pixels=60)
    assert "8 x 8 pixels; the limit" in str(problem)
    assert not list(tmp_path.glob("*b*"))


def test_without_tifffile(upscaler, tmp_path, monkeypatch):
    frames = [Image.new("L", (8, 8)), Image.new("L", (8, 8))]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tifffile" else find(name))
    ((_, _, problem),) = upscale_files(upscaler, [tmp_path / "a.tif"])
    assert str(problem).endswith("a_x4.tif: a file of several pages needs tifffile; pip install 'srgan-hub[tiff]'.")
