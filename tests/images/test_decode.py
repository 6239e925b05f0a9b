"""Decode images of every mode and orientation, within limits, and save them."""

import io
import struct

import numpy as np
import pytest
from malformed_files import icon, png_header
from PIL import Image, ImageCms

from srgan_hub.images import pillow_fixes
from srgan_hub.images.decode import load_image, load_raster, open_image
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
        "cut.jpg": "Cannot decode .* corrupt or truncated",
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
        ("no/a.png", {}, "not a directory"),
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
    for wrong in (array.astype(np.float32), np.zeros((3, 3, 5), np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(ImageError, match="`image` must be uint8 or uint16"):
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
