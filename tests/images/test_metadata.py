"""What must survive does, and what is broken or too much for a format costs a warning and not the image."""

import logging
from unittest.mock import ANY

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from srgan_hub.images import decode, metadata
from srgan_hub.images.raster import Raster


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
    image = decode.load_image(tmp_path / "a.jpg")
    decode.save_image(image, tmp_path / f"b{suffix}")
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
    decode.save_image(decode.load_image(tmp_path / "a.png"), tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags["Make"].value == "Camera" and tags["PhotometricInterpretation"].value == 2
        assert tags["Compression"].value == 8


@pytest.mark.parametrize("data", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0", b"II"])
def test_broken_exif_is_left_out_and_said(tmp_path, pixels, data, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=data)
    image = decode.load_image(tmp_path / "a.png")
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        decode.save_image(image, tmp_path / f"b{suffix}")
    assert [f"{tmp_path}/a.png: broken EXIF data left out" in record.message for record in caplog.records] == [True]
    assert np.array_equal(np.asarray(decode.load_image(tmp_path / "b.tif")), pixels)


@pytest.mark.parametrize("dpi", [(1e9, 300), (300, float("inf")), (float("nan"), 300), (-5, 5), (3,), "text", (0, 300)])
def test_absurd_resolutions_are_left_out_and_said(tmp_path, pixels, dpi, caplog):
    image = Image.fromarray(pixels)
    image.info["dpi"] = dpi
    image = decode.from_pil(image, name="a.png")
    assert "dpi" not in image.info
    assert [(record.levelno, record.message[:20]) for record in caplog.records] == [
        (logging.WARNING, "a.png: a resolution ")
    ]
    for suffix in decode.SUFFIXES:
        decode.save_image(image, tmp_path / f"b{suffix}")


def test_no_resolution_is_not_said(caplog):
    image = Image.new("L", (3, 3))
    image.info["dpi"] = (0, 0)
    assert "dpi" not in decode.from_pil(image).info and not caplog.records


def test_what_a_format_cannot_hold_does_not_cost_the_image(tmp_path, pixels, caplog):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000  # more than JPEG holds
    image.info = {"exif": exif.tobytes(), "dpi": (300.0, 300.0)}
    decode.save_image(image, tmp_path / "a.jpg")
    assert "a.jpg: EXIF data and resolution left out, which JPEG cannot hold" in caplog.text
    assert decode.load_image(tmp_path / "a.jpg").size == (9, 6)


def test_an_image_that_is_turned_twice_is_turned_alike(pixels):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.info["exif"] = exif.tobytes()
    first, second = decode.from_pil(image), decode.from_pil(image)
    assert np.array_equal(first.array, np.rot90(pixels, -1)) and np.array_equal(first.array, second.array)


def test_strip_drops_the_place_or_all_but_the_profile(pixels, tmp_path):
    path = tmp_path / "placed.jpg"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).convert("RGB").save(path, exif=camera(), dpi=(72, 72), icc_profile=profile)
    for gps, maker, date, dpi in ((True, "Camera", "2024:01:02 03:04:05", (72, 72)), (False, None, None, None)):
        image = decode.load_image(path)
        metadata.strip(image, gps=gps)
        decode.save_image(image, tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as result:
            found = result.getexif()
            assert found.get(ExifTags.Base.Make) == maker
            assert found.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) == date
            assert not found.get_ifd(ExifTags.IFD.GPSInfo)
            assert result.info["icc_profile"] == profile
            assert bool(result.info.get("dpi")) == bool(dpi)


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="9" '
    'dc:title="a cat" exif:GPSLatitude="48,8N"><exif:GPSLongitude>11,3E</exif:GPSLongitude>'
    "<tiff:ImageLength>6</tiff:ImageLength><xmp:Thumbnails><rdf:Alt>base64</rdf:Alt></xmp:Thumbnails></rdf:Description></x:xmpmeta>"
)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# What each format holds; every pair of them is tried.
HOLDS = {
    ".png": {"profile", "exif", "xmp", "dpi", "comment", "title", "gamma", "program"},
    ".jpg": {"profile", "exif", "xmp", "dpi", "comment", "program"},
    ".tif": {"profile", "exif", "xmp", "dpi", "comment", "program"},
    ".webp": {"profile", "exif", "xmp", "program"},
    ".avif": {"profile", "exif", "xmp", "program"},
}


def write_rich(path, pixels) -> None:
    """All that a format can carry, as other programs write it."""
    exif = camera()
    exif[ExifTags.Base.ImageDescription] = "a tabby"
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ExifImageWidth: 9, ExifTags.Base.ExifImageHeight: 6})
    options = {"exif": exif, "icc_profile": PROFILE, "dpi": (300, 300)}
    if path.suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "purrs")
        info.add_itxt("Title", "猫")
        info.add_itxt("XML:com.adobe.xmp", XMP)
        info.add(b"gAMA", (50_000).to_bytes(4, "big"))
        info.add(b"cICP", bytes([9, 16, 0, 1]))
        options["pnginfo"] = info
    elif path.suffix == ".tif":
        exif.load(exif.tobytes())
        for nested in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            exif.get_ifd(nested)
        exif[700] = XMP.encode()
    else:
        options["xmp"] = XMP.encode()
    if path.suffix == ".jpg":
        options["comment"] = "purrs"
    Image.fromarray(pixels).save(path, **options)


def find_rich(path) -> dict[str, object]:
    """What is found in a file, by other programs' ways to read it."""
    found: dict[str, object] = {}
    with Image.open(path) as image:
        image.load()
        info = image.info
        exif = image.getexif()
        nested = exif.get_ifd(ExifTags.IFD.Exif)
        found["profile"] = info.get("icc_profile") == PROFILE or None
        found["exif"] = nested.get(ExifTags.Base.DateTimeOriginal), exif.get(ExifTags.Base.Make)
        found["exif"] = found["exif"] if any(found["exif"]) else None
        found["size"] = nested.get(ExifTags.Base.ExifImageWidth), nested.get(ExifTags.Base.ExifImageHeight)
        found["gps"] = exif.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitudeRef)
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
        found["xmp"] = xmp.decode() if isinstance(xmp, bytes) else xmp
        found["dpi"] = tuple(map(round, info["dpi"])) if info.get("dpi", (1, 1)) not in ((1, 1), (72, 72)) else None
        comment = info.get("Comment") or info.get("comment")
        found["comment"] = comment.decode() if isinstance(comment, bytes) else comment
        found["title"] = info.get("Title")
        found["gamma"] = info.get("gamma")
        found["program"] = info.get("Software") or exif.get(ExifTags.Base.Software)
    return found


@pytest.mark.parametrize("target", HOLDS)
@pytest.mark.parametrize("source", HOLDS)
def test_what_survives_from_each_format_to_each(tmp_path, pixels, source, target, caplog):
    write_rich(tmp_path / f"a{source}", pixels)
    raster = decode.load_raster(tmp_path / f"a{source}")
    large = Raster(raster.array.repeat(4, 0).repeat(4, 1), raster.info)
    metadata.set_software(large, "srgan-hub 1, x4")
    decode.save_image(large, tmp_path / f"b{target}")
    before, after = find_rich(tmp_path / f"a{source}"), find_rich(tmp_path / f"b{target}")
    assert after["program"] == "srgan-hub 1, x4" and after["profile"] and after["gps"] == "N"
    assert after["exif"] == ("2024:01:02 03:04:05", "Camera") and after["size"] == (24, 36)  # upright
    assert 'dc:title="a cat"' in after["xmp"] and "Thumbnails" not in after["xmp"]
    assert 'tiff:Orientation="6"' not in after["xmp"]
    for stated in ('exif:PixelXDimension="24"', "<tiff:ImageLength>36<"):
        assert stated in after["xmp"]
    for key in ("dpi", "comment", "title", "gamma"):
        if target == ".tif" and key == "comment":  # where the camera's description has the place
            continue
        assert after[key] == (before[key] if key in HOLDS[target] else None)
    lost = [key for key in ("comment", "title", "gamma") if before[key] and key not in HOLDS[target]]
    lines = [record.message for record in caplog.records]
    assert len(lines) == bool(lost) and all("left out, which" in line for line in lines)


def test_images_of_pillow_carry_as_much(tmp_path, pixels):
    write_rich(tmp_path / "a.png", pixels)
    image = decode.load_image(tmp_path / "a.png")
    metadata.set_software(image, "srgan-hub 1")
    decode.save_image(image, tmp_path / "b.png")
    assert find_rich(tmp_path / "b.png") == {
        **find_rich(tmp_path / "a.png"), "program": "srgan-hub 1", "xmp": ANY, "size": (6, 9),
    }  # fmt: skip


def test_the_place_goes_and_all_goes(tmp_path, pixels):
    write_rich(tmp_path / "a.png", pixels)
    for gps in (True, False):
        raster = decode.load_raster(tmp_path / "a.png")
        metadata.strip(raster, gps=gps)
        decode.save_image(raster, tmp_path / "b.png")
        found = find_rich(tmp_path / "b.png")
        assert found["profile"] and found["gamma"] and not found["gps"]
        if gps:
            assert "GPS" not in found["xmp"] and "a cat" in found["xmp"] and found["exif"][1] == "Camera"
        else:
            assert not any(found[key] for key in ("exif", "xmp", "dpi", "comment", "title", "program"))


def test_sixteen_bits_carry_as_much(tmp_path, pixels, caplog):
    write_rich(tmp_path / "a.png", pixels)
    raster = decode.load_raster(tmp_path / "a.png").with_bits(16)
    metadata.set_software(raster, "srgan-hub 1")
    decode.save_image(raster, tmp_path / "b.png")
    assert find_rich(tmp_path / "b.png") == {
        **find_rich(tmp_path / "a.png"),
        "program": "srgan-hub 1",
        "xmp": ANY,
        "size": (6, 9),
    }
    assert not caplog.records
    decode.save_image(raster, tmp_path / "b.tif")
    assert "b.tif: left out, which a TIFF of 16 bits cannot hold: EXIF data, gamma and primaries, text" in caplog.text
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags["Software"].value == "srgan-hub 1" and b"a cat" in tags[700].value
