"""Animations keep frames, durations and repetitions in every format."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from upscaled_files import upscale_file

from srgan_hub import SRGAN
from srgan_hub.images.decode import load_raster, open_image
from srgan_hub.images.errors import ImageError
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
