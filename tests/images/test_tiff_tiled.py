"""TIFF by rows: the same as from memory, whatever its layout; within bounded memory; a killed run goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.batch import upscale_files
from srgan_hub.images import tiff_tiled
from srgan_hub.images.decode import ImageError
from srgan_hub.images.open_media import open_media
from srgan_hub.upscaler import Upscaler

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32", strip_height=7)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(tiff_tiled, "LARGE", 1)


def paint(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def upscale(upscaler: Upscaler, source: Path, target: Path, **options: object) -> np.ndarray:
    ((_, _, problem),) = upscale_files(upscaler, [source], str(target), **options)
    if problem:
        raise problem
    return tifffile.imread(target)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "layout",
    [
        {"rowsperstrip": 17}, {"rowsperstrip": 200}, {"compression": "lzw", "rowsperstrip": 5},
        {"compression": "zlib", "predictor": True, "tile": (16, 32)}, {"tile": (64, 256)}, {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)  # fmt: skip
def test_all_layouts_give_what_the_image_gives(upscaler, tmp_path, dtype, channels, layout):
    array = paint(70, 90, *([3] if channels == 3 else []), dtype=dtype)
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, metadata=None, **layout)
    assert isinstance(open_media(tmp_path / "a.tif", ".tif", max_pixels=None), tiff_tiled.TiledTiff)
    result = upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
    assert result.dtype == dtype and np.array_equal(result, upscaler.upscale(array))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_gray_in_colors_stays_gray(upscaler, tmp_path):
    array = np.repeat(paint(300, 20, 1), 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    result = upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
    assert np.array_equal(result, upscaler.upscale(array)) and (result[..., :1] == result).all()


def test_what_it_carries_and_how_it_is_written(upscaler, tmp_path):
    tags = [(700, 1, 5, b"<xmp>", True)]
    tifffile.imwrite(
        tmp_path / "a.tif", paint(70, 90), resolution=(100, 50), resolutionunit="INCH", extratags=tags, metadata=None
    )
    upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif", software="srgan-hub 1")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages[0]
        assert file.is_bigtiff and page.is_tiled and page.compression == 8
        assert page.resolution == (400, 200) and page.tags[700].value == b"<xmp>"
        assert page.tags["Software"].value == "srgan-hub 1"


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_depth_and_size(upscaler, tmp_path, bit_depth):
    array = paint(70, 90, 3)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    result = upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif", bit_depth=bit_depth, size=200)
    exact = upscaler.upscale(array if bit_depth == 8 else array * np.uint16(257), size=200)
    assert result.shape == (156, 200, 3) and np.array_equal(result, exact)


def test_a_broken_file_is_named(upscaler, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", paint(70, 90), compression="zlib", rowsperstrip=10)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[3]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + 20] = b"x" * 20
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tif is broken or cut short: "):
        upscale(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize(
    "kind", ["alpha", "float", "palette", "inverted", "turned", "pages", "planar", "bilevel", "png"]
)
def test_other_kinds_are_not_for_it(tmp_path, kind):
    array = paint(20, 30, 3)
    path = tmp_path / "a.tif"
    match kind:
        case "alpha":
            tifffile.imwrite(path, paint(20, 30, 4), photometric="rgb", extrasamples=["unassalpha"])
        case "float":
            tifffile.imwrite(path, array[..., 0].astype(np.float32))
        case "palette":
            Image.fromarray(array).quantize(8).save(path)
        case "inverted":
            tifffile.imwrite(path, array[..., 0], photometric="miniswhite")
        case "turned":
            tifffile.imwrite(path, array, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
        case "pages":
            tifffile.imwrite(path, paint(2, 20, 30), photometric="minisblack")
        case "planar":
            tifffile.imwrite(path, paint(3, 20, 30), photometric="rgb", planarconfig="separate")
        case "bilevel":
            Image.fromarray(array[..., 0] > 99).save(path)
        case "png":
            Image.fromarray(array).save(path, format="PNG")
    assert not isinstance(open_media(path, ".tif", max_pixels=None), tiff_tiled.TiledTiff)


# Kills itself in the midst of writing so many rows of tiles.
SUICIDE = """
import os, signal, sys
from srgan_hub.images import tiff_tiled
from srgan_hub.cli import main
tiff_tiled.LARGE, add, count = 1, tiff_tiled.TileSpool._add, 0
def counted(self, rows):
    global count
    count += 1
    if count == int(sys.argv[1]):
        self._data.write(b"half a row of tiles")
        self._data.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, rows)
tiff_tiled.TileSpool._add = counted
sys.exit(main(["upscale", "a.tif", "--model", "model", "--resume", "--output", sys.argv[2]]))
"""


def test_a_killed_run_goes_on_and_gives_the_same(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", paint(400, 60, 3), photometric="rgb")
    SRGAN(channels=4, num_blocks=2).save_pretrained(tmp_path / "model")
    codes = [
        subprocess.run(
            [sys.executable, "-c", SUICIDE, str(number), name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).returncode
        for number, name in ((100, "whole.tif"), (3, "b.tif"), (3, "b.tif"), (100, "b.tif"))
    ]
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    whole, resumed = tifffile.imread(tmp_path / "whole.tif"), tifffile.imread(tmp_path / "b.tif")
    assert whole.shape == (1600, 240, 3) and np.abs(whole.astype(int) - resumed).max() <= 1
    assert np.array_equal(whole[:512], resumed[:512])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", "model", "whole.tif"]


# Upscales within so many bytes more than importing takes.
BOUNDED = """
import resource, sys
from srgan_hub import SRGAN
from srgan_hub.images import tiff_tiled
from srgan_hub.batch import upscale_files
upscaler = SRGAN.from_pretrained("model").upscaler()
upscaler.upscale("warm.png")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
tiff_tiled.LARGE = 1
from pathlib import Path
((_, _, problem),) = upscale_files(upscaler, [Path("a.tif")], "b.tif", max_pixels=None)
sys.exit(str(problem) if problem else 0)
"""


@pytest.mark.parametrize(
    ("width", "height", "spare"),
    [(300, 12_000, 120_000_000), pytest.param(2_000, 40_000, 600_000_000, marks=pytest.mark.slow)],
)
def test_memory_does_not_grow_with_the_height(tmp_path, width, height, spare):
    row = paint(1, width, 3)
    strips = (np.roll(row, i, 1).repeat(100, 0).tobytes() for i in range(height // 100))
    tifffile.imwrite(
        tmp_path / "a.tif", strips, shape=(height, width, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=100
    )
    Image.fromarray(paint(20, 20, 3)).save(tmp_path / "warm.png")
    SRGAN(channels=4, num_blocks=1).save_pretrained(tmp_path / "model")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(spare)], cwd=tmp_path, env=environment, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].shape == (4 * height, 4 * width, 3)
    assert 16 * width * height * 3 > spare  # the result alone would not have had room
