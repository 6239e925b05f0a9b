"""The README's table of formats: each cell is tried, and the table is made of what is tried here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

from srgan_hub import SRGAN
from srgan_hub.batch import upscale_files
from srgan_hub.images import decode, tiff_tiled
from srgan_hub.images.decode import ImageError
from srgan_hub.images.open_media import open_media
from srgan_hub.images.raster import Raster
from srgan_hub.images.tiff_channels import MultiChannelTiff
from srgan_hub.upscaler import Upscaler

ROOT = Path(__file__).parent.parent.parent
COLUMNS = (
    "written",
    "16 bits",
    "floats",
    "transparency",
    "profile",
    "EXIF, XMP",
    "several images",
    "larger than memory",
)
# Of each format its suffix, and what is so, column by column.
FORMATS = {
    "PNG": (".png", "yes", "yes", "", "yes", "yes", "yes", "animation", ""),
    "TIFF, BigTIFF": (".tif", "yes", "yes", "yes", "yes", "yes", "yes", "pages", "yes"),
    "JPEG": (".jpg", "yes", "", "", "", "yes", "yes", "", ""),
    "WebP": (".webp", "yes", "", "", "yes", "yes", "yes", "animation", ""),
    "AVIF": (".avif", "yes", "read", "", "yes", "yes", "yes", "animation", ""),
    "HEIC": (".heic", "", "read", "", "yes", "yes", "yes", "", ""),
    "JPEG 2000": (".jp2", "", "", "", "yes", "", "", "", ""),
    "GIF": (".gif", "animation", "", "", "animation", "", "", "animation", ""),
    "BMP": (".bmp", "yes", "", "", "read", "", "", "", ""),
    "MP4, MKV, MOV, WebM": (".mp4", "yes", "10 bits", "", "", "", "", "video", "yes"),
}
# Those of videos are tried in test_video.
CELLS = [(name, column) for name in FORMATS for column in range(len(COLUMNS)) if "video" not in FORMATS[name]]


def table() -> str:
    """The table, in Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, (_, *cells) in FORMATS.items()]
    return "\n".join(lines) + "\n"


def test_the_table_is_in_the_readme():
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8"), table()


RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
CLEAR = np.dstack([RGB, np.tile(np.array([0, 255], np.uint8), (12, 8))])
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = Image.Exif()
EXIF[0x010F] = "Camera"


def attempt(action: Callable[[], object]) -> bool:
    try:
        return bool(action())
    except (ImageError, ValueError, OSError, KeyError):
        return False


def written(path: Path, array: np.ndarray, **info: object) -> bool:
    decode.save_image(Raster(array, info), path)
    return True


def others(path: Path, array: np.ndarray, **options: object) -> Path:
    """As other programs write such a file."""
    if path.suffix == ".heic":
        mode = {2: "L;16", 3: "RGB;16", 4: "RGBA"}[array.ndim if array.ndim == 2 else array.shape[2]]
        data = array if mode == "RGBA" else array.astype(np.uint16) << 8
        heif = pillow_heif.from_bytes(mode, (array.shape[1], array.shape[0]), data.tobytes())
        heif.save(path, **{name: value.tobytes() if name == "exif" else value for name, value in options.items()})
    else:
        Image.fromarray(array).save(path, **options)
    return path


def video(path: Path, upscaler: Upscaler) -> bool:
    """Whether an animation, or a file of pages, gives such a file."""
    source = path.with_name("video.tif" if path.suffix == ".tif" else "video.webp")
    frames = [Image.fromarray(np.roll(RGB, i, 1)) for i in range(2)]
    frames[0].save(source, save_all=True, append_images=frames[1:])
    ((_, _, problem),) = upscale_files(upscaler, [source], str(path))
    with Image.open(path) as image:
        return problem is None and image.n_frames == 2


def find_out(path: Path, column: str, upscaler: Upscaler, monkeypatch) -> str:
    """What is so."""
    match column:
        case "written":
            if attempt(lambda: written(path, RGB)):
                return "yes"
            return "animation" if attempt(lambda: video(path, upscaler)) else ""
        case "16 bits":
            deep = RGB.astype(np.uint16) * 256 + 7
            if attempt(lambda: written(path, deep) and decode.load_raster(path).bits == 16):
                return "yes"
            if path.suffix == ".avif":  # tried in test_deep
                return "read"
            return "read" if path.suffix == ".heic" and decode.load_raster(others(path, RGB)).bits == 16 else ""
        case "floats":
            if path.suffix == ".tif":
                tifffile.imwrite(path, RGB[..., 0].astype(np.float32))
            ((_, _, problem),) = upscale_files(upscaler, [path], str(path.with_name(f"b{path.suffix}")))
            return "yes" if not problem else ""
        case "transparency":
            if attempt(lambda: written(path, CLEAR) and decode.load_raster(path).alpha):
                return "yes"
            if path.suffix == ".gif":
                return "animation"  # tried in test_animation
            if path.suffix == ".bmp":  # with a mask of alpha, which Pillow reads and does not write
                return "read"
            readable = attempt(lambda: decode.load_raster(others(path, CLEAR)).alpha)
            return ("yes" if path.suffix in (".heic", ".jp2") else "read") if readable else ""
        case "profile":
            if attempt(
                lambda: (
                    written(path, RGB, icc_profile=PROFILE) and decode.load_raster(path).info["icc_profile"] == PROFILE
                )
            ):
                return "yes"
            readable = attempt(lambda: decode.load_raster(others(path, RGB, icc_profile=PROFILE)).info["icc_profile"])
            return "yes" if readable else ""
        case "EXIF, XMP":
            info = {"exif": EXIF.tobytes(), "xmp": b"<x/>"}
            if attempt(lambda: written(path, RGB, **info) and {"exif", "xmp"} <= decode.load_raster(path).info.keys()):
                return "yes"
            return (
                "yes"
                if attempt(lambda: b"Camera" in decode.load_raster(others(path, RGB, exif=EXIF)).info["exif"])
                else ""
            )
        case "several images":
            return ("pages" if path.suffix == ".tif" else "animation") if attempt(lambda: video(path, upscaler)) else ""
        case "larger than memory":
            monkeypatch.setattr(tiff_tiled, "LARGE", 1)
            others(path, RGB)
            return "yes" if isinstance(open_media(path, path.suffix, max_pixels=None), tiff_tiled.TiledTiff) else ""
    raise AssertionError(column)


@pytest.mark.parametrize(
    ("name", "column"), CELLS, ids=lambda value: COLUMNS[value] if isinstance(value, int) else value
)
def test_each_cell(tmp_path, monkeypatch, name, column):
    suffix, *cells = FORMATS[name]
    upscaler = SRGAN.from_pretrained("srresnet-x4").upscaler(device="cpu", dtype="fp32")
    if COLUMNS[column] == "floats" and suffix not in MultiChannelTiff.suffixes:
        assert cells[column] == ""
        return
    assert find_out(tmp_path / f"a{suffix}", COLUMNS[column], upscaler, monkeypatch) == cells[column]
