"""The README's table of formats: each cell is tried, and the table is made of what is tried here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

from srgan_hub import SRGAN
from srgan_hub.pictures import files, large
from srgan_hub.pictures.files import PictureError
from srgan_hub.pictures.planes import Planes
from srgan_hub.pictures.raster import Raster
from srgan_hub.pictures.sources import open_source
from srgan_hub.pipeline import upscale_files
from srgan_hub.upscaler import Upscaler

ROOT = Path(__file__).parent.parent.parent
COLUMNS = (
    "written",
    "16 bits",
    "floats",
    "transparency",
    "profile",
    "EXIF, XMP",
    "several pictures",
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
    except (PictureError, ValueError, OSError, KeyError):
        return False


def written(path: Path, array: np.ndarray, **info: object) -> bool:
    files.write(Raster(array, info), path)
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


def film(path: Path, upscaler: Upscaler) -> bool:
    """Whether an animation, or a file of pages, gives such a file."""
    source = path.with_name("film.tif" if path.suffix == ".tif" else "film.webp")
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
            return "animation" if attempt(lambda: film(path, upscaler)) else ""
        case "16 bits":
            deep = RGB.astype(np.uint16) * 256 + 7
            if attempt(lambda: written(path, deep) and files.read(path).bits == 16):
                return "yes"
            if path.suffix == ".avif":  # tried in test_deep
                return "read"
            return "read" if path.suffix == ".heic" and files.read(others(path, RGB)).bits == 16 else ""
        case "floats":
            if path.suffix == ".tif":
                tifffile.imwrite(path, RGB[..., 0].astype(np.float32))
            ((_, _, problem),) = upscale_files(upscaler, [path], str(path.with_name(f"b{path.suffix}")))
            return "yes" if not problem else ""
        case "transparency":
            if attempt(lambda: written(path, CLEAR) and files.read(path).alpha):
                return "yes"
            if path.suffix == ".gif":
                return "animation"  # tried in test_animation
            if path.suffix == ".bmp":  # with a mask of alpha, which Pillow reads and does not write
                return "read"
            readable = attempt(lambda: files.read(others(path, CLEAR)).alpha)
            return ("yes" if path.suffix in (".heic", ".jp2") else "read") if readable else ""
        case "profile":
            if attempt(
                lambda: written(path, RGB, icc_profile=PROFILE) and files.read(path).info["icc_profile"] == PROFILE
            ):
                return "yes"
            readable = attempt(lambda: files.read(others(path, RGB, icc_profile=PROFILE)).info["icc_profile"])
            return "yes" if readable else ""
        case "EXIF, XMP":
            info = {"exif": EXIF.tobytes(), "xmp": b"<x/>"}
            if attempt(lambda: written(path, RGB, **info) and {"exif", "xmp"} <= files.read(path).info.keys()):
                return "yes"
            return "yes" if attempt(lambda: b"Camera" in files.read(others(path, RGB, exif=EXIF)).info["exif"]) else ""
        case "several pictures":
            return ("pages" if path.suffix == ".tif" else "animation") if attempt(lambda: film(path, upscaler)) else ""
        case "larger than memory":
            monkeypatch.setattr(large, "LARGE", 1)
            others(path, RGB)
            return "yes" if isinstance(open_source(path, path.suffix, max_pixels=None), large.Large) else ""
    raise AssertionError(column)


@pytest.mark.parametrize(
    ("name", "column"), CELLS, ids=lambda value: COLUMNS[value] if isinstance(value, int) else value
)
def test_each_cell(tmp_path, monkeypatch, name, column):
    suffix, *cells = FORMATS[name]
    upscaler = SRGAN.from_pretrained("srresnet-x4").upscaler(device="cpu", precision="fp32")
    if COLUMNS[column] == "floats" and suffix not in Planes.suffixes:
        assert cells[column] == ""
        return
    assert find_out(tmp_path / f"a{suffix}", COLUMNS[column], upscaler, monkeypatch) == cells[column]
