"""Metadata survives from every format to every other; what is corrupt or unsupported is dropped with a warning."""

import io
import json
import re
import struct
from contextlib import suppress
from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from srgan_hub.images import iptc
from srgan_hub.images.decode import load_image, load_raster
from srgan_hub.images.encode import save_image
from srgan_hub.images.exif import Exif
from srgan_hub.images.formats import WRITE_SUFFIXES
from srgan_hub.images.metadata import Metadata
from srgan_hub.images.raster import Raster
from srgan_hub.images.tiff import write_tiff
from srgan_hub.images.xmp import properties


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "drone-dji": "http://www.dji.com/drone-dji/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
}


def packet(attributes: str = "", elements: str = "", renamed: str = "") -> bytes:
    """An XMP packet with properties, and with one namespace under the prefix "other"."""
    names = {"other" if prefix == renamed else prefix: name for prefix, name in NAMESPACES.items()}
    declared = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in names.items())
    if renamed:
        attributes, elements = (text.replace(f"{renamed}:", "other:") for text in (attributes, elements))
    content = f'<rdf:RDF {declared}><rdf:Description rdf:about="" {attributes}>{elements}</rdf:Description></rdf:RDF>'
    return f'<?xpacket begin="\ufeff" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/">{content}</x:xmpmeta>'.encode()


XMP = packet(
    'tiff:Orientation="6" exif:PixelXDimension="9" dc:title="a cat" exif:GPSLatitude="48,8N"',
    "<exif:GPSLongitude>11,3E</exif:GPSLongitude><tiff:ImageLength>6</tiff:ImageLength>"
    "<xmp:Thumbnails><rdf:Alt>base64</rdf:Alt></xmp:Thumbnails>",
).decode()


def dataset(number: int, text: str) -> bytes:
    """An IPTC dataset of record 2."""
    data = text.encode()
    size = struct.pack(">H", len(data)) if len(data) < 32_768 else struct.pack(">HI", 0x8004, len(data))
    return bytes([0x1C, 2, number]) + size + data


def caption(text: str) -> bytes:
    return dataset(120, text)


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


@pytest.mark.parametrize("key", ["exif", "xmp", "iptc", "Comment"])
def test_what_is_longer_than_jpeg_stores_costs_only_itself(tmp_path, pixels, key, caplog):
    exif, title = Image.Exif(), "x" * 70_000
    exif[ExifTags.Base.ImageDescription] = title
    long = {"exif": exif.tobytes(), "xmp": f"<x>{title}</x>".encode(), "iptc": caption(title), "Comment": title}
    image = Image.fromarray(pixels)
    image.info = {"exif": camera().tobytes(), "xmp": b"<x/>", "iptc": caption("a cat"), "dpi": (300.0, 300.0)}
    image.info |= {"Comment": "purrs", key: long[key]}
    save_image(image, tmp_path / "a.jpg")
    (line,) = caplog.messages
    word = {"exif": "EXIF data", "xmp": "XMP", "iptc": "IPTC", "Comment": "a comment"}[key]
    assert f"dropped {word} that is longer than JPEG stores" in line and "a.jpg" in line
    written = load_raster(tmp_path / "a.jpg").metadata
    assert written.dpi == (300, 300)
    found = {"exif": written.exif, "xmp": written.xmp, "iptc": written.iptc, "Comment": written.text.get("Comment")}
    assert [name for name, value in found.items() if not value] == [key]


def _rotated(pixels, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Camera"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix, exif=exif)
    return Image.open(buffer)


@pytest.mark.parametrize("suffix", ["PNG", "TIFF"])
@pytest.mark.parametrize("load", [False, True])
def test_converting_an_opened_image_twice_corrects_its_orientation_twice(load, suffix, pixels):
    image = _rotated(pixels, suffix)
    if load:
        image.load()
    first, second = Raster.from_pil(image), Raster.from_pil(image)
    assert np.array_equal(first.array, np.rot90(pixels, -1)) and np.array_equal(first.array, second.array)


def test_transposed_image_without_other_tags_has_no_warning(pixels):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    transposed = ImageOps.exif_transpose(Image.open(buffer))  # which leaves an empty directory
    assert transposed.info["exif"]
    raster = Raster.from_pil(transposed)
    assert not raster.warnings and raster.metadata.exif is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_is_not_turned_by_xmp(pixels, tmp_path, dtype):
    xmp = packet("tiff:Orientation='6'")
    tags = [(700, 1, len(xmp), xmp, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(dtype), photometric="rgb", extratags=tags)
    assert np.array_equal(load_raster(tmp_path / "a.tif").array, pixels)


def test_orientation_of_a_copy_is_not_corrected_again(pixels, tmp_path):
    image = _rotated(pixels, "PNG")
    upright = np.rot90(pixels, -1)
    in_place = _rotated(pixels, "PNG")
    ImageOps.exif_transpose(in_place, in_place=True)
    for copy, expected in (
        (image.rotate(-90, expand=True), upright),
        (image.transpose(Image.Transpose.ROTATE_270), upright),
        (ImageOps.exif_transpose(image), upright),
        (in_place, upright),
        (image.copy(), pixels),
        (image.convert("RGB"), pixels),
    ):
        raster = Raster.from_pil(copy)
        assert np.array_equal(raster.array, expected)
        assert not raster.warnings
        save_image(copy, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as saved:
            assert np.array_equal(np.asarray(ImageOps.exif_transpose(saved)), expected)
            assert saved.getexif()[ExifTags.Base.Make] == "Camera"


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
    assert after["exif"] == ("2024:01:02 03:04:05", "Camera") and after["size"] == (24, 36)
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
    assert "b.tif" in caplog.text and "gamma and primaries, text (Title)" in caplog.text
    found = find_metadata(tmp_path / "b.tif")
    assert found["software"] == "srgan-hub 1" and "a cat" in found["xmp"] and found["gps"] == "N"
    assert found["exif"] == ("2024:01:02 03:04:05", "Camera")


def located_exif() -> bytes:
    """EXIF data with a location, in directories and in a maker note."""
    exif = camera()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 31.0)})
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"Panasonic\0\0\0 Berlin"
    exif.load(exif.tobytes())
    return exif.tobytes()


LOCATED_IPTC = b"".join(
    dataset(number, text)
    for number, text in {
        26: "DEU", 27: "Alexanderplatz", 90: "Berlin", 92: "Mitte", 95: "Berlin", 100: "DEU", 101: "Germany",
        120: "a cat", 5: "Tabby",
    }.items()
)  # fmt: skip
SHOWN = "<rdf:Bag><rdf:li rdf:parseType='Resource'><Iptc4xmpExt:City>Berlin</Iptc4xmpExt:City></rdf:li></rdf:Bag>"
LOCATED_XMP = {
    "attributes": packet(
        "exif:GPSLatitude='52,31N' drone-dji:GpsLatitude='52.5' drone-dji:AbsoluteAltitude='+34.1' dc:title='a cat' "
        "photoshop:City='Berlin' Iptc4xmpCore:Location='Mitte' Iptc4xmpCore:CountryCode='DEU' tiff:Make='Camera'"
    ),
    "elements": packet(
        "photoshop:State='Berlin' dc:title='a cat'",
        "<exif:GPSLongitude>13,24E</exif:GPSLongitude><photoshop:Country>Germany</photoshop:Country>"
        f"<drone-dji:GpsLongtitude>13.4</drone-dji:GpsLongtitude><Iptc4xmpExt:LocationShown>{SHOWN}"
        f"</Iptc4xmpExt:LocationShown><Iptc4xmpExt:LocationCreated>{SHOWN}</Iptc4xmpExt:LocationCreated>",
    ),
    "prefix": packet("exif:GPSLatitude='52,31N' dc:title='a cat'", "<exif:GPSMapDatum>x</exif:GPSMapDatum>", "exif"),
}


def raw_profile(kind: str, data: bytes) -> tuple[str, str]:
    """A text of a PNG as ImageMagick writes it."""
    digits = data.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return f"Raw profile type {kind}", "\n".join(["", kind, f"{len(data):8}", *lines, ""])


def write_located(path, pixels, form: str) -> None:
    """Write an image that tells where it was made, in each place of the format that can."""
    image, xmp = Image.fromarray(pixels), LOCATED_XMP.get(form, LOCATED_XMP["attributes"])
    if form in ("exif", "APP1"):
        texts = dict([raw_profile(form, located_exif()), raw_profile("iptc", LOCATED_IPTC), raw_profile("xmp", xmp)])
        texts |= {"exif:GPSLatitude": "52/1, 31/1, 0/1", "exif:Make": "Camera", "exif:thumbnail:Compression": "6"}
        texts |= {"exif:Orientation": "6", "City": "Berlin", "Title": "a cat"}
        info = PngImagePlugin.PngInfo()
        for key, value in texts.items():
            info.add_text(key, value, zip=key.startswith("Raw"))
        image.save(path, pnginfo=info)
    elif path.suffix == ".tif":
        tifffile.imwrite(
            path,
            pixels,
            extratags=[
                (700, 1, len(xmp), xmp, True),
                (33723, 7, len(LOCATED_IPTC), LOCATED_IPTC, True),
                (33922, 12, 6, (0.0, 0.0, 0.0, 52.5, 13.4, 0.0), True),
            ],
        )
    else:
        segment = {"extra": iptc.to_segment(LOCATED_IPTC)} if path.suffix == ".jpg" else {}
        image.save(path, exif=located_exif(), xmp=xmp, **segment)


@pytest.mark.parametrize(
    ("source", "form", "targets"),
    [
        ("a.png", "exif", ("b.png", "b.jpg", "b.tif", "b.webp", "b.avif", "16.png", "16.tif")),
        ("a.png", "APP1", ("b.png", "b.jpg")),
        ("a.jpg", "attributes", ("b.jpg", "16.tif")),
        ("a.jpg", "elements", ("b.png", "b.tif")),
        ("a.webp", "prefix", ("b.jpg",)),
        ("a.avif", "elements", ("b.tif",)),
        ("a.heic", "attributes", ("b.jpg",)),
        ("a.tif", "prefix", ("b.jpg", "b.tif")),
    ],
)
def test_location_is_stripped_wherever_it_is(tmp_path, pixels, source, form, targets, exiftool):
    pillow_heif.register_heif_opener()
    write_located(tmp_path / source, pixels, form)
    places = re.compile("(?i)gps|geo|location")
    assert any(places.search(name) for name in exiftool(tmp_path / source))
    raster = load_raster(tmp_path / source)
    for target in targets:
        image = raster.with_bits(16 if target.startswith("16") else 8)
        save_image(image, tmp_path / target, strip_metadata="gps")
        tags = exiftool(tmp_path / target)
        assert not [name for name in tags if places.search(name)]
        found = json.dumps(tags)
        assert not re.search("Berlin|Germany|DEU|Mitte|Alexanderplatz|MakerNote|52.5", found)
        assert "a cat" in found
        if "b." in target and source != "a.tif":
            assert "2024:01:02 03:04:05" in found


def test_maker_notes_go_with_the_location_and_are_named(tmp_path, pixels, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=located_exif())
    image = load_image(tmp_path / "a.jpg")
    save_image(image, tmp_path / "b.jpg")
    assert b"Panasonic" in (tmp_path / "b.jpg").read_bytes() and not caplog.records
    save_image(image, tmp_path / "b.jpg", strip_metadata="gps")
    assert b"Panasonic" not in (tmp_path / "b.jpg").read_bytes()
    assert "dropped maker notes, which may contain the location" in caplog.text


@pytest.mark.parametrize(("kind", "size"), [("exif", (6, 9)), ("APP1", (9, 6))])
def test_raw_profiles_are_read_and_replaced(tmp_path, pixels, kind, size, exiftool):
    exif, info = camera(), PngImagePlugin.PngInfo()
    exif[ExifTags.Base.Orientation] = 6
    for key, value in [
        raw_profile(kind, exif.tobytes()),
        ("exif:Orientation", "6"),
        ("exif:thumbnail:Orientation", "6"),
        ("exif:PixelXDimension", "9"),
        ("exif:Model", "X100"),
    ]:
        info.add_text(key, value)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info)
    raster = load_raster(tmp_path / "a.png")
    assert (raster.width, raster.height) == size and not raster.warnings
    save_image(raster, tmp_path / "b.png")
    tags = exiftool(tmp_path / "b.png")
    assert tags["IFD0:Make"] == "Camera" and "X100" in tags.values()
    assert not [name for name in tags if re.search("(?i)orientation|thumbnail|dimension", name)]
    assert not load_raster(tmp_path / "b.png").warnings and load_image(tmp_path / "b.png").size == size


def test_unreadable_raw_profiles_are_named(tmp_path, pixels):
    info = PngImagePlugin.PngInfo()
    for key, value in [("Raw profile type exif", "\nexif\n 3\nzz"), raw_profile("xyz", b"data")]:
        info.add_text(key, value)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info)
    raster = load_raster(tmp_path / "a.png")
    for warning, kind in zip(raster.warnings, ("exif", "xyz"), strict=True):
        assert f"dropped the text 'Raw profile type {kind}'" in warning
    assert not raster.metadata.text


def test_iptc_is_kept_or_named(tmp_path, pixels, exiftool, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", extra=iptc.to_segment(LOCATED_IPTC + dataset(202, "preview")))
    raster = load_raster(tmp_path / "a.jpg")
    for target in ("b.jpg", "b.tif", "16.tif"):
        image = raster.with_bits(16 if target == "16.tif" else 8)
        save_image(image, tmp_path / target)
        tags = exiftool(tmp_path / target)
        assert tags["IPTC:Caption-Abstract"] == "a cat" and tags["IPTC:City"] == "Berlin"
        assert "IPTC:ObjectPreviewData" not in tags
        assert load_raster(tmp_path / target).metadata.iptc == raster.metadata.iptc
    assert not caplog.records
    for target in ("b.png", "b.webp", "b.avif", "b.bmp"):
        caplog.clear()
        save_image(raster, tmp_path / target)
        assert "cannot store: IPTC" in caplog.text


PARTS = {
    "motion photo video": "GCamera:MotionPhoto='1' GCamera:MicroVideoOffset='99'",
    "gain map": "hdrgm:Version='1.0' hdrgm:GainMapMax='2'",
    "attached files": "<Container:Directory><rdf:Seq><rdf:li>x</rdf:li></rdf:Seq></Container:Directory>",
}


@pytest.mark.parametrize("part", PARTS)
def test_announcements_of_missing_parts_are_dropped_and_named(tmp_path, pixels, part):
    is_element = PARTS[part].startswith("<")
    for renamed in ("", "GCamera", "hdrgm"):
        xmp = packet("dc:title='a cat' " + ("" if is_element else PARTS[part]), PARTS[part] * is_element, renamed)
        Image.fromarray(pixels).save(tmp_path / "a.jpg", xmp=xmp)
        raster = load_raster(tmp_path / "a.jpg")
        assert raster.warnings == [f"left out: {part}"] and raster.metadata.xmp
        assert b"a cat" in raster.metadata.xmp
        assert not re.search(b":(MotionPhoto|MicroVideo|Version|GainMapMax|Directory)", raster.metadata.xmp)


def test_further_images_of_mpo_and_heic_are_named(tmp_path, pixels):
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.mpo", save_all=True, append_images=[image])
    assert load_raster(tmp_path / "a.mpo").warnings == ["left out: further images"]
    image.info.update({"depth_images": ["depth"], "aux": {"urn:com:apple:photo:2020:aux:hdrgainmap": [3]}})
    assert Raster.from_pil(image).warnings == ["left out: depth image, gain map"]


def test_xmp_that_is_not_utf8_is_dropped_and_named(tmp_path, pixels):
    xmp = packet("dc:title='cafe'").replace(b"cafe", b"caf\xe9")
    Image.fromarray(pixels).save(tmp_path / "a.jpg", xmp=xmp, exif=camera())
    raster = load_raster(tmp_path / "a.jpg")
    assert ["dropped XMP that is not UTF-8" in warning for warning in raster.warnings] == [True]
    assert raster.metadata.xmp is None and raster.metadata.exif


@pytest.mark.parametrize("xmp", [b"<x", b"x", b"<x exif:GPSLatitude='52,31N'>"])
def test_xmp_that_cannot_be_parsed_is_kept_unless_the_location_is_stripped(tmp_path, pixels, xmp, caplog):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", xmp=xmp)
    raster = load_raster(tmp_path / "a.jpg")
    save_image(raster, tmp_path / "b.jpg")
    assert load_raster(tmp_path / "b.jpg").metadata.xmp == xmp and not caplog.records
    save_image(raster, tmp_path / "b.jpg", strip_metadata="gps")
    assert load_raster(tmp_path / "b.jpg").metadata.xmp is None
    assert "dropped invalid XMP, which may contain the location" in caplog.text


def test_xmp_with_undeclared_prefixes_is_cleaned(pixels):
    image = Image.fromarray(pixels)
    xmp = "<rdf:Description tiff:Orientation='6' exif:PixelXDimension='9'><exif:GPSLatitude>5</exif:GPSLatitude></x>"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", xmp=xmp.replace("</x>", "</rdf:Description>").encode())
    raster = Raster.from_pil(Image.open(buffer))
    assert (raster.width, raster.height) == (6, 9)
    cleaned = raster.metadata.resized(24, 36).stripped("gps").xmp
    assert cleaned == b'<rdf:Description tiff:Orientation="1" exif:PixelXDimension="24"/>'
    default = replace(raster.metadata, xmp=f'<a><ImageWidth xmlns="{NAMESPACES["tiff"]}">6</ImageWidth></a>'.encode())
    assert b">24<" in (default.resized(24, 36).xmp or b"")


@pytest.mark.parametrize("renamed", ["", "exif", "tiff", "GPano"])
def test_sizes_in_xmp_follow_the_image(pixels, renamed):
    panorama = {"FullPanoWidthPixels": 36, "CroppedAreaImageHeightPixels": 6, "CroppedAreaLeftPixels": 10}
    attributes = "tiff:ImageWidth='9' tiff:Orientation='6' " + " ".join(f"GPano:{n}='{v}'" for n, v in panorama.items())
    elements = (
        "<exif:PixelYDimension>6</exif:PixelYDimension><GPano:CroppedAreaTopPixels>3</GPano:CroppedAreaTopPixels>"
    )
    image = Image.fromarray(pixels)
    image.info["xmp"] = packet(attributes, elements, renamed)
    raster = Raster.from_pil(image)  # 6 x 9, turned
    found = properties(raster.metadata.resized(24, 27).xmp or b"")
    names = {name.rpartition("/")[2]: value for name, value in found.items()}
    assert names["ImageWidth"] == "24" and names["PixelYDimension"] == "27" and names["Orientation"] == "1"
    assert [names[name] for name in panorama] == ["144", "18", "40"] and names["CroppedAreaTopPixels"] == "9"
    again = raster.metadata.resized(24, 27).resized(24, 27)
    assert properties(again.xmp or b"") == found


def test_panoramas_are_recognized(pixels):
    sizes = "GPano:FullPanoWidthPixels='12' GPano:FullPanoHeightPixels='6' GPano:CroppedAreaImageHeightPixels='6' "
    kind = "GPano:ProjectionType='equirectangular' "
    for attributes, expected in [
        (sizes + kind + "GPano:CroppedAreaImageWidthPixels='12'", True),
        (sizes + kind, True),
        (sizes + kind + "GPano:CroppedAreaImageWidthPixels='9'", False),
        (sizes + "GPano:ProjectionType='cylindrical'", False),
        (sizes, False),
    ]:
        image = Image.fromarray(pixels)
        image.info["xmp"] = packet(attributes)
        assert Raster.from_pil(image).metadata.is_panorama is expected
    assert not Metadata().is_panorama


def directory(entries: dict[int, tuple[int, bytes]], at: int) -> bytes:
    """A directory of EXIF data at a position, followed by its values; of types and big-endian values by tag."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}
    table, values = struct.pack(">H", len(entries)), b""
    for tag, (kind, data) in sorted(entries.items()):
        table += struct.pack(">HHI", tag, kind, len(data) // sizes[kind])
        where = struct.pack(">I", at + 6 + 12 * len(entries) + len(values))
        table += data.ljust(4, b"\0") if len(data) <= 4 else where
        values += (data + bytes(len(data) % 2)) * (len(data) > 4)
    return table + bytes(4) + values


def camera_exif() -> bytes:
    """EXIF data of all types, with a maker note that contains a position from the start, as cameras write it."""
    ratio, signed, long = (struct.Struct(layout).pack for layout in (">II", ">ii", ">I"))
    name, at = "Zo\u00eb".encode() + b"\0", 4_096
    interop = {1: (2, b"R98\0"), 2: (7, b"0100"), 0x1001: (3, b"\0\x09"), 0x1002: (3, b"\0\x06")}
    location = {0: (1, b"\2\3\0\0"), 1: (2, b"N\0"), 2: (5, ratio(52, 1) + ratio(31, 1) + ratio(12, 10))}
    location |= {5: (1, b"\0"), 27: (7, b"ASCII\0\0\0GPS")}
    note = struct.pack(">HHHII", 1, 6, 2, 8, 2_000 + 18) + bytes(4) + b"IMG:X99\0"
    nested = {
        33434: (5, ratio(1, 125)), 33437: (5, ratio(28, 10)), 34855: (3, b"\0\x64"), 36864: (7, b"0232"),
        36867: (2, b"2024:01:02 03:04:05\0"), 37121: (7, b"\1\2\3\0"), 37377: (10, signed(6_965_784, 10**6)),
        37378: (5, ratio(2_970_854, 10**6)), 37379: (10, signed(-3, 2)), 37380: (10, signed(-1, 3)),
        37385: (3, b"\0\x10"), 37386: (5, ratio(4_294_967_295, 80_000_000)), 37510: (7, b"ASCII\0\0\0purrs"),
        40960: (7, b"0100"), 40962: (4, b"\0\0\0\x09"), 40963: (3, b"\0\x06"), 40965: (4, long(at + 1_000)),
        41728: (7, b"\3"), 41729: (7, b"\1"), 41990: (3, b"\0\0"), 42034: (5, ratio(24, 1) * 2 + ratio(0, 0) * 2),
    }  # fmt: skip
    first = {
        271: (2, b"Canon\0"), 272: (2, b"Canon EOS\0"), 282: (5, ratio(300, 1)), 283: (5, ratio(300, 1)),
        296: (3, b"\0\2"), 315: (2, name), 531: (3, b"\0\1"), 34665: (4, long(500)), 34853: (4, long(at)),
        40093: (1, "Zo\u00eb".encode("utf-16-le") + b"\0\0"),
    }  # fmt: skip
    result = bytearray(b"MM\0*\0\0\0\x08")
    nested[37500] = (7, note)
    for group, start in ((first, 8), (nested, 500), (location, at), (interop, at + 1_000)):
        result += bytes(start - len(result)) + directory(group, start)
    found = result.index(note)  # whose position is written into it
    result[found + 10 : found + 14] = long(found + 18)
    return b"Exif\0\0" + bytes(result)


@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.avif", "b.tif", "16.tif"])
def test_exif_keeps_types_and_values(tmp_path, pixels, target, exiftool):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=camera_exif())
    raster = load_raster(tmp_path / "a.jpg")
    assert not raster.warnings
    metadata = replace(raster.metadata, software="srgan-hub 1, x4")
    larger = Raster(raster.array.repeat(2, 0).repeat(2, 1), metadata)
    save_image(larger.with_bits(16 if target == "16.tif" else 8), tmp_path / target)
    groups = ("IFD0:", "ExifIFD:", "GPS:", "InteropIFD:", "Canon:")
    before, after = (
        {name: value for name, value in exiftool(tmp_path / each).items() if name.startswith(groups)}
        for each in ("a.jpg", target)
    )
    assert before["Canon:CanonImageType"] == "IMG:X99" and before["IFD0:Artist"] == "Zo\u00eb"
    sizes = {"ExifIFD:ExifImageWidth": 18, "ExifIFD:ExifImageHeight": 12}
    sizes |= {"InteropIFD:RelatedImageWidth": 18, "InteropIFD:RelatedImageHeight": 12}
    software = {} if target == "b.png" else {"IFD0:Software": "srgan-hub 1, x4"}  # a text there
    before |= sizes | software
    if "tif" in target:  # where positions are those in the file, and the first directory describes its own pixels
        assert after.pop("Canon:CanonImageType") and before.pop("Canon:CanonImageType")
        assert before.pop("IFD0:YCbCrPositioning")
        after = {name: after[name] for name in before}
    assert after == before
    assert len(before) > 35


def test_exif_types_by_other_programs_are_corrected(pixels):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({37121: b"\1\2\3\0", 37377: TiffImagePlugin.IFDRational(7, 2)})
    image = Image.fromarray(pixels)
    image.info["exif"] = exif.tobytes()
    metadata = Raster.from_pil(image).metadata
    types = {tag: kind for tag, (kind, _) in Exif.load(metadata.exif or b"").groups[ExifTags.IFD.Exif].items()}
    assert types == {37121: 7, 37377: 10}


def test_pages_have_metadata_of_their_own(tmp_path, pixels, exiftool):
    pages = [
        Raster(pixels, Metadata(exif=camera_exif(), xmp=packet("dc:title='a cat'"))),
        Raster(pixels, Metadata()),
        Raster(pixels, Metadata(iptc=caption("purrs"), text={"Comment": "a tabby"}, software="srgan-hub 1")),
    ]
    write_tiff(pages, tmp_path / "a.tif", target=tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), np.stack([pixels] * 3))
    tags = exiftool(tmp_path / "a.tif")
    assert tags["IFD0:Make"] == "Canon" and tags["IFD2:Software"] == "srgan-hub 1"
    assert tags["IFD2:ImageDescription"] == "a tabby" and "purrs" in tags.values() and "IFD1:Make" not in tags
    write_tiff(pages[:1], tmp_path / "b.tif", target=tmp_path / "b.tif")
    for name in ("a.tif", "b.tif"):
        with Image.open(tmp_path / name) as image:
            image.load()  # which closes a file of one page
            exif = Exif.load(Raster.from_pil(image).metadata.exif or b"")
        assert exif.value(315) == b"Zo\xc3\xab\0"


@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_of_tiff_that_pillow_does_not_read(tmp_path, exiftool, order):
    values = np.random.default_rng(0).integers(0, 65_536, (6, 9, 2)).astype(np.uint16)
    xmp, path = packet("exif:GPSLatitude='5'"), tmp_path / "a.tif"
    tags = [(700, 1, len(xmp), xmp, True), (315, 2, 3, b"me", True), (33723, 7, 8, caption("cat"), True)]
    tags.append((32_997, 4, 1, 9, True))
    tifffile.imwrite(path, values, byteorder=order, extrasamples=["unassalpha"], extratags=tags, metadata=None)
    raster = load_raster(path)
    assert np.array_equal(raster.array, values) and not raster.warnings
    save_image(raster, tmp_path / "b.tif", strip_metadata="gps")
    found = exiftool(tmp_path / "b.tif")
    assert found["IFD0:Artist"] == "me" and "IFD0:ImageDepth" not in found and found["IPTC:Caption-Abstract"] == "cat"
    assert not [name for name in found if "GPS" in name]
    assert np.array_equal(load_raster(tmp_path / "b.tif").array, values)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_exif_and_iptc_never_fail(seed):
    random = np.random.default_rng(seed)

    def damage(data: bytes) -> bytes:
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 40):
            damaged[at] = random.integers(256)
        return bytes(damaged[: random.integers(len(data))])

    with suppress(ValueError):
        parsed = Exif.load(camera_exif()[:6] + damage(camera_exif()[6:]))
        assert Exif.load(parsed.tobytes()).groups == {tag: group for tag, group in parsed.groups.items() if group}
    records = damage(LOCATED_IPTC)
    assert len(iptc.select(iptc.find(records), ())) <= len(records)


@pytest.mark.parametrize("note_at", [4, 8, 20, 100, 60_000])
def test_maker_notes_keep_their_position_where_possible(note_at):
    exif = Exif(">", {0: {271: (2, b"x" * 50)}, ExifTags.IFD.Exif: {37500: (7, b"note" * 9)}}, note_at)
    loaded = Exif.load(exif.tobytes())
    assert loaded.groups == exif.groups and (loaded.note_at == note_at) == (note_at >= 100)
