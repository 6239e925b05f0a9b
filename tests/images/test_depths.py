"""Every bit depth, number of channels and layout of every format, read and written."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
import tifffile
from encoded_png import GRAY, GRAY_ALPHA, PALETTE, RGB, RGBA, png
from PIL import Image

from srgan_hub.images.decode import load_raster
from srgan_hub.images.encode import save_image
from srgan_hub.images.formats import WRITE_SUFFIXES, find_format

SHAPE = (13, 11)
VALUES = np.random.default_rng(0).integers(0, 65_536, (*SHAPE, 4), dtype=np.uint16)
CHANNELS = {GRAY: 1, GRAY_ALPHA: 2, RGB: 3, RGBA: 4, PALETTE: 1}
# Color type, bits per channel, and whether there is a chunk tRNS.
KINDS = [
    *((GRAY, bits, key) for bits in (1, 2, 4, 8, 16) for key in (False, True)),
    *((PALETTE, bits, key) for bits in (1, 2, 4, 8) for key in (False, True)),
    *((RGB, bits, key) for bits in (8, 16) for key in (False, True)),
    *((color, bits, False) for bits in (8, 16) for color in (GRAY_ALPHA, RGBA)),
]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "bits", "keyed"), KINDS)
def test_png_is_read(tmp_path, color, bits, keyed, interlaced):
    samples = VALUES[:, :, : CHANNELS[color]] >> (16 - bits)
    key = samples[2, 3].astype(">u2").tobytes()
    chunks, expected = [(b"tRNS", key)] if keyed else [], samples.astype(np.uint32)
    full = 65_535 if bits == 16 else 255
    if color == PALETTE:
        table = np.random.default_rng(1).integers(0, 256, (2**bits, 4), dtype=np.uint8)
        chunks = [(b"PLTE", table[:, :3].tobytes()), *([(b"tRNS", table[:, 3].tobytes())] if keyed else [])]
        expected = table[samples[:, :, 0]][:, :, : 3 + keyed]
    else:
        expected = expected * full // (2**bits - 1)
        if keyed:
            expected = np.dstack([expected, np.where((samples == samples[2, 3]).all(-1), 0, full)])
    (tmp_path / "a.png").write_bytes(png(samples, color, bits, *chunks, interlaced=interlaced))
    raster = load_raster(tmp_path / "a.png")
    assert raster.bits == (16 if bits == 16 else 8) and not raster.warnings
    assert np.array_equal(raster.array, np.squeeze(expected))


def samples_of(channels: int, bits: int) -> np.ndarray:
    return np.squeeze(VALUES[:, :, :channels] if bits == 16 else (VALUES[:, :, :channels] >> 8).astype(np.uint8))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("channels", "bits"), itertools.product((1, 2, 3, 4), (8, 16)))
def test_tiff_is_read(tmp_path, channels, bits, planar):
    array = samples_of(channels, bits)
    if planar and (channels == 1 or (channels, bits) == (2, 8)):  # one channel is not planar; the other is refused
        return
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(array, -1, 0) if planar else array,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig=None if channels == 1 else "separate" if planar else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        byteorder=">",
    )
    assert np.array_equal(load_raster(tmp_path / "a.tif").array, array)


def other_files(path: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """Write files; yield each one's name, the values of 16 or 8 bits, and the tolerance."""
    for channels in (1, 3):
        for bits, maximum in ((8, 255), (16, 65_535)):
            array = samples_of(channels, bits)
            header = f"P{5 if channels == 1 else 6} {SHAPE[1]} {SHAPE[0]} {maximum} ".encode()
            name = f"{channels}-{bits}.pnm"
            (path / name).write_bytes(header + array.astype(">u2" if bits == 16 else "u1").tobytes())
            reads_16 = bits == 16 and channels == 1  # Pillow keeps 8 bits of a color
            yield name, array if bits == 8 or reads_16 else array / 257, 0.51
    smooth = np.add.outer(np.arange(64), np.arange(64))[:, :, None] * np.array([500, 300, 100]) + 1000
    for bits in (8, 10, 12):
        values = (smooth >> (16 - bits)).astype(np.uint16)
        pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
        raw = ("RGB", values.astype(np.uint8)) if bits == 8 else ("RGB;16", values << (16 - bits))
        pillow_heif.from_bytes(raw[0], (64, 64), raw[1].tobytes()).save(path / f"{bits}.heic", quality=-1, chroma=444)
        yield f"{bits}.heic", values * 1.0 * (255 if bits == 8 else 65_535) / (2**bits - 1), 3 if bits == 8 else 140
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    with_alpha = np.dstack([smooth, smooth[::-1, :, :1]])
    raw = (with_alpha >> 6 << 6).astype(np.uint16).tobytes()
    pillow_heif.from_bytes("RGBA;16", (64, 64), raw).save(path / "10a.heic", quality=-1, chroma=444)
    yield "10a.heic", with_alpha, 140
    Image.fromarray((smooth >> 8).astype(np.uint8)).save(path / "8.avif", quality=100, subsampling="4:4:4")
    yield "8.avif", smooth >> 8, 4
    with av.open(str(path / "10.avif"), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", rate=1, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(smooth.astype(np.uint16), format="rgb48le")
        file.mux(stream.encode(frame.reformat(format="yuv420p10le")))
        file.mux(stream.encode())
    yield "10.avif", smooth, 1500


@pytest.mark.parametrize("suffix", [".bmp", ".tga", ".jp2", ".webp", ".avif", ".heic"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_8_bits_is_read(tmp_path, mode, suffix):
    smooth = np.add.outer(np.arange(64), np.arange(64))[:, :, None] * np.array([2, 1, 1, 2]) + [0, 9, 99, 1]
    image = Image.fromarray(smooth.astype(np.uint8)).convert("RGBA" if mode.endswith("A") else "RGB").convert(mode)
    if (suffix, mode) in {*((".bmp", each) for each in ("LA", "RGBA")), (".jp2", "1"), (".jp2", "P")}:
        return  # which Pillow does not write, or without alpha
    if suffix == ".heic":
        pillow_heif.from_pillow(image).save(tmp_path / "a.heic", quality=-1, chroma=444)
    else:
        options = {".webp": {"lossless": True, "exact": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}
        image.save(tmp_path / f"a{suffix}", **options.get(suffix, {}))
    raster = load_raster(tmp_path / f"a{suffix}")
    found = raster.to_pil().convert("RGBA" if raster.has_alpha else "RGB")
    assert raster.bits == 8 and raster.has_alpha == mode.endswith("A") and not raster.warnings
    expected = np.asarray(image.convert(found.mode)).astype(int)
    assert np.abs(np.asarray(found) - expected).max() <= (3 if suffix in (".heic", ".avif") else 0)


def test_other_formats_are_read(tmp_path):
    for name, expected, tolerance in other_files(tmp_path):
        raster = load_raster(tmp_path / name)
        bits = 16 if name in ("1-16.pnm", "10.heic", "10a.heic", "12.heic", "10.avif") else 8
        assert raster.bits == bits, name
        assert np.abs(raster.array - expected).max() <= tolerance, name
        assert bool(raster.warnings) == (name == "3-16.pnm"), name


@pytest.mark.parametrize("layout", ["contiguous", "strided", "byte-swapped", "read-only"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_array_is_written_in_every_format(tmp_path, channels, bits, layout):
    smooth = np.add.outer(np.arange(24), np.arange(30))[:, :, None] * np.array([900, 700, 500, 300]) + 9000
    expected = np.squeeze((smooth[:, :, :channels] >> (16 - bits)).astype(f"u{bits // 8}"))
    array = expected.copy()
    if layout == "strided":
        array = np.repeat(np.repeat(array, 2, axis=0), 2, axis=1)[::2, 1::2]
    elif layout == "byte-swapped":
        array = array.astype(array.dtype.newbyteorder(">"))
    array.flags.writeable = layout != "read-only"
    for suffix in WRITE_SUFFIXES:
        target = find_format(suffix)
        if channels in (2, 4) and "alpha" not in target.stores:
            continue
        save_image(array, tmp_path / f"a{suffix}")
        result = load_raster(tmp_path / f"a{suffix}")
        deep = bits == 16 and "high bit depth" in target.stores
        assert result.bits == (16 if deep else 8), suffix
        values = expected if deep or bits == 8 else expected / 257
        lossy = suffix in (".jpg", ".jpeg", ".avif")
        found = result.array
        if found.ndim != values.ndim or found.shape[-1] != values.shape[-1]:  # gray is stored as RGB
            found = found[:, :, [0, 3] if channels == 2 else 0]
        assert np.abs(found - values.astype(float)).max() <= (6 if lossy else 0.51), suffix


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_byte_swapped_arrays_are_upscaled(upscaler, channels):
    array = samples_of(channels, 16)
    result = upscaler.upscale(array.astype(">u2"))
    assert result.dtype == np.uint16 and np.array_equal(result, upscaler.upscale(array))


def test_pil_images_with_other_byte_orders(tmp_path):
    array = samples_of(1, 16)
    for mode in ("I;16", "I;16B"):
        image = Image.frombytes(mode, SHAPE[::-1], array.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
        save_image(image, tmp_path / "a.png")
        assert np.array_equal(load_raster(tmp_path / "a.png").array, array), mode
