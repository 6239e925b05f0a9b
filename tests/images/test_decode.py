import io
import struct

import numpy as np
import pytest
from malformed_files import icon, png_header
from PIL import Image, ImageCms

from srgan_hub.images import decode, pillow_fixes
from srgan_hub.images.decode import ImageError
from srgan_hub.images.raster import Raster


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
    decode.save_image(Image.fromarray(pixels), tmp_path / f"a{suffix}")
    image = decode.load_image(tmp_path / f"a{suffix}")
    assert image.mode == mode
    visible = pixels if channels < 4 else pixels * (pixels[:, :, 3:] > 0)  # WebP drops the color of empty pixels
    got = np.asarray(image)
    assert np.array_equal(got if channels < 4 else got * (got[:, :, 3:] > 0), visible)


def test_jpeg_keeps_color_and_quality(tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)[:, :, None] + np.uint8([0, 50, 100])
    decode.save_image(Image.fromarray(smooth), tmp_path / "a.jpg")
    image = decode.load_image(tmp_path / "a.jpg")
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
        got = decode.load_image(tmp_path / "a.png")
        assert got.mode == mode, name
        assert np.array_equal(np.asarray(got), np.asarray(same)), name


def test_transparent_palette_and_color_key(tmp_path, array):
    palette = Image.fromarray(array[:, :, :3]).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=0)
    got = np.asarray(decode.load_image(tmp_path / "palette.png"))
    assert np.array_equal(got[:, :, 3] == 0, np.asarray(palette) == 0)
    color = Image.fromarray(array[:, :, :3])
    key = tuple(int(v) for v in array[2, 3, :3])
    color.save(tmp_path / "key.png", transparency=key)
    got = np.asarray(decode.load_image(tmp_path / "key.png"))
    assert got[2, 3, 3] == 0 and (got[:, :, 3] == 255).sum() == 6 * 9 - 1
    gray = Image.fromarray(array[:, :, 0])
    gray.save(tmp_path / "gray.png", transparency=int(array[1, 1, 0]))
    got = decode.load_image(tmp_path / "gray.png")
    assert got.mode == "LA" and np.asarray(got)[1, 1, 1] == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset_and_the_rest_survives(tmp_path, array, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = array[:, :, :3]
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif, dpi=(300, 300), icc_profile=profile)
    image = decode.load_image(tmp_path / "a.png")
    flips = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1)}
    turns = {6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a.swapaxes(0, 1), 2), 8: np.rot90}
    upright = {1: lambda a: a, **flips, **turns}[orientation](pixels)
    assert np.array_equal(np.asarray(image), upright)
    larger = Raster(np.repeat(upright, 2, axis=0), image.info)
    decode.save_image(larger, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as written:
        assert written.getexif().get(0x0112, 1) == 1
        assert written.getexif()[0x010F] == "Camera"
        assert written.info["icc_profile"] == profile
        assert round(written.info["dpi"][0]) == 300


@pytest.mark.parametrize("profile", [None, b"broken"])
def test_cmyk_becomes_rgb_without_its_profile(tmp_path, array, profile):
    cmyk = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cmyk.save(tmp_path / "a.jpg", icc_profile=profile, quality=100)
    image = decode.load_image(tmp_path / "a.jpg")
    assert image.mode == "RGB" and "icc_profile" not in image.info
    assert np.abs(np.asarray(image).astype(int) - (0, 255, 255)).max() <= 2  # cyan


def test_sixteen_bits_are_read_with_eight_and_said(tmp_path, caplog):
    deep = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(decode.load_image(tmp_path / "a.png")), (deep / 257).round())
    assert "16 bits" in caplog.text


def test_phone_images_with_a_second_frame(tmp_path, array):
    color = Image.fromarray(array[:, :, :3])
    color.save(tmp_path / "a.mpo", save_all=True, append_images=[color])
    assert decode.load_image(tmp_path / "a.mpo").size == (9, 6)


def test_bad_files_are_refused_in_a_sentence(tmp_path, array):
    color = Image.fromarray(array[:, :, :3]).resize((64, 64))
    (tmp_path / "text.png").write_text("This is no image.")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "huge.png").write_bytes(png_header(20_000, 20_000))
    (tmp_path / "wide.png").write_bytes(png_header(200, 100))
    color.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    color.save(tmp_path / "moving.gif", save_all=True, append_images=[color.rotate(90)])
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "float.tif")
    expected = {
        "text.png": "not an image",
        "empty.png": "empty",
        "huge.png": "20000 x 20000 pixels; the limit is 0.01 million",
        "wide.png": "200 x 100 pixels; the limit is 0.01 million",
        "cut.jpg": "broken or cut short",
        "moving.gif": "2 images; the command line",
        "float.tif": "mode F",
        "missing.png": "does not exist",
        ".": "is a folder",
    }
    for name, message in expected.items():
        with pytest.raises(ImageError, match=message) as error:
            decode.load_image(tmp_path / name, max_pixels=10_000)
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_the_limit_holds_for_what_is_decoded(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (140, 140)).save(buffer, "PNG")
    (tmp_path / "a.icns").write_bytes(icon(b"ic07", buffer.getvalue()))  # which promises 128 x 128
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(buffer.getvalue()), 22)
    (tmp_path / "a.ico").write_bytes(header + buffer.getvalue())  # which promises 16 x 16
    with pytest.raises(ImageError, match=r"has 140 x 140 pixels; the limit is 0\.009 million"):
        decode.load_image(tmp_path / "a.ico", max_pixels=9_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    for name in ("a.icns", "a.ico"):
        with pytest.raises(ImageError, match="holds far too many pixels"):
            decode.load_image(tmp_path / name, max_pixels=128 * 128)


def test_the_size_is_checked_again_after_decoding(tmp_path, monkeypatch):
    Image.new("L", (30, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(pillow_fixes, "decode", lambda image: Image.new("L", (60, 60)))
    assert decode.load_image(tmp_path / "a.png", max_pixels=3_600).size == (60, 60)
    with pytest.raises(ImageError, match="60 x 60 pixels"):
        decode.load_image(tmp_path / "a.png", max_pixels=3_599)


def test_limits_of_formats(tmp_path):
    for name, size, alpha, message in [
        ("a.webp", (20_000, 10), False, "WEBP holds at most 16383"),
        ("a.jpg", (10, 70_000), False, "JPEG holds at most 65535"),
        ("a.jpg", (10, 10), True, "JPEG cannot hold transparency"),
        ("a.xyz", (10, 10), False, "cannot write .xyz"),
        ("no/a.png", (10, 10), False, "not a folder"),
    ]:
        with pytest.raises(ImageError, match=message):
            decode.validate_output(tmp_path / name, width=size[0], height=size[1], alpha=alpha)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, array, monkeypatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail_half_way(self, file, **options):
        file.write_bytes(b"half an image")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail_half_way)
    with pytest.raises(ImageError, match="No space left"):
        decode.save_image(Image.fromarray(array), target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
