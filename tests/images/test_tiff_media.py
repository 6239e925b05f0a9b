"""Multi-page, multi-channel, floating-point and tiled TIFF against results of `Upscaler.upscale`."""

import signal

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from upscaled_files import run_python, upscale_file

from srgan_hub import SRGAN
from srgan_hub.images import formats, tiff_media
from srgan_hub.images.decode import load_raster, open_image
from srgan_hub.images.errors import ImageError
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="fp32", strip_height=7)


def random_image(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def random_values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


class TestPages:
    def test_each_page_keeps_size_bit_depth_and_resolution(self, upscaler, tmp_path):
        deep = random_image(8, 6, dtype="uint16"), random_image(7, 9, 4, dtype="uint16")
        pages = [random_image(10, 12, 3), *deep, random_image(5, 5)]
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for number, page in enumerate(pages):
                extra = {"extrasamples": ["unassalpha"]} if page.shape[-1] == 4 else {}
                photometric = "rgb" if page.ndim == 3 else "minisblack"
                resolution = {"resolution": (100 + number, 100), "resolutionunit": "INCH"}
                file.write(page, photometric=photometric, metadata=None, **resolution, **extra)
        with open_image(tmp_path / "a.tif") as opened:
            assert (opened.kind, opened.count, opened.width, opened.height) == ("pages", 4, 12, 10)
        with pytest.raises(ImageError, match="contains 4 images"):
            load_raster(tmp_path / "a.tif")
        assert np.array_equal(load_raster(tmp_path / "a.tif", page=2).array, pages[2])
        target = upscale_file(upscaler, tmp_path / "a.tif")
        assert target.name == "a_x4.tif"
        with tifffile.TiffFile(target) as file:
            for number, (page, result) in enumerate(zip(pages, file.pages, strict=True)):
                assert result.dtype == page.dtype
                assert np.abs(result.asarray().astype(int) - upscaler.upscale(page)).max() <= 1
                assert result.resolution == (100 + number, 100)

    def test_8_bit_pages_are_upscaled_with_16_bits_on_request(self, upscaler, tmp_path):
        pages = [random_image(5, 6), random_image(6, 5)]
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for page in pages:
                file.write(page, photometric="minisblack", metadata=None)
        target = upscale_file(upscaler, tmp_path / "a.tif", bit_depth=16)
        for page, result in zip(pages, tifffile.TiffFile(target).pages, strict=True):
            expected = upscaler.upscale(page.astype(np.uint16) * 257)
            assert np.abs(result.asarray().astype(int) - expected).max() <= 1 and (expected % 257).any()

    def test_thumbnails_and_masks_are_no_pages(self, upscaler, tmp_path):
        image = random_image(16, 20, 3)
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(image[::4, ::4], photometric="rgb", subfiletype=1)  # a thumbnail that comes first
            file.write(image, photometric="rgb")
            file.write(image[::2, ::2], photometric="rgb", subfiletype=1)
            file.write(image[..., 0] > 9, photometric="mask", subfiletype=4)
        assert np.array_equal(load_raster(tmp_path / "a.tif").array, image)
        target = upscale_file(upscaler, tmp_path / "a.tif")
        assert target.name == "a_x4.png" and Image.open(target).size == (80, 64)

    def test_errors(self, upscaler, tmp_path, monkeypatch):
        frames = [Image.new("L", (8, 8)), Image.new("L", (8, 8))]
        frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match=r"b.png': cannot save pages as .png; use .tif, .tiff"):
            upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.png")
        with pytest.raises(ImageError, match="8 x 8 pixels; the limit"):
            upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif", max_pixels=60)
        monkeypatch.setattr(formats.Format, "is_available", lambda self: self.package != "tifffile")
        with pytest.raises(ImageError, match=r"b.tif': writing pages requires the `tifffile` package: pip install"):
            upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
        assert not list(tmp_path.glob("*b*"))


class TestChannels:
    @staticmethod
    def expect(upscaler: Upscaler, channel: np.ndarray, low: float, high: float) -> np.ndarray:
        """The same by a tensor."""
        tensor = torch.from_numpy(((channel.astype(np.float64) - low) / (high - low)).clip(0, 1)).float()
        return upscaler.upscale(tensor.expand(3, -1, -1)).mean(0).double().numpy() * (high - low) + low

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_floating_point_keeps_type_range_and_resolution(self, upscaler, tmp_path, dtype):
        array = (random_values(12, 16) * 500 - 100).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", array, resolution=(50, 60), resolutionunit="CENTIMETER", metadata=None)
        target = upscale_file(upscaler, tmp_path / "a.tif")
        assert target.name == "a_x4.tif"
        with tifffile.TiffFile(target) as file:
            result = file.asarray()
            assert file.pages[0].resolution == (50, 60)
        assert result.dtype == dtype and result.shape == (48, 64)
        exact = self.expect(upscaler, array, float(array.min()), float(array.max()))
        assert np.abs(result - exact).max() <= (0.5 if dtype == "float16" else 1e-3)

    def test_value_range(self, upscaler, tmp_path):
        array = random_values(12, 16).astype(np.float32)
        tifffile.imwrite(tmp_path / "a.tif", array)
        result = tifffile.imread(upscale_file(upscaler, tmp_path / "a.tif", value_range=(-1.0, 3.0)))
        assert np.abs(result - self.expect(upscaler, array, -1, 3)).max() < 1e-5

    def test_nan_and_infinity_stay(self, upscaler, tmp_path):
        array = random_values(20, 24).astype(np.float32)
        array[4:7, 10:15] = np.nan
        array[12, 3] = np.inf
        tifffile.imwrite(tmp_path / "a.tif", array)
        result = tifffile.imread(upscale_file(upscaler, tmp_path / "a.tif"))
        assert np.array_equal(np.isnan(result), np.isnan(array).repeat(4, 0).repeat(4, 1))
        assert np.array_equal(np.isinf(result), np.isinf(array).repeat(4, 0).repeat(4, 1))
        # What fills them is within the surrounding range: nothing bleeds out of them.
        assert np.nanmax(result[np.isfinite(result)]) <= 1 and np.nanmin(result) >= 0
        tifffile.imwrite(tmp_path / "b.tif", np.full((4, 4), np.nan, np.float32))
        assert np.isnan(tifffile.imread(upscale_file(upscaler, tmp_path / "b.tif"))).all()

    @pytest.mark.parametrize("layout", ["contig", "separate"])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_channels_are_upscaled_one_by_one(self, upscaler, tmp_path, dtype, layout):
        array = random_values(10, 12, 5)
        high = 1 if dtype == "float32" else np.iinfo(dtype).max
        array = (array * high).astype(dtype)
        stored = array if layout == "contig" else np.moveaxis(array, -1, 0)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=layout, metadata=None)
        with tifffile.TiffFile(upscale_file(upscaler, tmp_path / "a.tif")) as file:
            result = file.asarray()
            page = file.pages[0]
            assert page.planarconfig == (1 if layout == "contig" else 2) and page.samplesperpixel == 5
        result = result if layout == "contig" else np.moveaxis(result, 0, -1)
        assert result.dtype == dtype and result.shape == (40, 48, 5)
        low, top = (0, high) if dtype != "float32" else (float(array.min()), float(array.max()))
        for c in range(5):
            exact = self.expect(upscaler, array[..., c], low, top)
            assert np.abs(result[..., c] - exact).max() <= (1e-5 if dtype == "float32" else 0.51)

    def test_pages_size_and_orientation(self, upscaler, tmp_path):
        tags = [(274, 3, 1, 6, True)]
        array = random_values(3, 10, 12).astype(np.float32)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata={"axes": "CYX"}, extratags=tags)
        with tifffile.TiffFile(upscale_file(upscaler, tmp_path / "a.tif", size=24)) as file:
            assert [page.shape for page in file.pages] == [(20, 24)] * 3
            assert file.pages[0].tags["Orientation"].value == 6

    def test_errors(self, upscaler, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", random_values(10, 12).astype(np.float32))
        with pytest.raises(ImageError, match=r"b.png': cannot save channels as .png; use .tif, .tiff"):
            upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.png")
        with pytest.raises(ImageError, match="12 x 10 pixels; the limit"):
            upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif", max_pixels=60)
        tifffile.imwrite(tmp_path / "c.tif", np.zeros((8, 8), np.complex64))
        with pytest.raises(ImageError, match=r"c.tif"):
            upscale_file(upscaler, tmp_path / "c.tif", tmp_path / "b.tif")
        channels = np.zeros((8, 8, 5), np.int64)
        tifffile.imwrite(tmp_path / "d.tif", channels, photometric="minisblack", planarconfig="contig")
        with pytest.raises(ImageError, match=r"contains int64; supported are float16"):
            upscale_file(upscaler, tmp_path / "d.tif", tmp_path / "b.tif")
        with pytest.raises(ImageError, match=r"a.tif' contains floating-point values"):
            load_raster(tmp_path / "a.tif")
        assert not (tmp_path / "b.tif").exists()


# Kills itself while it writes a row of tiles.
INTERRUPTED = """
import os, signal, sys
from srgan_hub.images import tiff_media
from srgan_hub.cli import main
tiff_media.LARGE, add, count = 1, tiff_media.TileSpool._add, 0
def counted(self, rows):
    global count
    count += 1
    if count == int(sys.argv[1]):
        self._data.write(b"half a row of tiles")
        self._data.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, rows)
tiff_media.TileSpool._add = counted
sys.exit(main(["upscale", "a.tif", "--model", "model", "--resume", "--output", sys.argv[2]]))
"""
# Upscales within a number of bytes more than importing takes.
BOUNDED = """
import resource, sys
from pathlib import Path
from srgan_hub import SRGAN
from srgan_hub.images import tiff_media
from srgan_hub.batch import upscale_files
upscaler = SRGAN.from_pretrained("model").upscaler()
upscaler.upscale("warm.png")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
tiff_media.LARGE = 1
(result,) = upscale_files(upscaler, [Path("a.tif")], "b.tif", max_pixels=None)
sys.exit(str(result.error) if result.error else 0)
"""


class TestRows:
    @pytest.fixture(autouse=True)
    def _all_are_large(self, monkeypatch):
        monkeypatch.setattr(tiff_media, "LARGE", 1)

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
    def test_every_layout_equals_the_image_in_memory(self, upscaler, tmp_path, dtype, channels, layout):
        array = random_image(70, 90, *([3] if channels == 3 else []), dtype=dtype)
        photometric = "rgb" if channels == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, metadata=None, **layout)
        with open_image(tmp_path / "a.tif") as opened:
            assert opened.kind == "rows" and np.array_equal(opened.load().array, array)
        result = tifffile.imread(upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif"))
        assert result.dtype == dtype and np.array_equal(result, upscaler.upscale(array))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]

    def test_gray_as_rgb_stays_gray(self, upscaler, tmp_path):
        array = np.repeat(random_image(300, 20, 1), 3, axis=2)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
        result = tifffile.imread(upscale_file(upscaler, tmp_path / "a.tif"))
        assert np.array_equal(result, upscaler.upscale(array)) and (result[..., :1] == result).all()

    def test_layout_and_metadata_of_the_output(self, upscaler, tmp_path):
        tags = [(700, 1, 5, b"<xmp>", True)]
        resolution = {"resolution": (100, 50), "resolutionunit": "INCH"}
        tifffile.imwrite(tmp_path / "a.tif", random_image(70, 90), extratags=tags, metadata=None, **resolution)
        with tifffile.TiffFile(upscale_file(upscaler, tmp_path / "a.tif", software="srgan-hub 1")) as file:
            page = file.pages[0]
            assert file.is_bigtiff and page.is_tiled and page.compression == 8
            assert page.resolution == (400, 200) and page.tags[700].value == b"<xmp>"
            assert page.tags["Software"].value == "srgan-hub 1"

    @pytest.mark.parametrize("bit_depth", [8, 16])
    def test_bit_depth_and_size(self, upscaler, tmp_path, bit_depth):
        array = random_image(70, 90, 3)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
        target = upscale_file(upscaler, tmp_path / "a.tif", bit_depth=bit_depth, size=200)
        exact = upscaler.upscale(array if bit_depth == 8 else array * np.uint16(257), size=200)
        result = tifffile.imread(target)
        assert result.shape == (156, 200, 3) and np.array_equal(result, exact)

    def test_other_formats_are_written_from_memory(self, upscaler, tmp_path):
        array = random_image(20, 30, 3)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
        target = upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.png")
        assert np.array_equal(np.asarray(Image.open(target)), upscaler.upscale(array))

    def test_corrupt_data(self, upscaler, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", random_image(70, 90), compression="zlib", rowsperstrip=10)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            offset = file.pages[0].dataoffsets[3]
        data = bytearray((tmp_path / "a.tif").read_bytes())
        data[offset : offset + 20] = b"x" * 20
        (tmp_path / "a.tif").write_bytes(data)
        for _ in range(2):
            with pytest.raises(ImageError, match=r"Cannot decode '.*a\.tif': the file is corrupt"):
                upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
            assert not (tmp_path / "b.tif").exists()
        tifffile.imwrite(tmp_path / "a.tif", random_image(70, 90))
        upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]

    @pytest.mark.parametrize("damage", [b"\0" * 9 + b"\n", b"[1,\n", b"\xff\n"])
    def test_damaged_work_of_an_interrupted_run_is_computed_again(self, tmp_path, damage):
        tile = np.zeros((tiff_media._TILE, 8, 1), np.uint8)
        for _ in range(2):
            spool = tiff_media.TileSpool(tmp_path, (4 * tiff_media._TILE, 8, 1), np.dtype(np.uint8), resume=True)
            assert spool.done == 0
            spool.fill(iter([tile, tile]))
            spool.close()
            (tmp_path / "index").write_bytes(damage + (tmp_path / "index").read_bytes())

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("alpha", "image"), ("float", "channels"), ("palette", "image"), ("inverted", "image"),
            ("rotated", "image"), ("pages", "pages"), ("planar", "image"), ("bilevel", "image"), ("png", "image"),
        ],
    )  # fmt: skip
    def test_other_kinds_are_not_read_by_rows(self, tmp_path, kind, expected):
        array = random_image(20, 30, 3)
        path = tmp_path / "a.tif"
        match kind:
            case "alpha":
                tifffile.imwrite(path, random_image(20, 30, 4), photometric="rgb", extrasamples=["unassalpha"])
            case "float":
                tifffile.imwrite(path, array[..., 0].astype(np.float32))
            case "palette":
                Image.fromarray(array).quantize(8).save(path)
            case "inverted":
                tifffile.imwrite(path, array[..., 0], photometric="miniswhite")
            case "rotated":
                tifffile.imwrite(path, array, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
            case "pages":
                tifffile.imwrite(path, random_image(2, 20, 30), photometric="minisblack")
            case "planar":
                tifffile.imwrite(path, random_image(3, 20, 30), photometric="rgb", planarconfig="separate")
            case "bilevel":
                Image.fromarray(array[..., 0] > 99).save(path)
            case "png":
                Image.fromarray(array).save(path, format="PNG")
        with open_image(path) as opened:
            assert opened.kind == expected

    def test_resume_after_sigkill(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", random_image(400, 60, 3), photometric="rgb")
        SRGAN(channels=4, num_blocks=2).save_pretrained(tmp_path / "model")
        runs = ((100, "full.tif"), (3, "b.tif"), (3, "b.tif"), (100, "b.tif"))
        codes = [run_python(INTERRUPTED, number, name, cwd=tmp_path).returncode for number, name in runs]
        assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
        full, resumed = tifffile.imread(tmp_path / "full.tif"), tifffile.imread(tmp_path / "b.tif")
        assert full.shape == (1600, 240, 3) and np.abs(full.astype(int) - resumed).max() <= 1
        assert np.array_equal(full[:512], resumed[:512])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", "full.tif", "model"]

    @pytest.mark.parametrize(
        ("width", "height", "spare"),
        [(300, 12_000, 120_000_000), pytest.param(2_000, 40_000, 600_000_000, marks=pytest.mark.slow)],
    )
    def test_memory_does_not_grow_with_the_height(self, tmp_path, width, height, spare):
        row = random_image(1, width, 3)
        strips = (np.roll(row, i, 1).repeat(100, 0).tobytes() for i in range(height // 100))
        tifffile.imwrite(
            tmp_path / "a.tif", strips, shape=(height, width, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=100
        )
        Image.fromarray(random_image(20, 20, 3)).save(tmp_path / "warm.png")
        SRGAN(channels=4, num_blocks=1).save_pretrained(tmp_path / "model")
        run = run_python(BOUNDED, spare, cwd=tmp_path, OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
        assert run.returncode == 0, run.stderr
        with tifffile.TiffFile(tmp_path / "b.tif") as file:
            assert file.pages[0].shape == (4 * height, 4 * width, 3)
        assert 16 * width * height * 3 > spare  # the output alone would not fit
