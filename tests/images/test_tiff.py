"""TIFFs of all bit depths and layouts are decoded exactly, and malformed ones are refused at once."""

import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from upscaled_files import upscale_file

from srgan_hub.batch import upscale_files
from srgan_hub.images import formats
from srgan_hub.images.decode import load_raster, open_image
from srgan_hub.images.errors import ImageError
from srgan_hub.upscaler import Upscaler

ORIENTATION, PALETTE, SUBSAMPLING = 274, 320, 530
UNASSOCIATED, PREMULTIPLIED = 2, 1


def directory(tags: dict[int, Sequence[int]], at: int, following: int, *, big: bool = False) -> bytes:
    """A directory of 32-bit values at the offset `at`, and its arrays."""
    count, entry, offset = ("<Q", "<HHQ", "<Q") if big else ("<H", "<HHI", "<I")
    size = struct.calcsize(offset)
    head, arrays = struct.pack(count, len(tags)), b""
    end = at + len(head) + len(tags) * (struct.calcsize(entry) + size) + size
    for tag, values in sorted(tags.items()):
        data = struct.pack(f"<{len(values)}I", *values)
        if len(data) > size:
            arrays, data = arrays + data, struct.pack(offset, end + len(arrays))
        head += struct.pack(entry, tag, 4, len(values)) + data.ljust(size, b"\0")
    return head + struct.pack(offset, following) + arrays


def image_tags(width: int, height: int, strips: Sequence[bytes], at: int, **more: int) -> dict[int, Sequence[int]]:
    starts = np.cumsum([at, *map(len, strips)])[:-1].tolist()
    return {
        256: [width], 257: [height], 258: [more.get("bits", 8)] * more.get("channels", 1), 259: [more.get("codec", 1)],
        262: [more.get("photometric", 1)], 273: starts, 277: [more.get("channels", 1)], 278: [more.get("rows", height)],
        279: [*map(len, strips)], 284: [more.get("planar", 1)],
    }  # fmt: skip


def write(path: Path, width: int, height: int, strips: Sequence[bytes], tags: dict = {}, **more: int) -> None:  # noqa: B006
    """Write a TIFF of one page."""
    data = b"".join(strips)
    at = 8 + len(data)
    entries = image_tags(width, height, strips, 8, **more) | tags
    path.write_bytes(b"II*\0" + struct.pack("<I", at) + data + directory(entries, at, 0))


def pack(values: np.ndarray, bits: int) -> bytes:
    """Rows of values, each padded to bytes; of 16 bits in little-endian order."""
    rows = values.reshape(len(values), -1)
    if bits == 16:
        return rows.astype("<u2").tobytes()
    return np.packbits((rows[:, :, None] >> np.arange(bits)[::-1] & 1).reshape(len(rows), -1), axis=1).tobytes()


LAYOUTS = {
    "gray": (1, 1, None),
    "white is zero": (0, 1, None),
    "palette": (3, 1, None),
    "palette and alpha": (3, 2, UNASSOCIATED),
    "gray and alpha": (1, 2, UNASSOCIATED),
    "white is zero, and alpha": (0, 2, UNASSOCIATED),
    "RGB": (2, 3, None),
    "RGBA": (2, 4, UNASSOCIATED),
    "premultiplied RGBA": (2, 4, PREMULTIPLIED),
}


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bit_depths(tmp_path, layout, bits):
    photometric, channels, extra = LAYOUTS[layout]
    random = np.random.default_rng(bits)
    values = random.integers(0, 2**bits, (5, 7, channels))
    palette = random.integers(256, 65_536, (3, 2**bits))
    full, top = (255 if bits <= 8 else 65_535), 2**bits - 1
    expected = np.rint(values / top * full).astype(int)
    if extra == PREMULTIPLIED:
        values = np.minimum(values, values[..., 3:])
        scaled = np.rint(values / top * full)
        expected = np.dstack([np.rint(scaled[..., :3] / np.maximum(scaled[..., 3:], 1) * full), scaled[..., 3]])
    if photometric == 0:
        expected[..., 0] = full - expected[..., 0]
    is_narrow = full == 255 and photometric != 3
    if layout == "palette" and bits in (1, 2, 4, 8):  # by Pillow
        expected, is_narrow = palette.T[values[..., 0]] // 256, True
    elif photometric == 3:
        expected = np.dstack([palette.T[values[..., 0]], expected[..., 1:] * (257 if full == 255 else 1)])
    for planar, codec, orientation in [(1, 1, 1), (1, 8, 6), (2, 1, 1), (2, 8, 3)][: 2 if channels == 1 else 4]:
        strips = [pack(each, bits) for each in (np.moveaxis(values, 2, 0) if planar == 2 else [values])]
        strips = [zlib.compress(strip) for strip in strips] if codec == 8 else strips
        tags = {ORIENTATION: [orientation]}
        tags |= {338: [extra]} if extra else {}
        tags |= {PALETTE: palette.ravel().tolist()} if photometric == 3 else {}
        more = {"bits": bits, "channels": channels, "photometric": photometric, "planar": planar, "codec": codec}
        write(tmp_path / "a.tif", 7, 5, strips, tags, **more)
        raster = load_raster(tmp_path / "a.tif")
        turned = {1: expected, 6: np.rot90(expected, -1), 3: expected[::-1, ::-1]}[orientation]
        assert raster.array.dtype == (np.uint8 if is_narrow else np.uint16)
        difference = np.abs(raster.array.astype(int) - turned.squeeze())
        assert difference.max() <= (1 if extra == PREMULTIPLIED else 0), (planar, codec)
        assert not raster.warnings


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u4"])
@pytest.mark.parametrize("channels", [1, 2])
def test_signed_and_32_bit_integers_keep_type_and_range(upscaler, tmp_path, dtype, channels):
    """As an elevation model does: black and white are its own minimum and maximum."""
    low, high = {"i1": (-100, 20), "i2": (-400, 2_900), "i4": (-70_000, 90_000), "u4": (70_000, 90_000)}[dtype]
    array = np.random.default_rng(0).integers(low, high, (6, 7, channels)).squeeze().astype(dtype)
    array.flat[:2] = low, high
    kind = {"planarconfig": "contig", "metadata": None} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **kind)
    with open_image(tmp_path / "a.tif") as opened:
        assert opened.kind == "channels" and opened.default_suffix == ".tif"
        with pytest.raises(ImageError, match="signed or 32-bit integers"):
            opened.load()
    result = tifffile.imread(upscale_file(upscaler, tmp_path / "a.tif"))
    floats = (array.astype(np.float64) - low) / (high - low)
    tifffile.imwrite(tmp_path / "b.tif", floats, photometric="minisblack", **kind)
    expected = tifffile.imread(upscale_file(upscaler, tmp_path / "b.tif")) * (high - low) + low
    assert result.dtype == dtype and np.abs(result - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("i2", "-32768"),
        ("i4", "2147483647"),
        ("i4", "-9999"),
        ("f4", "-3.4028234663852886e+38"),
        ("f4", "nan"),
        ("u2", "0"),
    ],
)
def test_pixels_that_were_not_measured_stay(upscaler, tmp_path, dtype, nodata):
    """They do not count for the range, and nothing bleeds out of them."""
    array = np.random.default_rng(0).integers(300, 500, (8, 9)).astype(dtype)
    array = np.dstack([array] * 2) if dtype == "u2" else array  # a gray channel would be an image
    array[2:4, 3:6] = np.dtype(dtype).type(float(nodata))
    tag = [(42113, 2, len(nodata) + 1, nodata, True)]
    layout = {"planarconfig": "contig"} if dtype == "u2" else {}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata=None, extratags=tag, **layout)
    with tifffile.TiffFile(upscale_file(upscaler, tmp_path / "a.tif")) as file:
        result = file.asarray()
        assert file.pages[0].tags[42113].value == nodata
    is_missing = np.zeros((8, 9), bool)
    is_missing[2:4, 3:6] = True
    is_missing = is_missing.repeat(4, 0).repeat(4, 1)
    assert np.array_equal(result[is_missing], np.full_like(result[is_missing], array[2, 3].flat[0]), equal_nan=True)
    if dtype != "u2":
        assert result[~is_missing].min() >= 300 and result[~is_missing].max() < 500


@pytest.mark.parametrize("dtype", ["u1", "i2"])
def test_georeference_is_missed_in_a_warning(upscaler, tmp_path, caplog, dtype):
    tags = [(34735, 3, 4, (1, 1, 0, 0), True)]
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), dtype), photometric="minisblack", extratags=tags)
    upscale_file(upscaler, tmp_path / "a.tif")
    assert caplog.text.count("its georeference is not kept") == 1


def test_channels_of_12_bits_use_their_range(upscaler, tmp_path):
    values = np.random.default_rng(0).integers(0, 4_096, (4, 6, 3))
    write(tmp_path / "a.tif", 6, 4, [pack(values, 12)], bits=12, channels=3)
    wide = np.round(values * (65_535 / 4_095)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", wide, photometric="minisblack", planarconfig="contig", metadata=None)
    result, expected = (tifffile.imread(upscale_file(upscaler, tmp_path / f"{name}.tif")) for name in "ab")
    assert result.dtype == np.uint16 and np.abs(result - expected * (4_095 / 65_535)).max() <= 1


def test_metadata_of_pages_that_pillow_does_not_decode(tmp_path):
    values = np.zeros((5, 7, 3), np.uint16)
    tags = [(700, 1, 6, b"<xmp/>", True), (271, 2, 5, "Brand", True)]
    resolution = {"resolution": (100, 100), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        tmp_path / "a.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", metadata=None,
        iccprofile=b"profile" * 20, extratags=tags, **resolution,
    )  # fmt: skip
    metadata = load_raster(tmp_path / "a.tif").metadata
    exif = Image.Exif()
    exif.load(metadata.exif or b"")
    assert (metadata.icc_profile, metadata.xmp, metadata.dpi) == (b"profile" * 20, b"<xmp/>", (254, 254))
    assert exif[271] == "Brand"


def test_first_page_that_pillow_does_not_decode(tmp_path):
    pages = [np.full((4, 5, 2), 9_000, np.uint16), np.full((6, 5, 3), 7, np.uint8), np.full((4, 5), 8, np.uint8)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pages[0], photometric="minisblack", extrasamples=["unassalpha"], metadata=None)
        file.write(pages[1], photometric="rgb", metadata=None)
        file.write(pages[2], photometric="minisblack", metadata=None)
    for index, page in enumerate(pages):
        raster = load_raster(tmp_path / "a.tif", page=index)
        assert raster.array.dtype == page.dtype and np.array_equal(raster.array, page)


def ycbcr(luma: np.ndarray, chroma: np.ndarray, across: int, down: int) -> bytes:
    """Blocks of `across` x `down` luma values, each with the two values of chroma."""
    height, width = luma.shape
    padded = np.pad(luma, ((0, -height % down), (0, -width % across)), mode="edge")
    blocks = padded.reshape(len(padded) // down, down, -1, across).swapaxes(1, 2)
    return np.dstack([blocks.reshape(*blocks.shape[:2], -1), chroma]).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize(
    ("codec", "compress"), [(1, bytes), (5, imagecodecs.lzw_encode), (8, zlib.compress)], ids=["raw", "LZW", "deflate"]
)
def test_ycbcr(tmp_path, codec, compress, across, down):
    height, width = 9, 11
    random = np.random.default_rng(0)
    luma = random.integers(60, 200, (height, width))
    chroma = random.integers(90, 160, (-(-height // down), -(-width // across), 2))
    strips = [compress(ycbcr(luma[at : at + 4], chroma[at // down :][: -(-4 // down)], across, down)) for at in (0, 4)]
    strips.append(compress(ycbcr(luma[8:], chroma[8 // down :], across, down)))
    more = {"rows": 4, "codec": codec, "channels": 3, "photometric": 6}
    write(tmp_path / "a.tif", width, height, strips, {SUBSAMPLING: [across, down]}, **more)
    cb, cr = np.moveaxis(chroma.repeat(down, 0).repeat(across, 1)[:height, :width] - 128.0, 2, 0)
    red, blue = luma + 1.402 * cr, luma + 1.772 * cb
    rgb = np.dstack([red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue])
    assert np.abs(load_raster(tmp_path / "a.tif").array - rgb.clip(0, 255)).max() <= 0.6


def test_ycbcr_that_no_library_decodes(tmp_path):
    data = bytes(range(8 * 4 * 3))
    for name, size, tags in [
        ("a.tif", 48, {SUBSAMPLING: [4, 4]}),
        ("b.tif", 96, {}),
    ]:  # (4, 4), and as if unsaid (1, 1)
        write(tmp_path / name, 8, 4, [data[:size]], tags, channels=3, photometric=6)
        with pytest.raises(ImageError, match="stores YCbCr with subsampling"):
            load_raster(tmp_path / name)


def test_jpeg_in_tiff(tmp_path):
    for subsampling in [(1, 1), (2, 2)]:
        colors = np.full((16, 16, 3), (120, 90, 150), np.uint8)  # YCbCr
        tifffile.imwrite(tmp_path / "a.tif", colors, photometric="ycbcr", compression="jpeg", subsampling=subsampling)
        expected = tifffile.imread(tmp_path / "a.tif")  # the independent decoder
        assert np.abs(expected[0, 0].astype(int) - (151, 117, 53)).max() <= 1
        assert np.abs(load_raster(tmp_path / "a.tif").array.astype(int) - expected).max() <= 2


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
class TestMalformed:
    """Chains of directories that never end, or that end in garbage."""

    @staticmethod
    def chain(path: Path, following: Sequence[int], *, big: bool = False) -> None:
        """Write a file whose directories point to others by their index; other values are offsets."""
        strip = bytes(16)
        tags = image_tags(4, 4, [strip], 32)
        size = len(directory(tags, 0, 0, big=big))
        starts = [48 + index * size for index in range(len(following))]
        pointers = [starts[each] if 0 <= each < len(starts) else max(each, 0) for each in following]
        head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 48) if big else b"II*\0" + struct.pack("<I", 48)
        data = [directory(tags, at, pointer, big=big) for at, pointer in zip(starts, pointers, strict=True)]
        path.write_bytes(head.ljust(32, b"\0") + strip + b"".join(data))

    @staticmethod
    def upscale(upscaler: Upscaler, directory: Path) -> str:
        """Return the error of the only image in a directory, found within two seconds."""
        started = time.monotonic()
        (result,) = upscale_files(upscaler, directory, f"{directory}-out/")
        assert time.monotonic() - started < 2
        return str(result.error)

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize(
        "following",
        [[0], [1, 0], [1, 2, 1], [1, 1], [*range(1, 150), 120]],
        ids=["self", "two", "tail", "last", "long"],
    )
    @pytest.mark.parametrize("with_tifffile", [True, False])
    def test_loops_are_refused(self, upscaler, tmp_path, monkeypatch, following, big, with_tifffile):
        if not with_tifffile:
            monkeypatch.setattr(formats.Format, "is_available", lambda self: self.package != "tifffile")
        (tmp_path / "a").mkdir()
        self.chain(tmp_path / "a" / "a.tif", following, big=big)
        assert "form a loop" in self.upscale(upscaler, tmp_path / "a")

    def test_more_pages_than_any_file_has_are_refused(self, upscaler, tmp_path):
        (tmp_path / "a").mkdir()
        self.chain(tmp_path / "a" / "a.tif", [*range(1, 20_000), -1])
        assert "more than 10,000 pages" in self.upscale(upscaler, tmp_path / "a")

    @pytest.mark.parametrize("with_tifffile", [True, False])
    @pytest.mark.parametrize("end", [2**32 - 1, 10**6, 40, 7])
    def test_pages_ahead_of_garbage_are_read(self, upscaler, tmp_path, monkeypatch, end, with_tifffile):
        if not with_tifffile:
            monkeypatch.setattr(formats.Format, "is_available", lambda self: self.package != "tifffile")
        self.chain(tmp_path / "a.tif", [1, end])
        with open_image(tmp_path / "a.tif") as opened:
            assert opened.count == 2 and opened.load(1).array.shape == (4, 4)
            assert "ends in a corrupt directory after page 2" in opened.warnings[0]
        self.chain(tmp_path / "b.tif", [end])
        assert "ends in a corrupt directory after page 1" in load_raster(tmp_path / "b.tif").warnings[0]
        assert upscale_file(upscaler, tmp_path / "b.tif").name == "b_x4.png"

    @pytest.mark.parametrize("big", [False, True])
    def test_subdirectories_that_form_a_loop(self, upscaler, tmp_path, big):
        """They are not followed."""
        strip, at = bytes(range(16)), 48
        tags = image_tags(4, 4, [strip], 32) | {330: [at, at], 34_665: [at], 34_853: [at]}  # SubIFDs, EXIF, GPS
        head = b"II+\0\x08\0\0\0" + struct.pack("<Q", at) if big else b"II*\0" + struct.pack("<I", at)
        (tmp_path / "a.tif").write_bytes(head.ljust(32, b"\0") + strip + directory(tags, at, 0, big=big))
        assert load_raster(tmp_path / "a.tif").array.ravel().tolist() == [*range(16)]
        upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")

    @pytest.mark.parametrize("big", [False, True])
    def test_huge_counts(self, upscaler, tmp_path, big):
        """Of entries in a directory, and of values in an entry, take no time."""
        (tmp_path / "a").mkdir()
        path = tmp_path / "a" / "a.tif"
        self.chain(path, [-1], big=big)
        data = bytearray(path.read_bytes())
        field, wide = (8, "<Q") if big else (2, "<H")
        struct.pack_into(wide, data, 48, 2 ** (8 * field) - 1)
        path.write_bytes(data)
        self.upscale(upscaler, tmp_path / "a")
        for tag in (258, 273, 279):  # bits per sample, and places and sizes of strips
            self.chain(path, [-1], big=big)
            data = bytearray(path.read_bytes())
            at = data.index(struct.pack("<HH", tag, 4), 48) + 4
            struct.pack_into("<Q" if big else "<I", data, at, 2**60 if big else 2**32 - 1)
            path.write_bytes(data)
            self.upscale(upscaler, tmp_path / "a")
