"""Every cell of the table of formats is tried, and the documentation contains the table."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms
from upscaled_files import ROOT, upscale_file

from srgan_hub.images import tiff_media
from srgan_hub.images.decode import load_raster, open_image
from srgan_hub.images.encode import save_image
from srgan_hub.images.errors import ImageError
from srgan_hub.images.formats import FORMATS, JPEG_XL, VIDEO
from srgan_hub.images.metadata import Metadata
from srgan_hub.images.raster import Raster

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
RGBA = np.dstack([RGB, np.tile(np.array([0, 255], np.uint8), (12, 8))])
EXIF = Image.Exif()
EXIF[0x010F] = "Camera"
METADATA = {
    "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "exif": EXIF.tobytes(),
    "xmp": b"<x/>",
    "iptc": b"\x1c\2\x78\0\5a cat",
    "dpi": (300.0, 300.0),
    "text": {"Title": "a cat"},
    "comment": {"Comment": "a cat"},
    "color_chunks": {b"gAMA": (50_000).to_bytes(4, "big")},
    "cicp": (9, 16, 0, True),
}
COLUMNS = {
    "Single image": "image",
    "10 to 16 bits": "high bit depth",
    "Floating point": "float",
    "Alpha": "alpha",
    "ICC profile": "icc_profile",
    "EXIF": "exif",
    "XMP": "xmp",
    "IPTC": "iptc",
    "Resolution": "dpi",
    "Text": "text",
    "Larger than memory": "streaming",
}
FEATURES = ("image", "high bit depth", "alpha", *METADATA)
# Videos are tried in test_video; the plugin of JPEG XL is no dependency.
CELLS = [(each, feature) for each in FORMATS if each not in (VIDEO, JPEG_XL) for feature in FEATURES]


def formats_table() -> str:
    """Render the table of formats as Markdown; "read" marks what is read and not written."""
    names = ("Format", "Suffixes", *COLUMNS, "Multiple images", "Largest side", "Quality")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for each in FORMATS:
        cells = [each.name, " ".join((*each.suffixes, *each.read_suffixes))]
        for feature in COLUMNS.values():
            cells.append("yes" if feature in each.stores else "read" if feature in each.reads else "")
        cells.append(each.media[0] if each.media else "")
        cells.append(f"{each.max_side:,}" if each.max_side < 2**31 - 1 else "")
        cells.append(f"1 to 100, default {each.save.get('quality', 'lossless')}" if each.quality else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_table_is_documented():
    text = (ROOT / "srgan_hub" / "docs" / "formats.md").read_text(encoding="utf-8")
    table = text.partition("<!-- formats table -->")[2].partition("<!-- /formats table -->")[0]
    assert table.strip() == formats_table(), formats_table()


def attempt(action: Callable[[], bool]) -> bool:
    try:
        return action()
    except (ImageError, ValueError, OSError, KeyError):
        return False


def save_otherwise(path: Path, array: np.ndarray, **options: object) -> None:
    """Write a file as other programs do."""
    if path.suffix == ".heic":
        mode = {3: "RGB;16", 4: "RGBA"}[array.shape[2]]
        data = array if mode == "RGBA" else array.astype(np.uint16) << 8
        pillow_heif.from_bytes(mode, (array.shape[1], array.shape[0]), data.tobytes()).save(path, **options)
    elif path.suffix == ".psd":
        header = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", array.shape[2], *array.shape[:2], 8, 3)
        path.write_bytes(header + bytes(14) + np.moveaxis(array, 2, 0).tobytes())
    elif path.suffix == ".bmp" and array.shape[2] == 4:
        bgra = array[::-1, :, [2, 1, 0, 3]].tobytes()
        info = struct.pack("<IiiHHIIiiII", 40, 16, 12, 1, 32, 0, 0, 0, 0, 0, 0)
        path.write_bytes(b"BM" + struct.pack("<IHHI", 54 + len(bgra), 0, 0, 54) + info + bgra)
    elif path.suffix == ".ico":
        Image.fromarray(array).save(path, sizes=[(16, 12)], **options)
    else:
        Image.fromarray(array).save(path, **options)


def has(path: Path, feature: str) -> bool:
    """Whether reading a file that was written with a feature finds it."""
    raster = load_raster(path)
    if feature in METADATA:
        if feature == "comment" and path.suffix == ".tif":  # the image description
            return b"a cat" in (raster.metadata.exif or b"")
        name = "text" if feature == "comment" else feature
        found, expected = getattr(raster.metadata, name), METADATA[feature]
        if feature == "exif":
            return found is not None and b"Camera" in found
        return np.allclose(found, expected, rtol=0.01) if feature == "dpi" and found else found == expected
    return {"image": True, "high bit depth": raster.bits == 16, "alpha": raster.has_alpha}[feature]


@pytest.mark.parametrize(("file_format", "feature"), CELLS, ids=lambda each: getattr(each, "name", each))
def test_cell(tmp_path, file_format, feature):
    path = tmp_path / f"a{(*file_format.suffixes, *file_format.read_suffixes)[0]}"
    if feature == "comment" and "text" in file_format.stores:  # which includes it
        return
    array = RGBA if feature == "alpha" else RGB.astype(np.uint16) * 256 + 7 if feature == "high bit depth" else RGB
    metadata = {"text" if feature == "comment" else feature: METADATA[feature]} if feature in METADATA else {}
    writes = attempt(lambda: save_image(Raster(array, Metadata(**metadata)), path) is None and has(path, feature))
    if path.suffix == ".gif" and feature in ("alpha", "comment"):
        writes = True  # of animations, in test_animation
    assert writes == (feature in file_format.stores)
    if not writes:
        values = {**METADATA, "comment": "a cat"}
        options = {feature: values[feature]} if metadata else {}
        reads = attempt(
            lambda: save_otherwise(path, RGBA if feature == "alpha" else RGB, **options) or has(path, feature)
        )
        if (path.suffix, feature) in ((".avif", "high bit depth"), (".heic", "cicp")):
            reads = True  # in test_png16 and test_color
        assert reads == (feature in file_format.reads)


@pytest.mark.parametrize("file_format", [each for each in FORMATS if each is not VIDEO], ids=lambda each: each.name)
def test_media_float_and_streaming(tmp_path, monkeypatch, upscaler, file_format):
    suffix = (*file_format.suffixes, *file_format.read_suffixes)[0]
    frames = [Image.fromarray(np.roll(RGB, i, 1)) for i in range(2)]
    for name in ("a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    tifffile.imwrite(tmp_path / "float.tif", RGB[..., 0].astype(np.float32))
    for kind, name in (("animation", "a.webp"), ("pages", "a.tif"), ("channels", "float.tif")):
        target = tmp_path / f"{kind}{suffix}"
        writes = attempt(lambda name=name, target=target: bool(upscale_file(upscaler, tmp_path / name, target)))
        assert writes == (kind in file_format.media)
        if writes:
            with open_image(target) as opened:
                assert opened.kind == kind and opened.count == (1 if kind == "channels" else 2)
    assert ("float" in file_format.stores) == ("channels" in file_format.media)
    monkeypatch.setattr(tiff_media, "LARGE", 1)
    if "image" in file_format.stores:
        save_image(RGB, tmp_path / f"large{suffix}")
        with open_image(tmp_path / f"large{suffix}") as opened:
            assert (opened.kind == "rows") == ("streaming" in file_format.stores) == ("rows" in file_format.media)
