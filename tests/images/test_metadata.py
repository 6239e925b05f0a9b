"""Metadata survives from every format to every other; what is corrupt or unsupported is dropped with a warning."""

from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from srgan_hub.images.decode import load_image, load_raster
from srgan_hub.images.encode import save_image
from srgan_hub.images.formats import WRITE_SUFFIXES
from srgan_hub.images.raster import Raster


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def camera() -> Image.Exif:
    """Nested EXIF data as nearly every camera writes it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:01:02 03:04:05"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R98"}
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize("suffix", [".tif", ".tiff"])
def test_nested_exif_in_tiff(tmp_path, pixels, suffix, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=camera(), quality=100, dpi=(300, 300))
    image = load_image(tmp_path / "a.jpg")
    save_image(image, tmp_path / f"b{suffix}")
    assert not caplog.records
    with tifffile.TiffFile(tmp_path / f"b{suffix}") as tiff:
        tags = tiff.pages[0].tags
        assert np.array_equal(tiff.asarray(), np.asarray(image))
        assert tags["Make"].value == "Camera" and tags["XResolution"].value == (300, 1)
        assert tags["ExifTag"].value["DateTimeOriginal"] == "2024:01:02 03:04:05"
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.getexif().get_ifd(ExifTags.IFD.Interop)[1] == "R98"


def test_exif_storage_tags_do_not_apply_to_tiff(tmp_path, pixels):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.PhotometricInterpretation] = 6
    exif[ExifTags.Base.PlanarConfiguration] = 2
    exif[ExifTags.Base.RowsPerStrip] = 1
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    save_image(load_image(tmp_path / "a.png"), tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags["Make"].value == "Camera" and tags["PhotometricInterpretation"].value == 2
        assert tags["Compression"].value == 8


@pytest.mark.parametrize("data", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0", b"II"])
def test_corrupt_exif_is_dropped_with_a_warning(tmp_path, pixels, data, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=data)
    raster = load_raster(tmp_path / "a.png")
    assert ["dropped corrupt EXIF data" in warning for warning in raster.warnings] == [True]
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        save_image(raster, tmp_path / f"b{suffix}")
    assert not caplog.records
    assert np.array_equal(load_raster(tmp_path / "b.tif").array, pixels)


@pytest.mark.parametrize("dpi", [(1e9, 300), (300, float("inf")), (float("nan"), 300), (-5, 5), (3,), "text", (0, 300)])
def test_invalid_resolution_is_dropped_with_a_warning(tmp_path, pixels, dpi):
    image = Image.fromarray(pixels)
    image.info["dpi"] = dpi
    raster = Raster.from_pil(image)
    assert raster.metadata.dpi is None
    assert ["dropped invalid resolution" in warning for warning in raster.warnings] == [True]
    for suffix in WRITE_SUFFIXES:
        save_image(raster, tmp_path / f"b{suffix}")


def test_unknown_resolution_of_a_bmp_is_no_warning():
    image = Image.new("L", (3, 3))
    image.info["dpi"] = (0, 0)
    raster = Raster.from_pil(image)
    assert raster.metadata.dpi is None and not raster.warnings


def test_exif_larger_than_jpeg_stores_is_dropped(tmp_path, pixels, caplog):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    image.info = {"exif": exif.tobytes(), "dpi": (300.0, 300.0)}
    save_image(image, tmp_path / "a.jpg")
    assert "dropped EXIF data and resolution" in caplog.text and "a.jpg" in caplog.text
    assert load_image(tmp_path / "a.jpg").size == (9, 6)


def test_converting_an_image_twice_corrects_its_orientation_twice(pixels):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.info["exif"] = exif.tobytes()
    first, second = Raster.from_pil(image), Raster.from_pil(image)
    assert np.array_equal(first.array, np.rot90(pixels, -1)) and np.array_equal(first.array, second.array)


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="9" '
    'dc:title="a cat" exif:GPSLatitude="48,8N"><exif:GPSLongitude>11,3E</exif:GPSLongitude>'
    "<tiff:ImageLength>6</tiff:ImageLength><xmp:Thumbnails><rdf:Alt>base64</rdf:Alt></xmp:Thumbnails></rdf:Description></x:xmpmeta>"
)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# What each format stores; every pair of them is tried.
STORES = {
    ".png": {"profile", "exif", "xmp", "dpi", "comment", "title", "gamma", "software"},
    ".jpg": {"profile", "exif", "xmp", "dpi", "comment", "software"},
    ".tif": {"profile", "exif", "xmp", "dpi", "comment", "software"},
    ".webp": {"profile", "exif", "xmp", "software"},
    ".avif": {"profile", "exif", "xmp", "software"},
}


def write_metadata(path, pixels) -> None:
    """Write all metadata that a format stores, as other programs do."""
    exif = camera()
    exif[ExifTags.Base.ImageDescription] = "a tabby"
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ExifImageWidth: 9, ExifTags.Base.ExifImageHeight: 6})
    if path.suffix == ".avif":  # which XMP does not turn
        exif[ExifTags.Base.Orientation] = 6
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


def find_metadata(path) -> dict[str, object]:
    """Read metadata as other programs do."""
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
        found["software"] = info.get("Software") or exif.get(ExifTags.Base.Software)
    return found


@pytest.mark.parametrize("target", STORES)
@pytest.mark.parametrize("source", STORES)
def test_metadata_survives_from_each_format_to_each(tmp_path, pixels, source, target, caplog):
    write_metadata(tmp_path / f"a{source}", pixels)
    raster = load_raster(tmp_path / f"a{source}")
    metadata = replace(raster.metadata, software="srgan-hub 1, x4")
    save_image(Raster(raster.array.repeat(4, 0).repeat(4, 1), metadata), tmp_path / f"b{target}")
    before, after = find_metadata(tmp_path / f"a{source}"), find_metadata(tmp_path / f"b{target}")
    assert after["software"] == "srgan-hub 1, x4" and after["profile"] and after["gps"] == "N"
    assert after["exif"] == ("2024:01:02 03:04:05", "Camera") and after["size"] == (24, 36)  # orientation corrected
    assert 'dc:title="a cat"' in after["xmp"] and "Thumbnails" not in after["xmp"]
    assert 'tiff:Orientation="6"' not in after["xmp"]
    for size in ('exif:PixelXDimension="24"', "<tiff:ImageLength>36<"):
        assert size in after["xmp"]
    for key in ("dpi", "comment", "title", "gamma"):
        if target == ".tif" and key == "comment":  # where the camera's description is already
            continue
        assert after[key] == (before[key] if key in STORES[target] else None)
    dropped = [key for key in ("comment", "title", "gamma") if before[key] and key not in STORES[target]]
    lines = [record.message for record in caplog.records]
    assert len(lines) == bool(dropped) and all("dropped metadata" in line for line in lines)


def test_pil_images_keep_metadata(tmp_path, pixels):
    write_metadata(tmp_path / "a.png", pixels)
    image = load_image(tmp_path / "a.png")
    image.info["software"] = "srgan-hub 1"
    save_image(image, tmp_path / "b.png")
    assert find_metadata(tmp_path / "b.png") == {
        **find_metadata(tmp_path / "a.png"), "software": "srgan-hub 1", "xmp": ANY, "size": (6, 9),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("what", ["gps", "all"])
def test_strip_metadata(tmp_path, pixels, suffix, what):
    write_metadata(tmp_path / f"a{suffix}", pixels)
    image = load_image(tmp_path / f"a{suffix}")
    save_image(image, tmp_path / "b.png", strip_metadata=what)
    assert image.info["exif"]  # is not changed
    found = find_metadata(tmp_path / "b.png")
    assert found["profile"] and bool(found["gamma"]) == (suffix == ".png") and not found["gps"]
    if what == "gps":
        assert "GPS" not in found["xmp"] and "a cat" in found["xmp"]
        assert found["exif"] == ("2024:01:02 03:04:05", "Camera") and found["dpi"] == (300, 300)
    else:
        assert not any(found[key] for key in ("exif", "xmp", "dpi", "comment", "title", "software"))
    with pytest.raises(ValueError, match="`strip_metadata` must be None, 'all' or 'gps', got 'exif'"):
        save_image(image, tmp_path / "c.png", strip_metadata="exif")


def test_16_bit_images_keep_metadata(tmp_path, pixels, caplog):
    write_metadata(tmp_path / "a.png", pixels)
    raster = load_raster(tmp_path / "a.png").with_bits(16)
    raster.metadata = replace(raster.metadata, software="srgan-hub 1")
    save_image(raster, tmp_path / "b.png")
    assert find_metadata(tmp_path / "b.png") == {
        **find_metadata(tmp_path / "a.png"), "software": "srgan-hub 1", "xmp": ANY, "size": (6, 9),
    }  # fmt: skip
    assert not caplog.records
    save_image(raster, tmp_path / "b.tif")
    assert "b.tif" in caplog.text and "EXIF data, gamma and primaries, text" in caplog.text
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags["Software"].value == "srgan-hub 1" and b"a cat" in tags[700].value
