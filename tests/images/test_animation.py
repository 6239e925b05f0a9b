"""Animations come back as they were, larger: what is seen when, how often, in each kind that holds it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.batch import upscale_files
from srgan_hub.images import decode
from srgan_hub.images.open_media import open_media
from srgan_hub.upscaler import Upscaler

DURATIONS = [100, 50, 70, 300]
KINDS = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF"}


@pytest.fixture
def upscaler() -> Upscaler:
    """A real one: with random weights frames may come out so alike that a codec makes one of them."""
    return SRGAN.from_pretrained("srresnet-x4").upscaler(device="cpu", dtype="fp32")


def paint(alpha: bool = False) -> list[Image.Image]:
    """Four frames of few colors, so that a GIF holds them exactly; the third is the second."""
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


def watch(path: Path) -> list[np.ndarray]:
    """What is seen at each 10 ms."""
    seen = []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            seen += [np.asarray(image.convert("RGBA")).astype(int)] * round(image.info["duration"] / 10)
    return seen


def upscale(upscaler: Upscaler, source: Path, target: Path, **options: object) -> None:
    ((_, _, problem),) = upscale_files(upscaler, [source], str(target), **options)
    if problem:
        raise problem


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", KINDS)
def test_frames_durations_and_size(upscaler, tmp_path, suffix, alpha):
    frames = paint(alpha)
    save(tmp_path / f"a{suffix}", frames, **({} if suffix == ".avif" else {"loop": 3}))
    ((_, target, problem),) = upscale_files(upscaler, [tmp_path / f"a{suffix}"])
    assert problem is None and target.name == ("a_x4.gif" if suffix == ".gif" else "a_x4.png")
    with Image.open(target) as image:
        assert image.size == (64, 48) and image.info["loop"] == {".gif": 3, ".avif": 0}.get(suffix, 3)
    seen = watch(target)
    expected = [upscaler.upscale(each) for each in watch_frames(tmp_path / f"a{suffix}", alpha)]
    assert len(seen) == 52
    # A GIF has 256 colors and no half transparency.
    for image, wanted in zip((seen[2], seen[12], seen[20], seen[40]), expected, strict=True):
        solid = wanted[..., 3] > 200
        close = np.abs(image[solid] - wanted[solid])
        assert (close.mean() < 6 and np.percentile(close, 99) < 32) if suffix == ".gif" else close.max() <= 3
        assert (image[wanted[..., 3] < 50][:, 3] < 128).all()


def watch_frames(path: Path, alpha: bool) -> list[np.ndarray]:
    seen = watch(path)
    frames = [seen[i].astype(np.uint8) for i in (2, 12, 20, 40)]
    return frames if alpha else [np.dstack([frame[..., :3], frame[..., 3:]]) for frame in frames]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (1, 2), (4, 5)])
def test_how_often_it_plays(upscaler, tmp_path, suffix, loop, plays):
    """A GIF's number counts the repetitions, the others' all times."""
    save(tmp_path / "a.gif", paint(), **({} if loop is None else {"loop": loop}))
    upscale(upscaler, tmp_path / "a.gif", tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as image:
        expected = {".gif": loop, ".avif": None}.get(suffix, plays)
        assert image.n_frames > 1 and image.info.get("loop") == expected
    if suffix in (".png", ".webp"):
        upscale(upscaler, tmp_path / f"b{suffix}", tmp_path / "c.gif")
        with Image.open(tmp_path / "c.gif") as image:
            assert image.info.get("loop") == loop


def test_the_still_of_an_apng(upscaler, tmp_path):
    """It is none of the frames, and goes where it cannot be held."""
    frames = paint()
    red = Image.new("RGB", (16, 12), "red")
    red.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=DURATIONS, loop=0)
    for name, count in (("b.png", 5), ("b.webp", 3)):
        upscale(upscaler, tmp_path / "a.png", tmp_path / name)
        with Image.open(tmp_path / name) as image:
            still = image.info.get("default_image", False)
            assert (image.n_frames - still, still) in ((4, True), (3, True), (3, False), (4, False))
            assert still == (count == 5)
            image.seek(image.n_frames - 1)
            assert (
                np.abs(np.asarray(image.convert("RGB")).astype(int) - upscaler.upscale(np.asarray(frames[3]))).max()
                <= 1
            )


def test_what_it_carries(upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a moving cat"
    save(tmp_path / "a.webp", paint(), exif=exif.tobytes(), icc_profile=b"profile" * 40)
    upscale(upscaler, tmp_path / "a.webp", tmp_path / "b.webp")
    upscale(upscaler, tmp_path / "a.webp", tmp_path / "c.webp", strip_metadata="all")
    with Image.open(tmp_path / "b.webp") as image, Image.open(tmp_path / "c.webp") as bare:
        assert image.getexif()[0x010E] == "a moving cat" and image.info["icc_profile"] == b"profile" * 40
        assert not bare.getexif()


def test_sizes_and_quality(upscaler, tmp_path):
    save(tmp_path / "a.gif", paint())
    upscale(upscaler, tmp_path / "a.gif", tmp_path / "b.webp", size=20, quality=50)
    with Image.open(tmp_path / "b.webp") as image:
        assert image.size == (20, 15) and image.n_frames == 3


def test_what_cannot_be(upscaler, tmp_path):
    save(tmp_path / "a.gif", paint())
    message = r"b.jpg: expected .gif or .png or .* for an animation, got .jpg"
    with pytest.raises(decode.ImageError, match=message):
        upscale(upscaler, tmp_path / "a.gif", tmp_path / "b.jpg")
    with pytest.raises(decode.ImageError, match="holds 3 images; the command line"):
        upscaler.upscale(tmp_path / "a.gif")
    with pytest.raises(decode.ImageError, match="16 x 12 pixels; the limit"):
        upscale(upscaler, tmp_path / "a.gif", tmp_path / "b.gif", max_pixels=100)
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(data[: len(data) - 40])
    with pytest.raises(decode.ImageError):
        upscale(upscaler, tmp_path / "cut.gif", tmp_path / "b.gif")
    assert not list(tmp_path.glob("*b*"))


def test_a_single_frame_is_an_image(tmp_path):
    paint()[0].save(tmp_path / "a.gif")
    assert open_media(tmp_path / "a.gif", ".gif", max_pixels=None) is None
    assert decode.load_raster(tmp_path / "a.gif").width == 16
