"""Sixteen bits a channel, in and out, against independent decoders."""

from pathlib import Path

import av
import numpy as np
import pillow_heif
import png
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms

from srgan_hub import SRGAN
from srgan_hub.batch import upscale_files
from srgan_hub.images import decode
from srgan_hub.images.decode import ImageError
from srgan_hub.images.raster import Raster
from srgan_hub.network.generator import build_generator
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def deep() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (70, 9, 4), dtype=np.uint16)


@pytest.fixture
def info() -> dict:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {"icc_profile": profile, "exif": exif.tobytes(), "dpi": (300.0, 150.0)}


@pytest.fixture
def upscaler() -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(build_generator(channels=4, num_blocks=1).eval(), scale=4, device="cpu", dtype="fp32")


def decode_reference(path: Path) -> np.ndarray:
    if path.suffix == ".tif":
        return tifffile.imread(path)
    width, height, rows, facts = png.Reader(str(path)).asDirect()
    assert facts["bitdepth"] == 16
    return np.squeeze(np.array(list(rows), np.uint16).reshape(height, width, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_levels_and_what_goes_with_them_are_written_and_read_back(tmp_path, deep, info, caplog, suffix, channels):
    levels = np.squeeze(deep[:, :, :channels])
    path = tmp_path / f"a{suffix}"
    decode.save_image(Raster(levels, info), path)
    assert np.array_equal(decode_reference(path), levels)
    assert ("EXIF data" in caplog.text) == (suffix == ".tif")
    assert np.array_equal(decode.load_raster(path).array, levels)
    if (suffix, channels) == (".tif", 2):  # which Pillow does not know
        return
    with Image.open(path) as image:
        assert image.info["icc_profile"] == info["icc_profile"]
        assert np.allclose(np.array(image.info["dpi"], float), info["dpi"], atol=0.02)
        if suffix == ".png":
            assert image.getexif()[ExifTags.Base.Make] == "Camera"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_as_pillow_turns_shallow_ones(tmp_path, deep, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decode.save_image(Raster(deep, {"exif": exif.tobytes()}), tmp_path / "deep.png")
    upper = (deep >> 8).astype(np.uint8)
    Image.fromarray(upper).save(tmp_path / "upper.png", exif=exif)
    turned = decode.load_raster(tmp_path / "deep.png")
    assert np.array_equal(turned.array >> 8, decode.load_raster(tmp_path / "upper.png").array)
    assert turned.array.shape == ((70, 9, 4) if orientation < 5 else (9, 70, 4))


def test_other_formats_hold_eight_bits_and_that_is_said(tmp_path, deep, caplog):
    levels = deep[:, :, :3]
    decode.save_image(Raster(levels), tmp_path / "a.webp")
    assert np.abs(decode.load_raster(tmp_path / "a.webp").array - levels / 257).max() <= 0.5
    assert "a.webp: WEBP holds 8 bits per channel of 16" in caplog.text


def test_a_tiff_without_tifffile_is_refused_before_any_work(tmp_path, deep, monkeypatch):
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"a.tif: a TIFF of 16 bits needs tifffile; pip install 'srgan-hub\[tiff\]'"):
        decode.validate_output(tmp_path / "a.tif", width=9, height=9, alpha=False, bits=16)


def test_a_gradient_of_4096_steps_keeps_its_steps(tmp_path):
    model = SRGAN.from_pretrained("srresnet-x4-photo")
    ramp = np.linspace(0, 65_535, 4096).round().astype(np.uint16).reshape(64, 64)
    levels = np.dstack([ramp, ramp[::-1], ramp.T])
    decode.save_image(Raster(levels), tmp_path / "a.png")
    ((_, target, problem),) = upscale_files(model.upscaler(device="cpu"), [tmp_path / "a.png"])
    assert problem is None
    tensor = torch.from_numpy(levels / 65_535).permute(2, 0, 1).float()
    expected = model.upscale(tensor, device="cpu", dtype="fp32").permute(1, 2, 0).double().numpy() * 65_535
    got = decode_reference(target)
    assert got.dtype == np.uint16 and np.abs(got - expected).max() <= 2
    assert len(np.unique(got)) > 4096


@pytest.mark.parametrize(("bit_depth", "bits"), [(None, (8, 16)), (8, (8, 8)), (16, (16, 16))])
def test_depth_is_that_of_the_input_or_as_asked(tmp_path, deep, upscaler, bit_depth, bits):
    shallow = (deep[:, :, :3] >> 8).astype(np.uint8)
    decode.save_image(Raster(shallow), tmp_path / "shallow.png")
    decode.save_image(Raster(deep[:, :, :3]), tmp_path / "deep.png")
    inputs = [tmp_path / "shallow.png", tmp_path / "deep.png"]
    for (source, target, problem), wanted in zip(
        upscale_files(upscaler, inputs, bit_depth=bit_depth), bits, strict=True
    ):
        assert problem is None
        result = decode.load_raster(target)
        assert result.bits == wanted
        exact = upscaler.upscale(decode.load_raster(source).with_bits(16).array)
        assert np.abs(result.with_bits(16).array.astype(int) - exact).max() <= (1 if wanted == 16 else 129)
        if wanted == 16:
            assert len(np.unique(result.array % 257)) > 1  # not 8 bits spread out


def test_images_of_pillow_keep_what_they_can(tmp_path, deep, upscaler, caplog):
    decode.save_image(Raster(deep[:, :, 0]), tmp_path / "gray.png")
    decode.save_image(Raster(deep[:, :, :3]), tmp_path / "color.png")
    gray = upscaler.upscale(tmp_path / "gray.png")
    assert gray.mode == "I;16" and np.array_equal(np.asarray(gray), upscaler.upscale(deep[:, :, 0])) and not caplog.text
    color = upscaler.upscale(tmp_path / "color.png")
    assert np.abs(np.asarray(color) - upscaler.upscale(deep[:, :, :3]) / 257).max() <= 0.5
    assert "color.png has 16 bits per channel, its image 8" in caplog.text


def test_avif_of_10_bits(tmp_path):
    ramp = np.linspace(0, 1023, 4096).astype(np.uint16).reshape(64, 64)
    gray = np.dstack([ramp << 6] * 3)
    with av.open(str(tmp_path / "a.avif"), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", rate=1, options={"crf": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb48le").reformat(format="yuv420p10le")))
        file.mux(stream.encode())
    result = decode.load_raster(tmp_path / "a.avif")
    assert result.bits == 16 and len(np.unique(result.array)) > 500
    assert np.abs(result.array[..., 0] - ramp * 65_535.0 / 1023).mean() < 200


@pytest.mark.parametrize("bits", [10, 12])
def test_heic_of_more_than_8_bits(tmp_path, bits):
    ramp = np.linspace(0, 2**bits - 1, 4096).astype(np.uint16).reshape(64, 64)
    levels = np.dstack([ramp, ramp[::-1], ramp.T])
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    heif = pillow_heif.from_bytes("RGB;16", (64, 64), (levels << (16 - bits)).tobytes())
    heif.save(tmp_path / "a.heic", quality=-1, chroma=444)
    result = decode.load_raster(tmp_path / "a.heic")
    assert result.bits == 16 and np.abs(result.array - levels * 65_535.0 / (2**bits - 1)).max() < 2.1 * 2 ** (16 - bits)
    assert decode.load_image(tmp_path / "a.heic").mode == "RGB"


def test_lab(tmp_path):
    colors = np.array([[[200, 60, 60], [60, 140, 90], [120, 120, 120], [230, 220, 90]]], np.uint8)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(colors), srgb, lab, outputMode="LAB")
    image.save(tmp_path / "a.tif")
    assert np.abs(decode.load_raster(tmp_path / "a.tif").array.astype(int) - colors).max() <= 8


@pytest.mark.parametrize(("channels", "planar"), [(2, False), (2, True), (3, True), (4, True)])
def test_tiffs_that_pillow_cannot_read(tmp_path, deep, upscaler, channels, planar):
    levels = deep[:, :, :channels]
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(levels, -1, 0) if planar else levels,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="separate" if planar else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        resolution=(300, 300),
        resolutionunit="INCH",
        metadata=None,
    )
    raster = decode.load_raster(tmp_path / "a.tif")
    assert np.array_equal(raster.array, levels) and raster.info["dpi"] == (300, 300)
    ((_, target, problem),) = upscale_files(upscaler, [tmp_path / "a.tif"], f"{tmp_path}/b.tif")
    assert problem is None
    assert np.abs(tifffile.imread(target).astype(int) - upscaler.upscale(levels)).max() <= 1


def test_a_turned_one_is_upright_or_refused(tmp_path, deep):
    levels = np.moveaxis(deep[:, :, :3], -1, 0)
    turned = [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb", planarconfig="separate", extratags=turned)
    with pytest.raises(ImageError, match="one after the other"):
        decode.load_raster(tmp_path / "a.tif")
