"""Preparing chosen images in the demo."""

import numpy as np
import pytest
from malformed_files import png_header
from PIL import Image

from srgan_hub.demo.inputs import fit_size, prepare
from srgan_hub.images.errors import ImageError


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    path = tmp_path / "photo.webp"
    Image.fromarray(pixels).save(path, lossless=True, exif=exif)
    return path


def upright(path):
    with Image.open(path) as image:
        return np.rot90(np.asarray(image), -1).astype(int)


def test_image_within_the_limit_is_unchanged(photo, tmp_path):
    prepared = prepare(photo, tmp_path, max_pixels=1200)
    assert prepared.file == photo and (prepared.width, prepared.height) == (30, 40) and not prepared.note
    with Image.open(prepared.preview) as preview:
        assert preview.size == (30, 40) and preview.format == "JPEG"
    assert prepared.image.image.size == (30, 40)


def test_larger_image_is_kept_cropped_or_shrunk(photo, tmp_path):
    large = prepare(photo, tmp_path, max_pixels=1199)
    assert large.file == photo and large.image is None and large.preview.exists()
    region = prepare(photo, tmp_path, max_pixels=1199, region=(3, 5, 20, 10))
    with Image.open(region.file) as cropped:
        assert np.array_equal(np.asarray(cropped), upright(photo)[5:15, 3:23])
        assert cropped.getexif()[0x010F] == "Maker" and 0x0112 not in cropped.getexif()
    assert region.image.name == "photo.png" and region.note == "Cropped from 30 × 40."
    small = prepare(photo, tmp_path, max_pixels=300, shrink=True)
    with Image.open(small.file) as shrunk:
        assert shrunk.size == (15, 20) and shrunk.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 31, 5), (0, 36, 5, 5), (0, 0, 0, 5), (0, 0, 30, 40)])
def test_regions_outside_or_over_the_limit_are_refused(photo, tmp_path, region):
    with pytest.raises(ImageError, match="must lie in the image"):
        prepare(photo, tmp_path, max_pixels=1199, region=region)


def test_more_than_can_be_decoded_is_refused(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(9000, 9000))
    with pytest.raises(ImageError, match="9000 x 9000"):
        prepare(path, tmp_path, max_pixels=100)


@pytest.mark.parametrize(
    ("size", "limit"), [((4000, 3000), 4_000_000), ((100_000, 3), 1000), ((7, 5), 1), ((3, 4), 99)]
)
def test_fit_size_is_the_largest_within_the_limit(size, limit):
    width, height = fit_size(*size, limit)
    assert 1 <= width <= size[0] and 1 <= height <= size[1] and width * height <= limit
    if width * height > 1000:
        assert width * height > 0.99 * limit and width / height == pytest.approx(size[0] / size[1], rel=0.01)
