"""Each input is opened once to choose the suffix of the output and once to be read; each frame is decoded once."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from srgan_hub.batch import upscale_files
from srgan_hub.images import png16, tiff_media
from srgan_hub.images.encode import SaveOptions
from srgan_hub.images.raster import Raster

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEEP = RGB.astype(np.uint16) * 257 + 7


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """Record the paths that this process opens; an audit hook cannot be removed, only disabled."""
    paths: list[str] = []
    is_active = True

    def hook(event: str, args: tuple[object, ...]) -> None:
        if is_active and event == "open":
            paths.append(str(args[0]))

    sys.addaudithook(hook)
    yield paths
    is_active = False


def write_video(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.roll(RGB, index, 1), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def write_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for page in (RGB, DEEP[..., 0], DEEP, RGB[..., 0]):
            file.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None)


def write_color_chunks(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (50_000).to_bytes(4, "big"))
    info.add(b"cICP", bytes([9, 16, 0, 1]))
    Image.fromarray(RGB).save(path, pnginfo=info)


def write_animation(path: Path) -> None:
    frames = [Image.fromarray(np.roll(RGB, index, 1)) for index in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)


def write_avif10(path: Path) -> None:
    with av.open(str(path), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint16), format="rgb48le")
        file.mux(stream.encode(frame.reformat(format="yuv420p10le")))
        file.mux(stream.encode())


WRITERS = {
    "PNG": ("a.png", lambda path: Image.fromarray(RGB).save(path)),
    "16-bit PNG": ("a.png", lambda path: png16.write_png16(Raster(DEEP), path)),
    "PNG with color chunks": ("a.png", write_color_chunks),
    "JPEG": ("a.jpg", lambda path: Image.fromarray(RGB).save(path)),
    "GIF": ("a.gif", lambda path: Image.fromarray(RGB).save(path)),
    "animated GIF": ("a.gif", write_animation),
    "APNG": ("a.png", write_animation),
    "animated WebP": ("a.webp", write_animation),
    "TIFF": ("a.tif", lambda path: tifffile.imwrite(path, RGB, photometric="rgb")),
    "LZW TIFF": ("a.tif", lambda path: Image.fromarray(RGB).save(path, compression="tiff_lzw")),
    "planar TIFF": ("a.tif", lambda path: tifffile.imwrite(path, DEEP.transpose(2, 0, 1), planarconfig="separate")),
    "16-bit TIFF": ("a.tif", lambda path: tifffile.imwrite(path, DEEP, photometric="rgb")),
    "float TIFF": ("a.tif", lambda path: tifffile.imwrite(path, RGB[..., 0].astype(np.float32))),
    "multi-page TIFF": ("a.tif", write_pages),
    "tiled TIFF": ("a.tif", lambda path: tifffile.imwrite(path, RGB, photometric="rgb", tile=(16, 16))),
    "HEIC": ("a.heic", lambda path: pillow_heif.from_pillow(Image.fromarray(RGB)).save(path)),
    "AVIF": ("a.avif", lambda path: Image.fromarray(RGB).save(path)),
    "10-bit AVIF": ("a.avif", write_avif10),
    "video": ("a.mp4", write_video),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_opens_per_upscale(opened, tmp_path, monkeypatch, upscaler, kind):
    name, write = WRITERS[kind]
    path = tmp_path / name
    write(path)
    monkeypatch.setattr(tiff_media, "LARGE", 1 if kind == "tiled TIFF" else 10**9)
    open_av = av.open

    def count_path(file: object, *args: object, **options: object) -> object:
        if file == f"file:{path}":  # by FFmpeg, which the hook does not see
            opened.append(str(path))
        return open_av(file, *args, **options)

    monkeypatch.setattr(av, "open", count_path)
    opened.clear()
    (result,) = upscale_files(upscaler, [path])
    assert result.error is None
    assert opened.count(str(path)) == (3 if kind == "video" else 2)  # a video also for its sound and subtitles
    opened.clear()
    (result,) = upscale_files(upscaler, path, result.target, options=SaveOptions(overwrite=True))
    assert result.error is None and opened.count(str(path)) == (2 if kind == "video" else 1)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif"])
def test_frames_are_decoded_once(tmp_path, monkeypatch, upscaler, suffix):
    write_animation(tmp_path / f"a{suffix}")
    decoded, convert = [], Image.Image.convert

    def record(image: Image.Image, *args: object, **options: object) -> Image.Image:
        if image.size == (16, 12) and args == ("RGBA",):
            decoded.append(image)
        return convert(image, *args, **options)

    monkeypatch.setattr(Image.Image, "convert", record)
    (result,) = upscale_files(upscaler, [tmp_path / f"a{suffix}"], str(tmp_path / "b.webp"))
    assert result.error is None and len(decoded) == 4
