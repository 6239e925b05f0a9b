"""Writing images: transparency in formats without alpha, and errors of the operating system."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upscaled_files import upscale_file

from srgan_hub.images.encode import SaveOptions, atomic_output, save_image, without_alpha
from srgan_hub.images.errors import ImageError
from srgan_hub.images.raster import Raster

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("background", ["#fff", "black", "#808080", "orange"])
def test_transparent_images_are_composited_with_rounding(dtype, channels, background):
    maximum = np.iinfo(dtype).max
    array = RANDOM.integers(0, maximum + 1, (9, 8, channels), dtype=dtype)
    array[0] = maximum
    array[1:3, :, -1] = [[0], [maximum]]
    color = np.array(Image.new("RGB", (1, 1), background))[0, 0] * (maximum / 255)
    if channels == 2 and background != "orange":
        color = color[:1]
    alpha = array[..., -1:] / maximum
    expected = np.floor(array[..., :-1] * alpha + color * (1 - alpha) + 0.5)
    found = without_alpha(Raster(array), Path("a.jpg"), background).array
    assert found.dtype == dtype and found.shape == (expected[..., 0] if len(color) == 1 else expected).shape
    assert np.abs(found.reshape(expected.shape) - expected).max() == 0


def test_opaque_alpha_is_dropped_and_transparency_is_refused_with_the_way_out(tmp_path):
    array = RANDOM.integers(0, 256, (9, 8, 4), dtype=np.uint8)
    array[..., 3] = 255
    for name in ("a.jpg", "a.bmp"):
        save_image(array, tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.mode == "RGB"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.bmp")), array[..., :3])
    array[8, 7, 3] = 254
    with pytest.raises(ImageError, match="`background`"):
        save_image(array, tmp_path / "b.jpg")
    save_image(array, tmp_path / "b.png", background="white")  # which stores alpha
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), array)
    save_image(array, tmp_path / "b.bmp", background="white")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.bmp"))[:8], array[:8, :, :3])


@pytest.mark.parametrize("background", ["nonsense", "#12", "#ffffff80", "", 3])
def test_invalid_background(background):
    with pytest.raises(ValueError, match="`background`"):
        SaveOptions(background=background)


@contextmanager
def small_files() -> Iterator[None]:
    """Limit the size of files: as on a full disk, a part of a write succeeds and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".avif"])
def test_errors_of_encoders_name_the_reason(tmp_path, caplog, suffix):
    array = RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with small_files(), pytest.raises(ImageError, match="cannot be written: File too large"):
        save_image(array, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir()) and not caplog.records


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
def test_animation_that_is_written_in_part_is_an_error(tmp_path, upscaler, suffix):
    array = RANDOM.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    frames = [Image.fromarray(each) for each in (array, array[::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with small_files(), pytest.raises(ImageError, match="File too large"):
        upscale_file(upscaler, tmp_path / "a.gif", tmp_path / f"b{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_other_errors_of_encoders_stay(tmp_path):
    with pytest.raises(ImageError, match="encoder error"), atomic_output(tmp_path / "a.png", overwrite=False):
        raise OSError("encoder error -2 when writing image file")
