"""What must survive does, and what is broken or too much for a format costs a warning and not the picture."""

import logging

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from srgan_hub.pictures import carried, files


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def camera() -> Image.Exif:
    """What nearly every camera writes: data within data."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R98"}
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
def test_a_cameras_exif_goes_into_a_tiff(tmp_path, pixels, suffix, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=camera(), quality=100, dpi=(300, 300))
    image = files.read_image(tmp_path / "a.jpg")
    files.write(image, tmp_path / f"b{suffix}")
    assert not caplog.records
    with tifffile.TiffFile(tmp_path / f"b{suffix}") as tiff:
        tags = tiff.pages[0].tags
        assert np.array_equal(tiff.asarray(), np.asarray(image))
        assert tags["Make"].value == "Camera" and tags["XResolution"].value == (300, 1)
        assert tags["ExifTag"].value["DateTimeOriginal"] == "2024:01:02 03:04:05"
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.getexif().get_ifd(ExifTags.IFD.Interop)[1] == "R98"


def test_exif_does_not_say_how_the_pixels_of_a_tiff_are_stored(tmp_path, pixels):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.PhotometricInterpretation] = 6
    exif[ExifTags.Base.PlanarConfiguration] = 2
    exif[ExifTags.Base.RowsPerStrip] = 1
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    files.write(files.read_image(tmp_path / "a.png"), tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags["Make"].value == "Camera" and tags["PhotometricInterpretation"].value == 2
        assert tags["Compression"].value == 8


@pytest.mark.parametrize("data", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0", b"II"])
def test_broken_exif_is_left_out_and_said(tmp_path, pixels, data, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=data)
    image = files.read_image(tmp_path / "a.png")
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        files.write(image, tmp_path / f"b{suffix}")
    assert [f"{tmp_path}/a.png: broken EXIF data left out" in record.message for record in caplog.records] == [True]
    assert np.array_equal(np.asarray(files.read_image(tmp_path / "b.tif")), pixels)


@pytest.mark.parametrize("dpi", [(1e9, 300), (300, float("inf")), (float("nan"), 300), (-5, 5), (3,), "text", (0, 300)])
def test_absurd_resolutions_are_left_out_and_said(tmp_path, pixels, dpi, caplog):
    image = Image.fromarray(pixels)
    image.info["dpi"] = dpi
    image = files.from_image(image, name="a.png")
    assert "dpi" not in image.info
    assert [(record.levelno, record.message[:20]) for record in caplog.records] == [
        (logging.WARNING, "a.png: a resolution ")
    ]
    for suffix in files.SUFFIXES:
        files.write(image, tmp_path / f"b{suffix}")


def test_no_resolution_is_not_said(caplog):
    image = Image.new("L", (3, 3))
    image.info["dpi"] = (0, 0)
    assert "dpi" not in files.from_image(image).info and not caplog.records


def test_what_a_format_cannot_hold_does_not_cost_the_picture(tmp_path, pixels, caplog):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000  # more than JPEG holds
    image.info = {"exif": exif.tobytes(), "dpi": (300.0, 300.0)}
    files.write(image, tmp_path / "a.jpg")
    assert "a.jpg: EXIF data and resolution left out, which JPEG cannot hold" in caplog.text
    assert files.read_image(tmp_path / "a.jpg").size == (9, 6)


def test_a_picture_that_is_turned_twice_is_turned_alike(pixels):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.info["exif"] = exif.tobytes()
    first, second = files.from_image(image), files.from_image(image)
    assert np.array_equal(first.array, np.rot90(pixels, -1)) and np.array_equal(first.array, second.array)


def test_strip_drops_the_place_or_all_but_the_profile(pixels, tmp_path):
    path = tmp_path / "placed.jpg"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).convert("RGB").save(path, exif=camera(), dpi=(72, 72), icc_profile=profile)
    for gps, maker, date, dpi in ((True, "Camera", "2024:01:02 03:04:05", (72, 72)), (False, None, None, None)):
        image = files.read_image(path)
        carried.strip(image, gps=gps)
        files.write(image, tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as result:
            found = result.getexif()
            assert found.get(ExifTags.Base.Make) == maker
            assert found.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) == date
            assert not found.get_ifd(ExifTags.IFD.GPSInfo)
            assert result.info["icc_profile"] == profile
            assert bool(result.info.get("dpi")) == bool(dpi)
