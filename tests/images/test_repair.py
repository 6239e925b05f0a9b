"""Files that other programs read and Pillow refuses; and truncated files, on request."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from encoded_png import PALETTE, RGB, png
from PIL import Image, ImageFile, PngImagePlugin

from srgan_hub.batch import upscale_files
from srgan_hub.cli import main
from srgan_hub.images import repair
from srgan_hub.images.decode import load_raster, open_image
from srgan_hub.images.encode import save_image
from srgan_hub.images.errors import ImageError

MIB = 2**20
NOISE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
PIXELS = NOISE[:5, :7]


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        found.append((name, data[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def flip(data: bytes, name: bytes, *, checksum: bool) -> bytes:
    """Change the checksum, or the last byte, of a chunk."""
    at = data.index(name)
    length = int.from_bytes(data[at - 4 : at], "big")
    at += 4 + length + (3 if checksum else -1)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("before", [True, False])  # the pixels
def test_compressed_texts_larger_than_the_limit_of_pillow(tmp_path, before):
    workflow = "node " * (MIB // 2)
    profile = bytes(3 * MIB)
    chunks = [
        (b"zTXt", b"prompt\0\0" + zlib.compress(workflow.encode())),
        (b"iTXt", b"workflow\0\1\0en\0W\0" + zlib.compress(f"{workflow}é".encode())),
        (b"tEXt", b"Title\0a cat"),
    ]
    data = png(PIXELS, RGB, 8, (b"iCCP", b"p\0\0" + zlib.compress(profile)), *(chunks if before else ()))
    if not before:
        end = len(data) - 12
        data = data[:end] + b"".join(repair._chunk(*each) for each in chunks) + data[end:]
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(data)) as image:
        image.load()
    raster = load_raster(tmp_path / "a.png")
    assert np.array_equal(raster.array, PIXELS) and not raster.warnings
    assert raster.metadata.text == {"prompt": workflow, "workflow": f"{workflow}é", "Title": "a cat"}
    assert raster.metadata.icc_profile == profile


def test_texts_over_the_limit_are_dropped_and_others_kept(tmp_path, monkeypatch):
    assert repair._MAX_TEXT == 64 * MIB
    monkeypatch.setattr(repair, "_MAX_TEXT", 4 * MIB)
    half = zlib.compress(bytes(3 * MIB))
    chunks = [
        (b"iCCP", b"p\0\0" + half),
        (b"zTXt", b"a\0\0" + half),
        (b"iTXt", b"b\0\1\0\0\0" + half),
        (b"tEXt", b"c\0yes"),
    ]
    (tmp_path / "a.png").write_bytes(png(PIXELS, RGB, 8, *chunks))
    raster = load_raster(tmp_path / "a.png")
    assert raster.warnings == [f"ignored a chunk {name}: the texts exceed 4 MiB" for name in ("zTXt", "iTXt")]
    assert raster.metadata.text == {"c": "yes"} and len(raster.metadata.icc_profile) == 3 * MIB
    assert np.array_equal(raster.array, PIXELS)
    assert PngImagePlugin.MAX_TEXT_CHUNK == MIB and not ImageFile.LOAD_TRUNCATED_IMAGES


def test_16_bits_with_a_large_text(tmp_path):
    deep = PIXELS.astype(np.uint16) * 256 + 7
    (tmp_path / "a.png").write_bytes(png(deep, RGB, 16, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2 * MIB)))))
    assert np.array_equal(load_raster(tmp_path / "a.png").array, deep)


def test_checksums_of_png_chunks(tmp_path):
    colors = np.arange(768, dtype=np.uint8).reshape(256, 3)
    chunks = [(b"PLTE", colors.tobytes()), (b"tEXt", b"a\0b"), (b"pHYs", struct.pack(">IIB", 5000, 5000, 1))]
    data = png(PIXELS[:, :, :1], PALETTE, 8, *chunks)
    for checksum in (True, False):
        (tmp_path / "a.png").write_bytes(flip(data, b"tEXt", checksum=checksum))
        raster = load_raster(tmp_path / "a.png")
        assert raster.warnings == ["ignored a chunk tEXt: its checksum is wrong"]
        assert np.array_equal(raster.array, colors[PIXELS[:, :, 0]])
        assert raster.metadata.text == {} and raster.metadata.dpi == pytest.approx((127, 127))
    for name in (b"IHDR", b"PLTE"):
        (tmp_path / "a.png").write_bytes(flip(data, name, checksum=True))
        with pytest.raises(ImageError, match="checksum"):
            load_raster(tmp_path / "a.png")


@pytest.mark.parametrize(
    "chunk",
    [(b"pHYs", b"\0"), (b"sRGB", b""), (b"gAMA", b"\0"), (b"cHRM", b"\0\0\0"), (b"iCCP", b"p"), (b"tRNS", b"\0")],
    ids=lambda chunk: chunk[0].decode(),
)
def test_malformed_ancillary_chunks_are_ignored(tmp_path, chunk):
    (tmp_path / "a.png").write_bytes(png(PIXELS, RGB, 8, chunk, (b"tEXt", b"a\0b")))
    raster = load_raster(tmp_path / "a.png")
    assert np.array_equal(raster.array, PIXELS) and raster.metadata.text == {"a": "b"}
    assert len(raster.warnings) == 1 and f"a chunk {chunk[0].decode()}" in raster.warnings[0]


def test_animation_with_a_wrong_checksum(tmp_path):
    frames = [Image.fromarray(np.roll(PIXELS, index, 1)) for index in range(3)]
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a cat")
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], pnginfo=info)
    (tmp_path / "a.png").write_bytes(flip((tmp_path / "a.png").read_bytes(), b"tEXt", checksum=True))
    with open_image(tmp_path / "a.png") as opened:
        assert opened.warnings == ["ignored a chunk tEXt: its checksum is wrong"] and len(list(opened.read())) == 3


def test_data_after_the_end_of_a_png_is_ignored(tmp_path):
    for rest in (b"\0" * 99, b"attached notes" * 9, b"PK\3\4" + bytes(range(256))):
        (tmp_path / "a.png").write_bytes(png(PIXELS, RGB, 8, (b"tEXt", b"a\0b")) + rest)
        raster = load_raster(tmp_path / "a.png")
        assert np.array_equal(raster.array, PIXELS) and not raster.warnings and raster.metadata.text == {"a": "b"}


def test_chunk_that_is_longer_than_the_file(tmp_path):
    data = png(PIXELS, RGB, 8)
    (tmp_path / "a.png").write_bytes(data[:33] + struct.pack(">I", 2**31) + b"tEXt" + data[33:])
    with pytest.raises(ImageError, match=r"corrupt or of an unsupported kind \(PNG"):
        load_raster(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(data[:-12] + repair._chunk(b"tEXt", b"Title\0a cat")[:-6])
    raster = load_raster(tmp_path / "a.png")
    assert np.array_equal(raster.array, PIXELS) and len(raster.warnings) == 1 and not raster.metadata.text


@pytest.mark.parametrize(
    "options", [{}, {"quality": 100, "subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str
)
def test_jpeg_without_its_end_is_read_and_a_cut_one_refused(tmp_path, options):
    data = jpeg(**options)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = load_raster(path).array
    for missing in (1, 2):
        path.write_bytes(data[:-missing])
        raster = load_raster(path)
        assert np.array_equal(raster.array, expected) and raster.warnings == ["lacks the marker of its end"]
    ends = {*range(3, 30), *range(30, len(data) - 700, 397)}
    # Between the scans of a progressive file, nothing is missing from any of them.
    ends |= {len(data) - at for at in range(700, len(data)) if data[at : at + 2] in (b"\xff\xda", b"\xff\xc4")}
    for missing in ends:
        path.write_bytes(data[:-missing])
        with pytest.raises(ImageError, match=r"truncated|corrupt"):
            load_raster(path)


TRUNCATED = {
    "JPEG": lambda path: path.write_bytes(jpeg(quality=95)),
    "progressive JPEG": lambda path: path.write_bytes(jpeg(quality=95, progressive=True)),
    "PNG": lambda path: path.write_bytes(png(NOISE, RGB, 8)),
    "interlaced PNG": lambda path: path.write_bytes(png(NOISE, RGB, 8, interlaced=True)),
    "16-bit PNG": lambda path: path.write_bytes(png(NOISE.astype(np.uint16) * 257, RGB, 16)),
    "BMP": lambda path: Image.fromarray(NOISE).save(path, "BMP"),
    "PPM": lambda path: Image.fromarray(NOISE).save(path, "PPM"),
    "TGA": lambda path: Image.fromarray(NOISE).save(path, "TGA"),
    "GIF": lambda path: Image.fromarray(NOISE[:, :, 0]).save(path, "GIF", interlace=0),
    "TIFF": lambda path: tifffile.imwrite(path, NOISE, photometric="rgb"),
}


@pytest.mark.parametrize("kind", TRUNCATED)
def test_allow_truncated_reads_what_is_there(tmp_path, kind):
    path = tmp_path / "a"
    TRUNCATED[kind](path)
    data, expected = path.read_bytes(), load_raster(path).array
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="truncated"):
        load_raster(path)
    raster = load_raster(path, allow_truncated=True)
    assert raster.warnings == ["is truncated; the missing part is blank"]
    assert raster.array.shape == expected.shape and raster.array.dtype == expected.dtype
    if not kind.startswith(("progressive", "interlaced")):
        rows = slice(24, None) if kind in ("BMP", "TGA") else slice(0, 12)  # these begin at the bottom
        assert np.array_equal(raster.array[rows], expected[rows])
    assert (raster.array == expected).mean() < 0.9
    path.write_bytes(data)
    assert not load_raster(path, allow_truncated=True).warnings


def test_nothing_is_read_of_a_file_without_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png(NOISE, RGB, 8)[:41])
    save_image(NOISE, tmp_path / "a.webp")
    (tmp_path / "a.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:200])
    for suffix in (".png", ".webp"):
        with pytest.raises(ImageError):
            load_raster(tmp_path / f"a{suffix}", allow_truncated=True)


def test_truncated_files_in_a_batch_and_on_the_command_line(tmp_path, upscaler, caplog, capsys):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg()[:-900])
    (result,) = upscale_files(upscaler, [path])
    assert "`allow_truncated` reads what is there" in str(result.error)
    (result,) = upscale_files(upscaler, [path], allow_truncated=True)
    assert result.error is None and "a.jpg': is truncated" in caplog.text
    assert load_raster(result.target).array.shape == (160, 224, 3)
    options = ["upscale", str(path), "--output", str(tmp_path / "b.png"), "--width", "60", "--backend", "torch"]
    assert main(options) == 2 and "--allow-truncated reads what is there" in capsys.readouterr().err
    assert main([*options, "--allow-truncated"]) == 0 and (tmp_path / "b.png").is_file()
