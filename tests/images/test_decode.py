"""Decode images of every mode and orientation, within limits, and save them."""

import io
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from malformed_files import icon, png_header
from PIL import Image, ImageCms

from srgan_hub.batch import upscale_files
from srgan_hub.images import pillow_fixes
from srgan_hub.images.decode import default_suffix, load_image, load_raster, open_image
from srgan_hub.images.encode import save_image, validate_output
from srgan_hub.images.errors import ImageError


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("suffix", "mode", "channels"),
    [
        *((suffix, "L", 1) for suffix in (".png", ".tif", ".bmp")),
        *((suffix, "RGB", 3) for suffix in (".png", ".webp", ".tif", ".bmp")),
        *((suffix, "RGBA", 4) for suffix in (".png", ".webp", ".tif")),
    ],
)
def test_lossless_formats_round_trip(tmp_path, array, suffix, mode, channels):
    pixels = array[:, :, 0] if channels == 1 else array[:, :, :channels]
    save_image(Image.fromarray(pixels), tmp_path / f"a{suffix}")
    image = load_image(tmp_path / f"a{suffix}")
    assert image.mode == mode
    visible = pixels if channels < 4 else pixels * (pixels[:, :, 3:] > 0)  # WebP drops the color of empty pixels
    got = np.asarray(image)
    assert np.array_equal(got if channels < 4 else got * (got[:, :, 3:] > 0), visible)


def test_jpeg_keeps_color_and_quality(tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)[:, :, None] + np.uint8([0, 50, 100])
    save_image(Image.fromarray(smooth), tmp_path / "a.jpg")
    image = load_image(tmp_path / "a.jpg")
    assert np.abs(np.asarray(image).astype(int) - smooth).max() <= 4
    with Image.open(tmp_path / "a.jpg") as raw:
        assert raw.layer[0][1:3] == raw.layer[1][1:3]  # no chroma subsampling


def test_modes_become_gray_or_color(tmp_path, array):
    color = Image.fromarray(array[:, :, :3])
    gray = Image.fromarray(array[:, :, 0])
    expected = {
        "palette": (color.convert("P"), "RGB", color.convert("P").convert("RGB")),
        "gray palette": (gray.convert("P"), "L", gray),
        "bilevel": (gray.convert("1"), "L", gray.convert("1").convert("L")),
        "gray and alpha": (Image.fromarray(array[:, :, :2], "LA"), "LA", Image.fromarray(array[:, :, :2], "LA")),
    }
    for name, (image, mode, same) in expected.items():
        image.save(tmp_path / "a.png")
        got = load_image(tmp_path / "a.png")
        assert got.mode == mode, name
        assert np.array_equal(np.asarray(got), np.asarray(same)), name


def test_transparent_palette_and_color_key(tmp_path, array):
    palette = Image.fromarray(array[:, :, :3]).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=0)
    got = np.asarray(load_image(tmp_path / "palette.png"))
    assert np.array_equal(got[:, :, 3] == 0, np.asarray(palette) == 0)
    color = Image.fromarray(array[:, :, :3])
    key = tuple(int(v) for v in array[2, 3, :3])
    color.save(tmp_path / "key.png", transparency=key)
    got = np.asarray(load_image(tmp_path / "key.png"))
    assert got[2, 3, 3] == 0 and (got[:, :, 3] == 255).sum() == 6 * 9 - 1
    gray = Image.fromarray(array[:, :, 0])
    gray.save(tmp_path / "gray.png", transparency=int(array[1, 1, 0]))
    got = load_image(tmp_path / "gray.png")
    assert got.mode == "LA" and np.asarray(got)[1, 1, 1] == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_corrected_and_other_metadata_kept(tmp_path, array, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = array[:, :, :3]
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif, dpi=(300, 300), icc_profile=profile)
    image = load_image(tmp_path / "a.png")
    flips = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1)}
    rotations = {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a.swapaxes(0, 1), 2), 8: np.rot90}
    expected = {1: lambda a: a, **flips, **rotations}[orientation](pixels)
    assert np.array_equal(np.asarray(image), expected)
    save_image(image, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as written:
        assert written.getexif().get(0x0112, 1) == 1
        assert written.getexif()[0x010F] == "Camera"
        assert written.info["icc_profile"] == profile
        assert round(written.info["dpi"][0]) == 300


@pytest.mark.parametrize("profile", [None, b"broken"])
def test_cmyk_becomes_rgb_without_its_profile(tmp_path, array, profile):
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cmyk.save(tmp_path / "a.jpg", icc_profile=profile, quality=100)
    image = load_image(tmp_path / "a.jpg")
    assert image.mode == "RGB" and "icc_profile" not in image.info
    assert np.abs(np.asarray(image).astype(int) - (0, 255, 255)).max() <= 2  # cyan


def test_16_bits_become_8_in_pil_images(tmp_path):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), (deep / 257).round())


def test_preview_in_an_mpo_is_no_image(tmp_path, array):
    color = Image.fromarray(array[:, :, :3])
    color.save(tmp_path / "a.mpo", save_all=True, append_images=[color])
    assert load_image(tmp_path / "a.mpo").size == (9, 6)


def test_errors_name_the_file_and_the_reason(tmp_path, array):
    color = Image.fromarray(array[:, :, :3]).resize((64, 64))
    (tmp_path / "text.png").write_text("This is text.")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "huge.png").write_bytes(png_header(20_000, 20_000))
    (tmp_path / "wide.png").write_bytes(png_header(200, 100))
    color.save(tmp_path / "complete.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "complete.jpg").read_bytes()[:-200])
    color.save(tmp_path / "moving.gif", save_all=True, append_images=[color.rotate(90)])
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "float.tif")
    expected = {
        "text.png": "is not an image",
        "empty.png": "is empty",
        "huge.png": "20000 x 20000 pixels; the limit is 0.01 million",
        "wide.png": "200 x 100 pixels; the limit is 0.01 million",
        "cut.jpg": "Cannot decode .* file is truncated .*; `allow_truncated` reads what is there",
        "moving.gif": "contains 2 images",
        "float.tif": "floating-point",
        "missing.png": "does not exist",
        ".": "is a directory",
    }
    for name, message in expected.items():
        with pytest.raises(ImageError, match=message) as error:
            load_image(tmp_path / name, max_pixels=10_000)
        assert f"'{tmp_path / name}'" in str(error.value) and "\n" not in str(error.value)


def test_files_are_classified_by_their_bytes(tmp_path, array):
    image = Image.fromarray(array[:, :, :3])
    image.save(tmp_path / "a.txt", "PNG")
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "b.png", "TIFF")
    image.save(tmp_path / "c.jpg", "GIF", save_all=True, append_images=[image.rotate(90)])
    for name, kind in (("a.txt", "image"), ("b.png", "channels"), ("c.jpg", "animation")):
        with open_image(tmp_path / name) as opened:
            assert opened.kind == kind


@pytest.mark.parametrize("name", ["a.ico", "bmp.ico", "a.icns", "jp2.icns"])
def test_size_of_an_image_in_an_icon_is_checked_before_decoding(tmp_path, monkeypatch, name):
    buffer = io.BytesIO()
    Image.new("RGB", (140, 140)).save(buffer, "JPEG2000" if name == "jp2.icns" else "PNG")
    if name.endswith(".icns"):
        (tmp_path / name).write_bytes(icon(b"ic07", buffer.getvalue()))  # declares 128 x 128
    else:  # declares 16 x 16
        dib = struct.pack("<IiiHHIIiiII", 40, 140, 280, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(140 * 140 * 5)
        data = dib if name == "bmp.ico" else buffer.getvalue()
        header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(data), 22)
        (tmp_path / name).write_bytes(header + data)
    if not name.endswith(".icns"):  # which Pillow refuses
        assert load_raster(tmp_path / name, max_pixels=140 * 140).width == 140
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"has 140 x 140 pixels; the limit is 0\.0196 million"):
        load_raster(tmp_path / name, max_pixels=140 * 140 - 1)


def test_size_is_checked_again_after_decoding(tmp_path, monkeypatch):
    Image.new("L", (30, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(pillow_fixes, "decode", lambda image: Image.new("L", (60, 60)))
    assert load_image(tmp_path / "a.png", max_pixels=3_600).size == (60, 60)
    with pytest.raises(ImageError, match="60 x 60 pixels"):
        load_image(tmp_path / "a.png", max_pixels=3_599)


def test_max_pixels_may_exceed_the_limit_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        Image.new("RGB", (30, 30)).save(tmp_path / f"a{suffix}")
        assert load_image(tmp_path / f"a{suffix}", max_pixels=900).size == (30, 30)
    Image.new("RGB", (30, 30)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"Pillow limits this format to 0.0002 million pixels .* convert it to PNG"):
        load_image(tmp_path / "a.tif", max_pixels=900)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_validate_output(tmp_path):
    for name, options, message in [
        ("a.webp", {"width": 20_000}, "WebP stores at most 16383"),
        ("a.jpg", {"height": 70_000}, "JPEG stores at most 65535"),
        ("a.jpg", {"alpha": True}, "JPEG cannot store transparency"),
        ("a.bmp", {"alpha": True}, "BMP cannot store transparency"),
        ("a.xyz", {}, "cannot save image as .xyz"),
        ("a.gif", {}, "cannot save image as .gif"),
        ("no/a.png", {}, "does not exist"),
        ("a.png", {"quality": 90}, "`quality` must be 1 to 100"),
        ("a.jpg", {"quality": 101}, "`quality` must be 1 to 100"),
    ]:
        with pytest.raises(ImageError, match=message):
            validate_output(tmp_path / name, **{"width": 10, "height": 10, **options})


def test_save_image_takes_arrays(tmp_path, array):
    save_image(array[:, :, :1], str(tmp_path / "a.png"))
    assert np.array_equal(load_raster(tmp_path / "a.png").array, array[:, :, 0])
    save_image(array[:, :, :2], tmp_path / "a.png")
    assert np.array_equal(load_raster(tmp_path / "a.png").array, array[:, :, :2])
    save_image(array[:, :, 0] > 99, tmp_path / "a.png")
    assert np.array_equal(load_raster(tmp_path / "a.png").array, np.where(array[:, :, 0] > 99, 255, 0))
    save_image(array.astype(np.float32) / 255, tmp_path / "a.png")
    assert np.array_equal(load_raster(tmp_path / "a.png").array, array.astype(np.uint16) * 257)
    for wrong in (array.astype(np.float32), array.astype(int), np.zeros((3, 3, 5), np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(ImageError, match="`image`"):
            save_image(wrong, tmp_path / "b.png")
    with pytest.raises(ImageError, match=r"a.png' already exists"):
        save_image(array, tmp_path / "a.png", overwrite=False)


def test_failed_write_keeps_the_existing_file(tmp_path, array, monkeypatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail_half_way(self, file, **options):
        file.write(b"half an image")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail_half_way)
    with pytest.raises(ImageError, match="No space left"):
        save_image(Image.fromarray(array), target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_gif_with_sync_bytes_of_mpeg_ts_is_an_image(tmp_path):
    image = Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P")
    image.putpalette(bytes([ord("G")]) * 768)  # bytes 188 and 376, too
    image.save(tmp_path / "a.gif", optimize=False)
    data = (tmp_path / "a.gif").read_bytes()
    assert data[188:189] == data[376:377] == b"G"
    with open_image(tmp_path / "a.gif") as opened:
        assert (opened.kind, opened.width) == ("image", 4)


def write_heic(path: Path, *images: Image.Image) -> None:
    file = pillow_heif.HeifFile()
    for image in images:
        file.add_from_pillow(image)
    file.save(path, quality=-1, chroma=444)


def test_heic_named_jpg_is_read_by_a_fresh_process(tmp_path, array):
    write_heic(tmp_path / "a.jpg", Image.fromarray(array[:, :, :3]))
    code = (
        "import pathlib, sys; from srgan_hub.images.decode import load_raster; "
        "print(load_raster(pathlib.Path(sys.argv[1])).array.shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(6, 9, 3)\n"


def test_suffix_of_the_output_follows_from_the_bytes(tmp_path, array):
    image = Image.fromarray(array[:, :, :3])
    frames = {"save_all": True, "append_images": [image.rotate(180)]}
    image.save(tmp_path / "animated.png", "GIF", **frames)
    image.save(tmp_path / "still.mp4", "GIF")
    image.save(tmp_path / "pages.jpg", "TIFF", **frames)
    image.save(tmp_path / "page.tif")
    image.save(tmp_path / "webp.gif", "WEBP", **frames)
    image.save(tmp_path / "still.tif", "PNG")
    (tmp_path / "video.png").write_bytes(b"\0\0\0\x18ftypisom" + bytes(40))
    (tmp_path / "video.MKV").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(40))
    (tmp_path / "video.avi").write_bytes(b"RIFF\0\0\0\0AVI " + bytes(40))
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "cut.tif").write_bytes(b"II*\0\x08")
    expected = {
        "animated.png": ".gif", "still.mp4": ".png", "pages.jpg": ".tif", "page.tif": ".png", "webp.gif": ".png",
        "still.tif": ".png", "video.png": ".mp4", "video.MKV": ".mkv", "video.avi": ".mp4", "empty.gif": ".png",
        "cut.tif": ".png", "missing.mp4": ".png",
    }  # fmt: skip
    assert {name: default_suffix(tmp_path / name) for name in expected} == expected


def test_misnamed_media_are_upscaled_as_what_they_are(tmp_path, upscaler, array):
    image = Image.fromarray(array[:, :, :3])
    for name, kind in (("a.png", "GIF"), ("b.jpg", "TIFF")):
        image.save(tmp_path / name, kind, save_all=True, append_images=[image.rotate(180)])
    results = {each.source.name: each for each in upscale_files(upscaler, [tmp_path / "a.png", tmp_path / "b.jpg"])}
    for name, target in (("a.png", "a_x4.gif"), ("b.jpg", "b_x4.tif")):
        assert results[name].error is None and results[name].target.name == target
        with Image.open(results[name].target) as result:
            assert result.n_frames == 2 and result.size == (36, 24)


def test_of_several_heic_images_the_primary_one_is_read(tmp_path, array):
    first, second = Image.fromarray(array[:, :, :3]), Image.fromarray(array[::-1, :, :3].copy())
    write_heic(tmp_path / "one.heic", first)
    write_heic(tmp_path / "two.heic", first, second)
    raster = load_raster(tmp_path / "two.heic")
    assert raster.warnings == ["contains 2 images, of which the primary one is read"]
    assert np.array_equal(raster.array, load_raster(tmp_path / "one.heic").array)
    assert np.array_equal(load_raster(tmp_path / "two.heic", page=1).array, raster.array[::-1])
    with open_image(tmp_path / "two.heic") as opened:
        assert opened.kind == "image" and opened.default_suffix == ".png"


def flc(*frames: np.ndarray) -> bytes:
    """An Autodesk animation of frames (H, W) of colors, 40 milliseconds each."""
    height, width = frames[0].shape
    palette = struct.pack("<IHHBB", 778, 4, 1, 0, 0) + bytes(value for value in range(256) for _ in range(3))
    chunks = []
    for index, frame in enumerate(frames):
        pixels = struct.pack("<IH", 6 + frame.size, 16) + frame.tobytes()
        parts = [palette, pixels] if index == 0 else [pixels]
        data = b"".join(parts)
        chunks.append(struct.pack("<IHH8x", 16 + len(data), 0xF1FA, len(parts)) + data)
    body = b"".join(chunks)
    header = struct.pack("<IHHHHHHI", 128 + len(body), 0xAF12, len(frames), width, height, 8, 3, 40)
    return header.ljust(128, b"\0") + body


def test_flc_becomes_apng(tmp_path, upscaler):
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, 8), dtype=np.uint8)
    (tmp_path / "a.flc").write_bytes(flc(*frames))
    with open_image(tmp_path / "a.flc") as opened:
        assert opened.kind == "animation" and opened.count == 3
        assert np.array_equal(np.stack([frame.array[:, :, 0] for frame in opened.read()]), frames)
        assert opened.durations == [40, 40, 40]
    (result,) = upscale_files(upscaler, [tmp_path / "a.flc"])
    assert result.error is None and result.target.name == "a_x4.png"
    with Image.open(result.target) as image:
        assert image.n_frames == 3


def test_first_of_several_images_of_other_formats_is_read(tmp_path, array):
    offsets, pages = [1024 * 4 + 4], []
    for index in range(2):
        buffer = io.BytesIO()
        Image.fromarray(array[:, :, index]).save(buffer, "PCX")
        pages.append(buffer.getvalue())
    offsets.append(offsets[0] + len(pages[0]))
    header = struct.pack("<3I", 0x3ADE68B1, *offsets).ljust(offsets[0], b"\0")
    (tmp_path / "a.dcx").write_bytes(header + b"".join(pages))
    raster = load_raster(tmp_path / "a.dcx")
    assert np.array_equal(raster.array, array[:, :, 0]) and "contains 2 images" in raster.warnings[0]


def test_damaged_svg_is_named_at_once(tmp_path):
    for part in (b"<!---->", b"<!DOCTYPE svg>"):
        (tmp_path / "a.svg").write_bytes(part * 200)
        started = time.monotonic()
        with pytest.raises(ImageError, match="is not an image"):
            load_image(tmp_path / "a.svg")
        assert time.monotonic() - started < 5


def test_number_of_images_that_a_header_claims_costs_nothing(tmp_path):
    header = b"Image type: Greyscale image\r\nImage size (x*y): 4*3\r\nFile size (no of images): 999999999999\r\n\x1a"
    (tmp_path / "a.im").write_bytes(header.ljust(512, b"\0") + bytes(12))
    assert load_raster(tmp_path / "a.im").array.shape == (3, 4)


def test_avif_is_turned_by_its_own_property_and_not_by_xmp(tmp_path, array):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    exif = Image.Exif()
    for orientation, size in ((None, (9, 6)), (6, (6, 9))):
        exif[0x010F] = "Camera"
        if orientation:  # which Pillow writes as property
            exif[0x0112] = orientation
        Image.fromarray(array[:, :, :3]).save(tmp_path / "a.avif", xmp=xmp, exif=exif)
        raster = load_raster(tmp_path / "a.avif")
        assert (raster.width, raster.height) == size
        assert b'tiff:Orientation="1"' in raster.metadata.xmp


@pytest.mark.parametrize("matrix", [9, 12])  # BT.2020, and chroma-derived, which FFmpeg does not convert
def test_10_bit_avif_with_a_matrix_that_pyav_lacks_is_read_with_8_bits(tmp_path, matrix):
    colors = np.zeros((64, 64, 3), np.uint16) + np.uint16([50_000, 20_000, 9_000])
    with av.open(str(tmp_path / "a.avif"), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", rate=1, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.codec_context.color_primaries, stream.codec_context.color_trc = 9, 14
        stream.codec_context.colorspace = matrix
        frame = av.VideoFrame.from_ndarray(colors, format="rgb48le")
        file.mux(stream.encode(frame.reformat(format="yuv420p10le", dst_colorspace=9)))
        file.mux(stream.encode())
    raster = load_raster(tmp_path / "a.avif")
    assert raster.bits == (8 if matrix == 12 else 16)
    assert raster.warnings == (["has 10 bits per channel and is read with 8"] if matrix == 12 else [])
    assert np.abs(raster.with_bits(16).array.astype(int) - colors).max() < 1500
