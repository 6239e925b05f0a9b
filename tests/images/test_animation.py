"""Animations keep frames, durations and repetitions in every format."""

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from upscaled_files import upscale_file

from srgan_hub import SRGAN
from srgan_hub.images.animation import AnimationReader, AnimationWriter
from srgan_hub.images.decode import load_raster, open_image
from srgan_hub.images.encode import SaveOptions
from srgan_hub.images.errors import ImageError
from srgan_hub.images.media import Output
from srgan_hub.images.raster import Raster
from srgan_hub.upscaler import Upscaler

DURATIONS = [100, 50, 70, 300]
SUFFIXES = (".gif", ".png", ".webp", ".avif")


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    """A trained one: with random weights frames may be so similar that a codec merges them."""
    return SRGAN.from_pretrained("srresnet-x4").upscaler(device="cpu", dtype="fp32")


def make_frames(alpha: bool = False) -> list[Image.Image]:
    """Four frames of few colors, which a GIF stores exactly; the third equals the second."""
    frames = []
    for left in (2, 6, 6, 10):
        array = np.zeros((12, 16, 4), np.uint8)
        array[..., :3] = (40, 90, 200)
        array[..., 3] = 255
        array[3:9, left : left + 4, :3] = (250, 200, 30)
        if alpha:
            array[:, :left, 3] = 0
        frames.append(Image.fromarray(array).convert("RGBA" if alpha else "RGB"))
    return frames


def save(path: Path, frames: list[Image.Image], **options: object) -> None:
    more = {"lossless": True} if path.suffix == ".webp" else {"quality": 100} if path.suffix == ".avif" else {}
    if path.suffix == ".gif":
        more = {"disposal": 2 if frames[0].mode == "RGBA" else 1}
    frames[0].save(path, save_all=True, append_images=frames[1:], **{"duration": DURATIONS, **more, **options})


def sample(path: Path) -> list[np.ndarray]:
    """The composed frame at each 10 ms."""
    samples = []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            samples += [np.asarray(image.convert("RGBA")).astype(int)] * round(image.info["duration"] / 10)
    return samples


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_and_durations(upscaler, tmp_path, suffix, alpha):
    save(tmp_path / f"a{suffix}", make_frames(alpha), **({} if suffix == ".avif" else {"loop": 3}))
    target = upscale_file(upscaler, tmp_path / f"a{suffix}")
    assert target.name == ("a_x4.gif" if suffix == ".gif" else "a_x4.png")
    with Image.open(target) as image:
        assert image.size == (64, 48) and image.info["loop"] == (0 if suffix == ".avif" else 3)
    sources = sample(tmp_path / f"a{suffix}")
    results = sample(target)
    assert len(results) == 52
    for source, result in [(sources[i], results[i]) for i in (2, 12, 20, 40)]:
        expected = upscaler.upscale(source.astype(np.uint8))
        opaque = expected[..., 3] > 200
        error = np.abs(result[opaque] - expected[opaque])
        # A GIF has 256 colors and no partial transparency.
        assert (error.mean() < 6 and np.percentile(error, 99) < 32) if suffix == ".gif" else error.max() <= 3
        assert (result[expected[..., 3] < 50][:, 3] < 128).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (1, 2), (4, 5)])
def test_repetitions(upscaler, tmp_path, suffix, loop, plays):
    """A GIF counts repetitions, other formats how often it plays."""
    save(tmp_path / "a.gif", make_frames(), **({} if loop is None else {"loop": loop}))
    upscale_file(upscaler, tmp_path / "a.gif", tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as image:
        expected = {".gif": loop, ".avif": None}.get(suffix, plays)
        assert image.n_frames > 1 and image.info.get("loop") == expected
    if suffix in (".png", ".webp"):
        with Image.open(upscale_file(upscaler, tmp_path / f"b{suffix}", tmp_path / "c.gif")) as image:
            assert image.info.get("loop") == loop


def test_default_image_of_an_apng(upscaler, tmp_path):
    """It is not one of the frames, and is dropped where it cannot be stored."""
    frames = make_frames()
    red = Image.new("RGB", (16, 12), "red")
    red.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=DURATIONS, loop=0)
    last = upscaler.upscale(np.asarray(frames[3]))
    for name, has_default_image in (("b.png", True), ("b.webp", False)):
        with Image.open(upscale_file(upscaler, tmp_path / "a.png", tmp_path / name)) as image:
            assert image.info.get("default_image", False) == has_default_image
            assert image.n_frames - has_default_image in (3, 4)
            image.seek(image.n_frames - 1)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - last).max() <= 1


def test_metadata_size_and_quality(upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a moving cat"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(tmp_path / "a.webp", make_frames(), exif=exif.tobytes(), icc_profile=profile)
    upscale_file(upscaler, tmp_path / "a.webp", tmp_path / "b.webp", size=20, quality=50)
    upscale_file(upscaler, tmp_path / "a.webp", tmp_path / "c.webp", strip_metadata="all")
    with Image.open(tmp_path / "b.webp") as image, Image.open(tmp_path / "c.webp") as stripped:
        assert image.size == (20, 15) and image.n_frames == 3
        assert image.getexif()[0x010E] == "a moving cat" and image.info["icc_profile"] == profile
        assert not stripped.getexif()


def test_errors(upscaler, tmp_path):
    save(tmp_path / "a.gif", make_frames())
    with pytest.raises(ImageError, match=r"b.jpg': cannot save animation as .jpg; use .png"):
        upscale_file(upscaler, tmp_path / "a.gif", tmp_path / "b.jpg")
    with pytest.raises(ImageError, match="contains 3 images"):
        upscaler.upscale(tmp_path / "a.gif")
    with pytest.raises(ImageError, match="16 x 12 pixels; the limit"):
        upscale_file(upscaler, tmp_path / "a.gif", tmp_path / "b.gif", max_pixels=100)
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(data[: len(data) - 40])
    with pytest.raises(ImageError):
        upscale_file(upscaler, tmp_path / "cut.gif", tmp_path / "b.gif")
    assert not list(tmp_path.glob("*b*"))


def test_one_frame_is_an_image(tmp_path):
    make_frames()[0].save(tmp_path / "a.gif")
    with open_image(tmp_path / "a.gif") as opened:
        assert opened.kind == "image" and opened.default_suffix == ".png"
    assert load_raster(tmp_path / "a.gif").width == 16


def gif(path: Path, frames: list[bytes]) -> None:
    """A GIF of 6 x 4 pixels, with three colors and black."""
    palette = bytes([0, 0, 0, 250, 0, 0, 0, 200, 0, 0, 0, 150])
    path.write_bytes(b"GIF89a" + struct.pack("<2H3B", 6, 4, 0x81, 2, 0) + palette + b"".join(frames) + b";")


def gif_frame(pixels: list[str], left: int, top: int, disposal: int, transparent: int | None = None) -> bytes:
    """A frame of 100 ms. Its codes have 8 bits each: pixels, 128 to begin, 129 to end."""
    control = bytes([disposal << 2 | (transparent is not None), 10, 0, transparent or 0])
    codes = bytes([128, *map(int, "".join(pixels)), 129])
    place = struct.pack("<4HB", left, top, len(pixels[0]), len(pixels), 0)
    return b"!\xf9\4" + control + b"\0," + place + bytes([7, len(codes)]) + codes + b"\0"


def draw(*rows: str) -> np.ndarray:
    """The RGBA pixels of colors by their numbers, and of dots, which are transparent."""
    colors = {".": (0, 0, 0, 0), "1": (250, 0, 0, 255), "2": (0, 200, 0, 255), "3": (0, 0, 150, 255)}
    return np.array([[colors[each] for each in row] for row in rows], np.uint8)


def read_frames(path: Path) -> list[np.ndarray]:
    """All frames as RGBA, with black where they are transparent."""
    with open_image(path) as opened:
        assert isinstance(opened, AnimationReader)
        arrays = [frame.array for frame in opened.read()]
    opaque = np.full((*arrays[0].shape[:2], 1), 255, np.uint8)
    arrays = [array if array.shape[2] == 4 else np.dstack([array, opaque]) for array in arrays]
    return [np.where(array[..., 3:] > 0, array, 0) for array in arrays]


# Frames, and what Chromium draws of them.
GIF_FRAMES = [
    (gif_frame(["11", "11"], 1, 1, 1), draw("......", ".11...", ".11...", "......")),
    (gif_frame(["222", "222"], 0, 0, 2), draw("222...", "222...", ".11...", "......")),
    (gif_frame(["30", "33"], 4, 2, 3, transparent=0), draw("......", "......", ".11.3.", "....33")),
    (gif_frame(["1"], 5, 3, 0), draw("......", "......", ".11...", ".....1")),
    (gif_frame(["2222", "2222", "2222"], 4, 2, 3), draw("......", "......", ".11.22", "....22")),
    (gif_frame(["33", "33"], 0, 0, 2, transparent=3), draw("......", "......", ".11...", ".....1")),
    (gif_frame(["0123"], 1, 1, 0, transparent=0), draw("......", "..123.", ".11...", ".....1")),
]


def test_gif_is_composed_as_in_browsers(tmp_path):
    gif(tmp_path / "a.gif", [frame for frame, _ in GIF_FRAMES])
    for number, (result, (_, expected)) in enumerate(zip(read_frames(tmp_path / "a.gif"), GIF_FRAMES, strict=True)):
        assert np.array_equal(result, expected), number


def test_disposal_of_the_first_frame(tmp_path):
    for disposal in (2, 3):  # there is nothing to restore
        gif(tmp_path / "a.gif", [gif_frame(["11", "11"], 1, 1, disposal), gif_frame(["2"], 2, 2, 0)])
        assert np.array_equal(read_frames(tmp_path / "a.gif")[1], draw("......", "......", "..2...", "......"))


def test_single_frame_smaller_than_the_canvas(tmp_path):
    for transparent in (None, 0, 3):
        gif(tmp_path / "a.gif", [gif_frame(["12", "21"], 2, 1, 0, transparent)])
        result = load_raster(tmp_path / "a.gif").array
        assert np.array_equal(np.where(result[..., 3:] > 0, result, 0), draw("......", "..12..", "..21..", "......"))


def apng(path: Path, frames: list[tuple[np.ndarray, int, int, int, int]], count: int | None = None) -> None:
    """An APNG of 6 x 4 pixels of frames (RGBA, left, top, disposal, blending), of which it declares `count`."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 8, 6, 0, 0, 0))
    data += chunk(b"acTL", struct.pack(">II", count or len(frames), 0))
    for number, (array, left, top, disposal, blending) in enumerate(frames):
        height, width = array.shape[:2]
        sequence = max(0, 2 * number - 1)
        place = struct.pack(">IIIIIHHBB", sequence, width, height, left, top, 1, 10, disposal, blending)
        pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in array))
        data += chunk(b"fcTL", place)
        data += chunk(b"fdAT", struct.pack(">I", sequence + 1) + pixels) if number else chunk(b"IDAT", pixels)
    path.write_bytes(data + chunk(b"IEND", b""))


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blending", [0, 1])
def test_apng_is_composed_as_specified(tmp_path, disposal, blending):
    """Disposal: leave, clear, restore. Blending: replace, or draw over. Nothing is left to restore for the first."""
    first = draw("111111", "111111", "1.1.1.", "......")
    part, last = draw("2.3", ".23"), draw(".3")
    apng(tmp_path / "a.png", [(first, 0, 0, 0, 0), (part, 2, 1, disposal, blending), (last, 4, 2, 0, 1)])
    second = [
        draw("111111", "112.31", "1..23.", "......"),
        draw("111111", "112131", "1.123.", "......"),
    ][blending]
    third = [second.copy(), second.copy(), first.copy()][disposal]
    if disposal == 1:
        third[1:3, 2:5] = 0
    third[2, 5] = last[0, 1]
    for result, expected in zip(read_frames(tmp_path / "a.png"), [first, second, third], strict=True):
        assert np.array_equal(result, expected)
    apng(tmp_path / "a.png", [(first, 0, 0, disposal, blending), (last, 4, 2, 0, 1)])
    canvas = first.copy() if disposal == 0 else np.zeros_like(first)
    canvas[2, 5] = last[0, 1]
    assert np.array_equal(read_frames(tmp_path / "a.png")[1], canvas)


def test_absurd_numbers_of_frames_are_refused_at_once(upscaler, tmp_path):
    frame = (draw("12", "21"), 0, 0, 0, 0)
    full = (draw(*["111111"] * 4), 0, 0, 0, 0)
    for count in (2**31, 2**31 - 1, 10_000, 20):
        apng(tmp_path / "a.png", [full, frame], count)
        started = time.monotonic()
        with pytest.raises(ImageError, match="corrupt"):
            upscale_file(upscaler, tmp_path / "a.png", tmp_path / "b.png")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
@pytest.mark.parametrize("alpha", [False, True])
def test_written_frames_are_those_composed(tmp_path, suffix, alpha):
    """Equal neighbors may merge if each image is shown as long as before."""
    frames = [draw("111111", "11.111", "111111", "11111."), GIF_FRAMES[1][1], GIF_FRAMES[2][1], GIF_FRAMES[3][1]]
    order, durations = [0, 0, 0, 1, 2, 2, 3, 0, 0], [100, 33, 37, 25, 250, 43, 57, 16, 29]
    arrays = [frames[index] if alpha else frames[index][..., :3] for index in order]
    images = [Image.fromarray(array) for array in arrays]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=durations, lossless=True)
    with open_image(tmp_path / "a.webp") as reader:
        assert isinstance(reader, AnimationReader)
        reader.decode()
        rasters = [Raster(array) for array in arrays]
        reader.durations = durations
        reader.count = len(durations)
        writer = AnimationWriter(reader, tmp_path / f"b{suffix}", Output(tmp_path / f"b{suffix}", 6, 4, SaveOptions()))
        writer.write(iter(rasters))
    with open_image(tmp_path / f"b{suffix}") as result:
        assert isinstance(result, AnimationReader)
        result.decode()
        shown = np.repeat(np.arange(result.count), result.durations)
    written = read_frames(tmp_path / f"b{suffix}")
    times = np.repeat(order, durations)
    assert len(shown) == len(times)
    off = 0
    for at, index in enumerate(times):
        expected = np.where(frames[index][..., 3:] > 0, frames[index], 0)
        expected[..., 3] = expected[..., 3] if alpha else 255
        off += not np.array_equal(written[shown[at]], expected)
    assert off <= (5 * 4 if suffix == ".gif" else 0)  # a GIF counts in steps of 10 ms
