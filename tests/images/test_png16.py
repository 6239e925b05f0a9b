"""16-bit images, read and written, against independent decoders."""

from pathlib import Path

import av
import numpy as np
import pillow_heif
import png
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms
from upscaled_files import upscale_file

from srgan_hub import SRGAN
from srgan_hub.images import formats
from srgan_hub.images.decode import load_image, load_raster
from srgan_hub.images.encode import save_image, validate_output
from srgan_hub.images.errors import ImageError
from srgan_hub.images.metadata import Metadata
from srgan_hub.images.raster import Raster
from srgan_hub.upscaler import Upscaler


@pytest.fixture
def deep() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (70, 9, 4), dtype=np.uint16)


@pytest.fixture
def metadata() -> Metadata:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return Metadata(icc_profile=profile, exif=exif.tobytes(), dpi=(300.0, 150.0))


@pytest.fixture
def upscaler() -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(SRGAN(channels=4, num_blocks=1).generator.eval(), scale=4, device="cpu", dtype="fp32")


def decode_independently(path: Path) -> np.ndarray:
    if path.suffix == ".tif":
        return tifffile.imread(path)
    width, height, rows, facts = png.Reader(str(path)).asDirect()
    assert facts["bitdepth"] == 16
    return np.squeeze(np.array(list(rows), np.uint16).reshape(height, width, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_values_and_metadata_round_trip(tmp_path, deep, metadata, caplog, suffix, channels):
    values = np.squeeze(deep[:, :, :channels])
    path = tmp_path / f"a{suffix}"
    save_image(Raster(values, metadata), path)
    assert np.array_equal(decode_independently(path), values)
    assert not caplog.records
    assert np.array_equal(load_raster(path).array, values)
    if (suffix, channels) == (".tif", 2):  # which Pillow does not read
        return
    with Image.open(path) as image:
        profile = image.info["icc_profile"]
        assert profile[16:20] == b"GRAY" if channels < 3 else profile == metadata.icc_profile
        assert np.allclose(np.array(image.info["dpi"], float), metadata.dpi, atol=0.02)
        if suffix == ".png":
            assert image.getexif()[ExifTags.Base.Make] == "Camera"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_corrected_as_with_8_bits(tmp_path, deep, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    save_image(Raster(deep, Metadata(exif=exif.tobytes())), tmp_path / "deep.png")
    upper = (deep >> 8).astype(np.uint8)
    Image.fromarray(upper).save(tmp_path / "upper.png", exif=exif)
    result = load_raster(tmp_path / "deep.png").array
    assert np.array_equal(result >> 8, load_raster(tmp_path / "upper.png").array)
    assert result.shape == ((70, 9, 4) if orientation < 5 else (9, 70, 4))


def test_other_formats_store_8_bits_with_a_warning(tmp_path, deep, caplog):
    values = deep[:, :, :3]
    save_image(values, tmp_path / "a.webp")
    assert np.abs(load_raster(tmp_path / "a.webp").array - values / 257).max() <= 0.5
    assert "a.webp': WebP stores 8 bits per channel of 16" in caplog.text


def test_16_bit_tiff_requires_tifffile(tmp_path, monkeypatch):
    monkeypatch.setattr(formats.Format, "is_available", lambda self: False)
    with pytest.raises(ImageError, match=r"a.tif'.* requires the `tifffile` package: pip install 'srgan-hub\[tiff\]'"):
        validate_output(tmp_path / "a.tif", width=9, height=9, bits=16)


def test_gradient_of_4096_steps(tmp_path):
    model = SRGAN.from_pretrained("srresnet-x4-photo")
    ramp = np.linspace(0, 65_535, 4096).round().astype(np.uint16).reshape(64, 64)
    values = np.dstack([ramp, ramp[::-1], ramp.T])
    save_image(values, tmp_path / "a.png")
    target = upscale_file(model.upscaler(device="cpu", dtype="fp32"), tmp_path / "a.png")
    tensor = torch.from_numpy(values / 65_535).permute(2, 0, 1).float()
    expected = model.upscale(tensor, device="cpu", dtype="fp32").permute(1, 2, 0).double().numpy() * 65_535
    result = decode_independently(target)
    assert result.dtype == np.uint16 and np.abs(result - expected).max() <= 2
    assert len(np.unique(result)) > 4096


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("bit_depth", "bits"), [(None, (8, 16)), (8, (8, 8)), (16, (16, 16))])
def test_bit_depth(tmp_path, deep, upscaler, bit_depth, bits, channels):
    values = np.squeeze(deep[:, :, :channels])
    for name, array, expected_bits in (("a.png", (values >> 8).astype(np.uint8), bits[0]), ("b.png", values, bits[1])):
        save_image(array, tmp_path / name)
        result = load_raster(upscale_file(upscaler, tmp_path / name, bit_depth=bit_depth))
        assert result.bits == expected_bits
        exact = upscaler.upscale(load_raster(tmp_path / name).with_bits(16).array)
        error = np.abs(result.with_bits(16).array.astype(int) - exact).max()
        assert error <= (1 if expected_bits == 16 else 129)
        if expected_bits == 16:
            assert len(np.unique(result.array % 257)) > 1  # not 8 bits widened


def test_pil_images_of_16_bits(tmp_path, deep, upscaler, caplog):
    save_image(deep[:, :, 0], tmp_path / "gray.png")
    save_image(deep[:, :, :3], tmp_path / "color.png")
    gray = upscaler.upscale(tmp_path / "gray.png")
    assert gray.mode == "I;16" and np.array_equal(np.asarray(gray), upscaler.upscale(deep[:, :, 0])) and not caplog.text
    color = upscaler.upscale(tmp_path / "color.png")
    assert np.abs(np.asarray(color) - upscaler.upscale(deep[:, :, :3]) / 257).max() <= 0.5
    assert "color.png" in caplog.text and "16-bit" in caplog.text


def test_10_bit_avif(tmp_path):
    ramp = np.linspace(0, 1023, 4096).astype(np.uint16).reshape(64, 64)
    gray = np.dstack([ramp << 6] * 3)
    with av.open(str(tmp_path / "a.avif"), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", rate=1, options={"crf": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb48le").reformat(format="yuv420p10le")))
        file.mux(stream.encode())
    result = load_raster(tmp_path / "a.avif")
    assert result.bits == 16 and len(np.unique(result.array)) > 500
    assert np.abs(result.array[..., 0] - ramp * 65_535.0 / 1023).mean() < 200


@pytest.mark.parametrize("bits", [10, 12])
def test_10_and_12_bit_heic(tmp_path, monkeypatch, bits):
    ramp = np.linspace(0, 2**bits - 1, 4096).astype(np.uint16).reshape(64, 64)
    values = np.dstack([ramp, ramp[::-1], ramp.T])
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    data = (values << (16 - bits)).tobytes()
    pillow_heif.from_bytes("RGB;16", (64, 64), data).save(tmp_path / "a.heic", quality=-1, chroma=444)
    result = load_raster(tmp_path / "a.heic")
    assert result.bits == 16 and np.abs(result.array - values * 65_535.0 / (2**bits - 1)).max() < 2.1 * 2 ** (16 - bits)
    assert load_image(tmp_path / "a.heic").mode == "RGB"


def test_lab(tmp_path):
    colors = np.array([[[200, 60, 60], [60, 140, 90], [120, 120, 120], [230, 220, 90]]], np.uint8)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(colors), srgb, lab, outputMode="LAB")
    image.save(tmp_path / "a.tif")
    assert np.abs(load_raster(tmp_path / "a.tif").array.astype(int) - colors).max() <= 8


@pytest.mark.parametrize(("channels", "planar"), [(2, False), (2, True), (3, True), (4, True)])
def test_tiff_that_pillow_cannot_read(tmp_path, deep, upscaler, channels, planar):
    values = deep[:, :, :channels]
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(values, -1, 0) if planar else values,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="separate" if planar else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        resolution=(300, 300),
        resolutionunit="INCH",
        metadata=None,
    )
    raster = load_raster(tmp_path / "a.tif")
    assert np.array_equal(raster.array, values) and raster.metadata.dpi == (300, 300)
    target = upscale_file(upscaler, tmp_path / "a.tif", tmp_path / "b.tif")
    assert np.abs(tifffile.imread(target).astype(int) - upscaler.upscale(values)).max() <= 1


def test_rotated_planar_tiff(tmp_path, deep):
    values = np.moveaxis(deep[:, :, :3], -1, 0)
    orientation = [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", planarconfig="separate", extratags=orientation)
    assert np.array_equal(load_raster(tmp_path / "a.tif").array, np.rot90(deep[:, :, :3], -1))
