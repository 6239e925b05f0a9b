"""Decoded pixels equal those of an independent decoder, or the file is refused."""

import base64
import io
import itertools
import struct
from pathlib import Path

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from srgan_hub.images.decode import load_image, load_raster
from srgan_hub.images.errors import ImageError
from srgan_hub.images.raster import Raster

# Four by four pixels of 16-bit RGB, lossless; and of 10-bit RGB. Pillow cannot write such files.
J2K_16 = """
/0//UQAvAAAAAAAEAAAABAAAAAAAAAAAAAAABAAAAAQAAAAAAAAAAAADDwEBDwEBDwEB/1IADAAAAAEBAAQEAAH/XAAEQID/ZAAlAAFDcmVhdGVkIGJ5IE9w
ZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAB7AAH/k8/8MIABNiGwUVLA6SViRhMkfjnXs/JUHcp3QfU+hwPEVtCOE9/4kSASWt4d22nhCd99PN83JuAq
axOpybJU3AVNYnU5NkqbgKmsTqff+JDoEYPK7Yomm9CGI+IL/Yk/x7ROKYJTP8e0TimCUz//2Q==
"""
AVIF_10 = """
AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAA
AQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAQAAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAA
FGlzcGUAAAAAAAAABAAAAAQAAAAQcGl4aQAAAAADCgoKAAAADGF2MUOBIEAAAAAAE2NvbHJuY2x4AAIAAgAAgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAA
SG1kYXQSAAoIOAR/nAgIAkAyMhAAAPTxYx/0wbMC8IpTug39xB3/PS1d+67yP+K4WXiEIBKbLu60oywBdQqHgWZAUxdo
"""


@pytest.fixture
def deep() -> np.ndarray:
    """16-bit values over the full range, (12, 10, 4)."""
    return np.random.default_rng(0).integers(0, 65536, (12, 10, 4), dtype=np.uint16)


def read(path: Path) -> np.ndarray:
    return load_raster(path).array


KINDS = {
    "gray": ("minisblack", slice(0, 1), []),
    "white is zero": ("miniswhite", slice(0, 1), []),
    "gray and alpha": ("minisblack", slice(0, 2), ["unassalpha"]),
    "RGB": ("rgb", slice(0, 3), []),
    "RGBA": ("rgb", slice(0, 4), ["unassalpha"]),
}
# What must not be refused: (kind, dtype).
READ = {
    ("gray", "u1"), ("gray", "u2"), ("white is zero", "u1"), ("gray and alpha", "u1"),
    ("RGB", "u1"), ("RGB", "u2"), ("RGBA", "u1"), ("RGBA", "u2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "f2", "f4"])
def test_every_tiff_layout_is_decoded_or_refused(tmp_path, kind, dtype):
    photometric, channels, extra = KINDS[kind]
    random = np.random.default_rng(0).random((20, 33, 4))[:, :, channels]
    if dtype[0] == "f":
        array = random.astype(dtype)
    else:
        limits = np.iinfo(dtype)
        array = (limits.min + random * (limits.max - limits.min)).astype(dtype)
    array = array[:, :, 0] if array.shape[2] == 1 else array
    for order, compression, tile, planar in itertools.product("<>", (None, "zlib"), (None, (16, 16)), (False, True)):
        if array.ndim == 2 and planar:
            continue
        path = tmp_path / "a.tif"
        tifffile.imwrite(
            path,
            array.transpose(2, 0, 1) if planar else array,
            photometric=photometric,
            planarconfig=None if array.ndim == 2 else "separate" if planar else "contig",
            extrasamples=extra or None,
            byteorder=order,
            compression=compression,
            tile=tile,
            metadata=None,
        )
        try:
            raster = load_raster(path)
        except ImageError as error:
            assert str(path) in str(error) and "not an image" not in str(error)
            big_endian_negative = (kind, dtype, order) == ("white is zero", "u2", ">")
            assert (kind, dtype) not in READ or planar or big_endian_negative, (order, compression, tile, str(error))
        else:
            decoded = tifffile.imread(path)  # the independent decoder
            expected = decoded.transpose(1, 2, 0) if planar else decoded
            assert dtype in ("u1", "u2")
            expected = ~expected if kind == "white is zero" else expected
            assert raster.array.dtype == dtype and np.array_equal(raster.array, expected), (order, compression, tile)
            assert not raster.warnings


def test_planar_tiff(tmp_path, deep):
    for array, compression in [((deep >> 8).astype(np.uint8), None), (deep, "zlib"), (deep, None)]:
        rgb = array[:, :, :3]
        tifffile.imwrite(
            tmp_path / "a.tif", rgb.transpose(2, 0, 1), photometric="rgb", planarconfig=2, compression=compression
        )
        assert np.array_equal(read(tmp_path / "a.tif"), rgb)


def test_12_bit_tiff_has_the_full_range(tmp_path, deep):
    values = deep[:, :, 0] >> 4
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, packed.reshape(12, 15), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(10)
        tiff.pages[0].tags["BitsPerSample"].overwrite(12)
    raster = load_raster(path)
    assert np.abs(raster.array - values * (65_535 / 4_095)).max() < 1 and not raster.warnings


def test_8_bit_palettes_are_refused(tmp_path, deep):
    rgb = (deep[:, :, :3] >> 8).astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", rgb[:, :, 0], photometric="palette", colormap=palette)
    with pytest.raises(ImageError, match="has a palette"):
        load_image(tmp_path / "palette.tif")
    tifffile.imwrite(tmp_path / "palette.tif", rgb[:, :, 0], photometric="palette", colormap=palette * 256)
    assert np.array_equal(read(tmp_path / "palette.tif"), palette.T.astype(np.uint8)[rgb[:, :, 0]])


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_png_with_a_transparent_value(tmp_path, deep, bits, interlace):
    values = deep[:, :, 0] >> (16 - bits)
    with (tmp_path / "a.png").open("wb") as file:
        writer = png.Writer(10, 12, greyscale=True, bitdepth=bits, transparent=int(values[2, 3]), interlace=interlace)
        writer.write(file, values.tolist())
    width, height, values, facts = png.Reader(str(tmp_path / "a.png")).asDirect()  # the independent decoder
    expected = np.array(list(values)).astype(int).reshape(height, width, 2)
    assert facts["greyscale"] and facts["alpha"] and len(np.unique(expected[..., 1])) == 2
    full = 2 ** facts["bitdepth"] - 1
    expected = expected if full == 65535 else expected * 255 // full
    assert np.array_equal(read(tmp_path / "a.png"), expected)
    assert load_image(tmp_path / "a.png").mode == "LA"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png(tmp_path, deep, channels):
    values = deep[:, :, :channels]
    with (tmp_path / "a.png").open("wb") as file:
        writer = png.Writer(10, 12, greyscale=channels < 3, alpha=channels in (2, 4), bitdepth=16)
        writer.write(file, values.reshape(12, -1).tolist())
    raster = load_raster(tmp_path / "a.png")
    assert np.array_equal(raster.array, np.squeeze(values)) and not raster.warnings
    image = load_image(tmp_path / "a.png")
    assert image.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
    assert np.abs(np.asarray(image) - np.squeeze(values) / 257).max() <= 0.5


def test_transparent_16_bit_color(tmp_path, deep):
    key = tuple(map(int, deep[2, 3, :3]))
    with (tmp_path / "a.png").open("wb") as file:
        writer = png.Writer(10, 12, greyscale=False, bitdepth=16, transparent=key)
        writer.write(file, deep[:, :, :3].reshape(12, -1).tolist())
    expected = np.dstack([deep[:, :, :3], np.where((deep[:, :, :3] == key).all(-1), 0, 65_535)])
    assert np.array_equal(read(tmp_path / "a.png"), expected)
    with (  # of which Pillow reads 8 bits
        Image.open(tmp_path / "a.png") as image,
        pytest.raises(ImageError, match="the image marks a 16-bit color as transparent"),
    ):
        Raster.from_pil(image)


def test_lazily_opened_pil_images(tmp_path, deep):
    values = deep[:, :, 0] >> 12
    with (tmp_path / "a.png").open("wb") as file:
        png.Writer(10, 12, greyscale=True, bitdepth=4, transparent=int(values[2, 3])).write(file, values.tolist())
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(Raster.from_pil(image).array[:, :, 1] == 0, values == values[2, 3])
    tifffile.imwrite(tmp_path / "a.tif", values.astype(np.int8))
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(ImageError, match="the image stores signed values"):
        Raster.from_pil(image)


def bmp(
    array: np.ndarray | bytes, bits: int, *, palette: bytes = b"", compression: int = 0, masks: bytes = b""
) -> bytes:
    """A BMP of 12 x 10 pixels whose rows need no padding, top row first in `array`."""
    data = array if isinstance(array, bytes) else array[::-1].tobytes()
    info = struct.pack("<IiiHHIIiiII", 40 + len(masks), 12, 10, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0)
    offset = 14 + len(info) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + masks + palette + data


def by_masks(pixels: np.ndarray, masks: tuple[int, ...]) -> np.ndarray:
    """The channels of (H, W, bytes), scaled to 8 bits."""
    values = pixels.copy().view(f"<u{pixels.shape[2]}")[:, :, 0]
    return np.dstack([np.round((values & mask) / mask * 255) for mask in masks]).astype(np.uint8)


def test_bmp(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    bgra = random.integers(1, 256, (10, 12, 4), dtype=np.uint8)
    opaque, unused = bgra.copy(), bgra.copy()
    opaque[..., 3], unused[..., 3] = 255, 0
    index = random.integers(0, 4, (10, 12), dtype=np.uint8)
    colors = random.integers(0, 256, (4, 4), dtype=np.uint8)
    # Of each row, five pixels as they are, a run of three of alternating colors, and a run of four.
    packed = index[:, ::2] << 4 | index[:, 1::2]
    runs = b"".join(
        b"\0\5" + bytes([*row[:2], row[2] & 0xF0, 0]) + b"\3" + bytes([row[3]]) + b"\4" + bytes([row[4]]) + b"\0\0"
        for row in packed[::-1]
    )
    unpacked = index[:, [0, 1, 2, 3, 4, 6, 7, 6, 8, 9, 8, 9]]
    lines = b"".join(b"".join(b"\1" + bytes([v]) for v in row) + b"\0\0" for row in index[::-1]) + b"\0\1"
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    masked = {
        f"{bits} bits with masks {masks}": (
            bmp(bgra[:, :, : bits // 8], bits, compression=3, masks=struct.pack(f"<{len(masks)}I", *masks)),
            by_masks(bgra[:, :, : bits // 8], masks),
        )
        for bits, masks in (
            (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
            (16, (0xF00, 0xF0, 0xF, 0xF000)),
            (16, (0x1F, 0x7E0, 0xF800)),
            (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
            (32, (0xFF, 0xFF0000, 0xFF00)),
        )
    }
    black_white = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    rgba = bgra[:, :, [2, 1, 0, 3]]
    expected = {
        "alpha": (bmp(bgra, 32), rgba),
        "opaque": (bmp(opaque, 32), opaque[:, :, [2, 1, 0, 3]]),
        "fourth byte unused": (bmp(unused, 32), rgba[:, :, :3]),
        "alpha by masks": (bmp(bgra, 32, compression=3, masks=masks), rgba),
        "palette": (bmp(index, 8, palette=colors.tobytes()), colors[index][:, :, 2::-1]),
        "RLE8": (bmp(lines, 8, palette=colors.tobytes(), compression=1), colors[index][:, :, 2::-1]),
        "RLE4": (bmp(runs + b"\0\1", 4, palette=colors.tobytes() * 4, compression=2), colors[unpacked][:, :, 2::-1]),
        "two grays of eight bits": (bmp(index % 2, 8, palette=black_white), index % 2 * np.uint8(255)),
        **masked,
    }
    name, (data, pixels) = next(iter(masked.items()))
    expected[f"{name}, top row first"] = data[:22] + struct.pack("<i", -10) + data[26:], pixels[::-1]
    for name, (data, pixels) in expected.items():
        (tmp_path / "a.bmp").write_bytes(data)
        found = read(tmp_path / "a.bmp")
        found = found[:, :, 0] if pixels.ndim < found.ndim else found
        assert np.array_equal(found, pixels), name
    for name, reason in (("RLE4", "RLE4 compression"), ("two grays of eight bits", "gray palette of 8 bits")):
        (tmp_path / "a.bmp").write_bytes(expected[name][0])
        with monkeypatch.context() as patch, pytest.raises(ImageError, match=f"{reason}, .* pip install .*video"):
            patch.setattr("importlib.util.find_spec", lambda name: None)
            load_image(tmp_path / "a.bmp")
        with Image.open(tmp_path / "a.bmp") as image, pytest.raises(ImageError, match=reason):
            Raster.from_pil(image)


@pytest.mark.parametrize("origin", [0, 0x10, 0x20, 0x30])  # of the first pixel: right, top
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tga_with_every_origin(tmp_path, channels, compressed, origin):
    array = np.random.default_rng(0).integers(0, 256, (10, 12, channels), dtype=np.uint8)
    stored = array[:: 1 if origin & 0x20 else -1, :: -1 if origin & 0x10 else 1]
    stored = stored if channels == 1 else stored[:, :, [2, 1, 0, 3][:channels]]
    kind = (3 if channels == 1 else 2) + 8 * compressed
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, 12, 10, 8 * channels, origin | 8 * (channels == 4))
    data = b"".join(b"\x0b" + row.tobytes() for row in stored) if compressed else stored.tobytes()
    (tmp_path / "a.tga").write_bytes(header + data)
    assert np.array_equal(read(tmp_path / "a.tga"), np.squeeze(array))


def test_jpeg_2000(tmp_path, deep):
    Image.fromarray(deep[:, :, 0]).save(tmp_path / "gray.jp2")
    assert np.array_equal(read(tmp_path / "gray.jp2"), deep[:, :, 0])
    rgb = (deep[:, :, :3] >> 8).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.jp2")
    assert np.array_equal(read(tmp_path / "rgb.jp2"), rgb)
    (tmp_path / "deep.j2k").write_bytes(base64.b64decode(J2K_16))
    with pytest.raises(ImageError, match=r"deep\.j2k' is a JPEG 2000 of 16 bits and 3 channels"):
        load_image(tmp_path / "deep.j2k")
    data = (tmp_path / "rgb.jp2").read_bytes()
    at = data.index(b"\xff\x4f\xff\x51") + 8
    (tmp_path / "rgb.jp2").write_bytes(data[:at] + struct.pack(">I", 2**19) + data[at + 4 :])
    with pytest.raises(ImageError, match="declares 10 x 12 pixels, its data 524288 x 12"):
        load_image(tmp_path / "rgb.jp2")


def test_other_bit_depths_are_read_with_8_and_a_warning(tmp_path, deep):
    gray, rgb = deep[:, :, 0], deep[:, :, :3]
    (tmp_path / "a.pgm").write_bytes(b"P5 10 12 65535 " + gray.astype(">u2").tobytes())
    (tmp_path / "a.ppm").write_bytes(b"P6 10 12 65535 " + rgb.astype(">u2").tobytes())
    planes = rgb.transpose(2, 0, 1)[:, ::-1].astype(">u2")
    header = struct.pack(">HBBHHHHII", 474, 0, 2, 3, 10, 12, 3, 0, 65535)
    (tmp_path / "a.sgi").write_bytes(header.ljust(512, b"\0") + planes.tobytes())
    (tmp_path / "a.avif").write_bytes(base64.b64decode(AVIF_10))
    assert np.array_equal(read(tmp_path / "a.pgm"), gray)
    assert np.abs(read(tmp_path / "a.ppm").astype(int) - rgb / 257).max() <= 0.5
    assert np.array_equal(read(tmp_path / "a.sgi"), rgb >> 8)
    values = np.linspace(0, 65535, 16).astype(int).reshape(4, 4)
    assert np.abs(read(tmp_path / "a.avif") - np.dstack([values, values[::-1], values.T])).max() <= 65_535 / 1023
    warnings = {suffix: load_raster(tmp_path / f"a.{suffix}").warnings for suffix in ("pgm", "ppm", "sgi", "avif")}
    expected = ["has 16 bits per channel and is read with 8"]
    assert warnings == {"pgm": [], "ppm": expected, "sgi": expected, "avif": []}


def test_fewer_than_8_bits(tmp_path, deep):
    (tmp_path / "a.pgm").write_bytes(b"P5 10 12 15 " + (deep[:, :, 0] >> 12).astype(np.uint8).tobytes())
    raster = load_raster(tmp_path / "a.pgm")
    assert np.array_equal(raster.array, (deep[:, :, 0] >> 12) * 17) and not raster.warnings


def test_gray_with_premultiplied_alpha():
    gray = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 2), dtype=np.uint8), "LA").convert("La")
    assert np.array_equal(Raster.from_pil(gray).array, np.asarray(gray.convert("LA")))


def test_unsupported_formats_are_named(tmp_path, deep):
    cards = [b"SIMPLE  =                    T", b"BITPIX  =                   16", b"NAXIS   =                    2"]
    cards += [b"NAXIS1  =                   10", b"NAXIS2  =                   12", b"END"]
    fits = b"".join(card.ljust(80) for card in cards).ljust(2880) + deep[:, :, 0].tobytes().ljust(2880, b"\0")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    twelve = buffer.getvalue().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")
    buffer = io.BytesIO()
    Image.fromarray(deep[:, :, :2].astype(np.float32)[:, :, 0]).save(buffer, "TIFF")
    contents = {
        "a.fits": (fits, "FITS"),
        "a.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is a vector graphic"),
        "a.heic": (b"\0\0\0\x18ftypheic" + bytes(99), "HEIF"),
        "a.jxl": (b"\xff\x0a" + bytes(99), "is a JPEG XL file"),
        "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="x"></svg>', "is a SVG file"),
        "twelve.jpg": (twelve, "JPEG: .*12-bit"),
        "deep.psd": (
            b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 16, 3) + bytes(99),
            "PSD: unexpected data",
        ),
        "float.tif": (buffer.getvalue(), "floating-point"),
        "broken.png": (b"\x89PNG\r\n\x1a\n" + bytes(99), r"kind \(PNG"),
    }
    for name, (data, reason) in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=reason) as error:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value) and "not an image" not in str(error.value)


def test_text_is_no_image(tmp_path):
    texts = {"b.png": "no", "a.png": "hello", "a.h": "#define A 1\n", "a.txt": "PS: I like it", "a.xml": "<a></a>"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ImageError, match="is not an image"):
            load_image(tmp_path / name)
