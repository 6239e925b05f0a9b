"""Colors by CICP code points and by profiles look the same in every format, or a warning says that they do not."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin
from upscaled_files import upscale_file

from srgan_hub.images import tiff_media
from srgan_hub.images.animation import AnimationWriter
from srgan_hub.images.color import fit_colors, read_cicp, to_srgb
from srgan_hub.images.decode import load_image, load_raster, open_image
from srgan_hub.images.encode import SaveOptions, save_image, write_raster
from srgan_hub.images.media import Output
from srgan_hub.images.metadata import Metadata
from srgan_hub.images.raster import Raster

P3, PQ, HLG = (12, 13, 0, True), (9, 16, 0, True), (9, 18, 0, True)
SRGB = ImageCms.createProfile("sRGB")
COLORS = np.array([(255, 0, 0), (200, 80, 40), (30, 180, 60), (90, 90, 220), (128, 128, 128), (240, 230, 20)], np.uint8)
PIXELS = COLORS.repeat(8, 0)[None].repeat(16, 0)
# Linear Display P3 to XYZ, and XYZ to linear sRGB, of CSS Color 4.
P3_TO_XYZ = np.array(
    [
        (608311 / 1250200, 189793 / 714400, 198249 / 1000160),
        (35783 / 156275, 247089 / 357200, 198249 / 2500400),
        (0, 32229 / 714400, 5220557 / 5000800),
    ]
)
XYZ_TO_SRGB = np.array(
    [
        (12831 / 3959, -329 / 214, -1974 / 3959),
        (-851781 / 878810, 1648619 / 878810, 36519 / 878810),
        (705 / 12673, -2585 / 12673, 705 / 667),
    ]
)


def p3_to_srgb(array: np.ndarray) -> np.ndarray:
    """Convert by the definition of Display P3, uint8 or uint16 to values of 8 bits."""
    values = array / np.iinfo(array.dtype).max
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ (XYZ_TO_SRGB @ P3_TO_XYZ).T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def as_displayed(path: Path) -> np.ndarray:
    """Decode as a viewer that knows profiles only."""
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        shown = ImageCms.profileToProfile(image, profile, SRGB, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB")
        return np.asarray(shown).astype(float)


def chunks(path: Path) -> dict[bytes, bytes]:
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + size]
        at += size + 12
    return found


def stream_code_points(path: Path) -> tuple[int, int]:
    """The code points in an AVIF's bitstream, which some programs prefer to those of its container."""
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        return frame.color_primaries, frame.color_trc


def write(path: Path, code_points: tuple[int, int, int, bool], pixels: np.ndarray = PIXELS, **options: object) -> None:
    """Write a file with code points as other programs do."""
    primaries, transfer, _, _ = code_points
    image = Image.fromarray(pixels)
    if path.suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add(b"cICP", bytes(code_points))
        image.save(path, pnginfo=info, **options)
    elif path.suffix == ".heic":
        nclx = {"color_primaries": primaries, "transfer_characteristics": transfer}
        pillow_heif.from_pillow(image).save(path, quality=-1, chroma=444, matrix_coefficients=0, **nclx)
    else:
        image.save(path, "AVIF", quality=100, subsampling="4:4:4", **options)
        patched = path.read_bytes().replace(b"colrnclx\0\1\0\r", b"colrnclx" + struct.pack(">2H", primaries, transfer))
        path.write_bytes(patched)


@pytest.mark.parametrize("source", [".avif", ".heic", ".png"])
def test_display_p3_in_every_format(tmp_path, exiftool, source, caplog):
    write(tmp_path / f"a{source}", P3)
    raster = load_raster(tmp_path / f"a{source}")
    assert np.abs(raster.array.astype(int) - PIXELS).max() <= 3 and raster.metadata.cicp == P3
    for name, bits in (
        ("b.png", 8),
        ("c.png", 16),
        ("b.tif", 8),
        ("c.tif", 16),
        ("b.jpg", 8),
        ("b.webp", 8),
        ("b.avif", 8),
    ):
        caplog.clear()
        path = tmp_path / name
        write_raster(raster, path, SaveOptions(bit_depth=bits))
        error = np.abs(as_displayed(path) - p3_to_srgb(raster.array))
        assert error.max() <= (6 if path.suffix in (".jpg", ".avif") else 1.1), name
        assert ("Display P3" in caplog.text) == (path.suffix not in (".png", ".avif"))
        with Image.open(path) as image:
            assert (
                ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))).strip()
                == "Display P3"
            )
    assert stream_code_points(tmp_path / "b.avif") == P3[:2]
    for name in ("b.png", "c.png", "b.avif"):
        assert name == "b.avif" or chunks(tmp_path / name)[b"cICP"] == bytes(P3)
        found = {key.partition(":")[2]: value for key, value in exiftool(tmp_path / name).items()}
        assert found["ColorPrimaries"] == 12 and found["ProfileDescription"] == "Display P3"
    save_image(raster, tmp_path / "b.bmp")
    with Image.open(tmp_path / "b.bmp") as image:
        assert np.abs(np.asarray(image) - p3_to_srgb(raster.array)).max() <= 0.6
    assert "b.bmp': colors are converted to sRGB" in caplog.text


def test_16_bits_of_display_p3(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65_536, (300, 5, 4), np.uint16)
    converted = to_srgb(deep, P3)
    assert np.abs(converted[..., :3] / 257 - p3_to_srgb(deep[..., :3])).max() < 0.01
    assert np.array_equal(converted[..., 3], deep[..., 3])
    save_image(Raster(deep, Metadata(cicp=P3)), tmp_path / "a.png")
    raster = load_raster(tmp_path / "a.png")
    assert raster.metadata.cicp == P3 and np.array_equal(raster.array, deep)


@pytest.mark.parametrize("source", [".avif", ".png"])
def test_animated_display_p3(tmp_path, source, caplog):
    frames = [Image.fromarray(np.roll(PIXELS, 8 * index, 1)) for index in range(1, 3)]
    write(tmp_path / f"a{source}", P3, save_all=True, append_images=frames, duration=50)
    for name in ("b.png", "b.webp", "b.avif", "b.gif"):
        path = tmp_path / name
        with open_image(tmp_path / f"a{source}") as reader:
            AnimationWriter(reader, path, Output(path, reader.width, reader.height, SaveOptions())).write(reader.read())
        if name != "b.gif":
            with Image.open(path) as image:
                assert image.info["icc_profile"][16:20] == b"RGB " and image.n_frames == 3
    assert chunks(tmp_path / "b.png")[b"cICP"] == bytes(P3)
    assert (tmp_path / "b.avif").read_bytes().count(b"colrnclx\0\14\0\15") == 2
    with Image.open(tmp_path / "b.png") as image, Image.open(tmp_path / "b.gif") as gif:
        for index in range(3):
            image.seek(index)
            gif.seek(index)
            error = np.asarray(gif.convert("RGB")) - p3_to_srgb(np.asarray(image.convert("RGB")))
            assert np.abs(error).mean() < 1.5
    assert caplog.text.count("b.gif': colors are converted to sRGB") == 1


@pytest.mark.parametrize(
    ("code_points", "values", "expected"),
    [
        # PQ of 0, 100, 203 and 1000 cd/m2; HLG of black, 1/12, reference white and peak.
        (PQ, (0, 0.508078, 0.580689, 0.751827), (0, 186.3, 255, 255)),
        (HLG, (0, 0.5, 0.7498, 1), (0, 136.9, 255, 255)),
        ((1, 13, 0, False), (16 / 255, 126 / 255, 235 / 255, 1), (0, 128, 255, 255)),
        ((4, 8, 0, True), (0, 0.21586, 0.5, 1), (0, 127.9, 187.5, 255)),
        ((1, 1, 0, True), (0, 0.05, 0.5, 1), (0, 27.2, 139.4, 255)),
    ],
)
@pytest.mark.parametrize("gray", [False, True])
def test_transfers_in_srgb(code_points, values, expected, gray):
    deep = (np.array([values] * 2) * 65_535).round().astype(np.uint16)
    deep = deep if gray else np.dstack([deep] * 3)
    small = (deep / 257).round().astype(np.uint8)
    for array, tolerance in ((deep, 0.7), (small, 2.5)):
        result = to_srgb(array, code_points)
        assert result.shape == array.shape and result.dtype == array.dtype
        result = result if gray else np.moveaxis(result, 2, 0)
        assert np.abs(result / (257 if array is deep else 1) - expected).max() <= tolerance


@pytest.mark.parametrize(("code_points", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_hdr_is_kept_or_reduced_with_a_warning(tmp_path, upscaler, exiftool, code_points, name, caplog):
    alpha = np.linspace(0, 255, PIXELS[..., 0].size).astype(np.uint8).reshape(PIXELS.shape[:2])
    pixels = np.dstack([PIXELS // 2, alpha])
    write(tmp_path / "a.avif", code_points, pixels)
    raster = load_raster(tmp_path / "a.avif")
    for bits in (8, 16):
        path = tmp_path / f"{bits}.png"
        write_raster(raster, path, SaveOptions(bit_depth=bits))
        assert chunks(path)[b"cICP"] == bytes(code_points) and b"iCCP" not in chunks(path)
        again = load_raster(path)
        assert np.array_equal(again.array, raster.with_bits(bits).array) and again.metadata.cicp == code_points
    save_image(raster, tmp_path / "b.avif")
    again = load_raster(tmp_path / "b.avif")
    assert np.abs(again.array.astype(int) - raster.array)[alpha > 99].max() <= 6
    assert again.metadata.cicp == code_points and not again.metadata.icc_profile and not caplog.records
    assert stream_code_points(tmp_path / "b.avif") == code_points[:2]
    found = {key.partition(":")[2]: value for key, value in exiftool(tmp_path / "b.avif").items()}
    assert (found["ColorPrimaries"], found["TransferCharacteristics"]) == code_points[:2]
    expected = to_srgb(raster.array, code_points)
    assert np.abs(expected[..., :3].astype(int) - raster.array[..., :3]).max() > 20
    for file in ("b.webp", "b.tif"):
        save_image(raster, tmp_path / file)
        result = load_raster(tmp_path / file)
        visible = expected[..., 3] > 0
        assert np.array_equal(result.array[visible], expected[visible]) and not result.metadata.icc_profile
        assert f"{file}': HDR ({name}) is reduced to SDR" in caplog.text
    caplog.clear()
    image = upscaler.upscale(tmp_path / "a.avif")
    assert f"a.avif': HDR ({name}) is reduced to SDR" in caplog.text and "cicp" not in image.info
    upscaled = to_srgb(upscaler.upscale(raster.array), code_points)
    assert np.array_equal(np.asarray(image), upscaled)


def test_hdr_of_16_bits_is_reduced_before_it_becomes_8_bits(tmp_path):
    """Of 8-bit PQ, 148 values are darker than reference white."""
    ramp = np.linspace(0, 0.58 * 65_535, 4096).round().astype(np.uint16).reshape(64, 64)
    save_image(Raster(ramp, Metadata(cicp=PQ)), tmp_path / "a.png")
    write_raster(load_raster(tmp_path / "a.png"), tmp_path / "b.tif", SaveOptions(bit_depth=8))
    for image in (load_image(tmp_path / "a.png"), load_image(tmp_path / "b.tif")):
        assert image.mode == "L" and len(np.unique(image)) > 200


def test_pil_images_keep_display_p3(tmp_path, upscaler):
    write(tmp_path / "a.avif", P3)
    image = upscaler.upscale(tmp_path / "a.avif")
    image.save(tmp_path / "b.png")  # by Pillow alone
    assert np.abs(as_displayed(tmp_path / "b.png") - p3_to_srgb(np.asarray(image))).max() <= 1.1


def test_srgb_and_unspecified_need_nothing(tmp_path):
    for code_points in ((1, 13, 0, True), (2, 2, 0, True), (1, 2, 0, True)):
        for source in (".avif", ".heic", ".png"):
            write(tmp_path / f"a{source}", code_points)
            raster = load_raster(tmp_path / f"a{source}")
            save_image(raster, tmp_path / "b.png")
            assert not {b"cICP", b"iCCP"} & chunks(tmp_path / "b.png").keys() and not raster.warnings


def test_a_profile_wins_in_avif_and_code_points_in_png(tmp_path):
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    for suffix, expected in ((".avif", None), (".png", P3)):
        write(tmp_path / f"a{suffix}", P3, icc_profile=profile)
        data = (tmp_path / f"a{suffix}").read_bytes().replace(b"colrnclx\0\2\0\2", b"colrnclx\0\14\0\15")
        (tmp_path / f"a{suffix}").write_bytes(data)
        raster = load_raster(tmp_path / f"a{suffix}")
        assert raster.metadata.cicp == expected and raster.metadata.icc_profile == profile
        save_image(raster, tmp_path / "b.png", strip_metadata="all")
        again = load_raster(tmp_path / "b.png").metadata
        assert again.icc_profile == profile and again.cicp == expected
        save_image(raster, tmp_path / "b.jpg")
        name = ImageCms.getProfileDescription(
            ImageCms.ImageCmsProfile(io.BytesIO(load_raster(tmp_path / "b.jpg").metadata.icc_profile))
        )
        assert ("P3" in name) == bool(expected)


def test_what_conversion_makes_wrong_is_dropped(tmp_path, caplog):
    gamma = {b"gAMA": (50_000).to_bytes(4, "big")}
    array, metadata, _ = fit_colors(PIXELS, Metadata(icc_profile=make_profile(), cicp=PQ, color_chunks=gamma), ())
    assert metadata == Metadata() and np.array_equal(array, to_srgb(PIXELS, PQ))
    nclx = {"color_primaries": 12, "transfer_characteristics": 13}
    assert read_cicp({"nclx_profile": nclx}) == P3 and read_cicp({"nclx_profile": nclx, "icc_profile": b"a"}) is None
    for profile, dropped in ((make_profile(), True), (ImageCms.ImageCmsProfile(SRGB).tobytes(), False)):
        caplog.clear()
        save_image(Raster(PIXELS, Metadata(icc_profile=profile)), tmp_path / "a.bmp")
        assert ("a.bmp': dropped metadata that BMP cannot store: color profile" in caplog.text) == dropped


def test_code_points_that_cannot_be_converted(tmp_path, caplog):
    write(tmp_path / "a.png", (12, 13, 9, True))
    assert ["invalid CICP" in warning for warning in load_raster(tmp_path / "a.png").warnings] == [True]
    write(tmp_path / "a.png", (200, 13, 0, True))
    raster = load_raster(tmp_path / "a.png")
    save_image(raster, tmp_path / "b.png")
    assert chunks(tmp_path / "b.png")[b"cICP"][0] == 200 and not caplog.records
    save_image(raster, tmp_path / "b.jpg")
    assert "b.jpg': dropped color primaries 200" in caplog.text


def make_profile(space: str = "RGB") -> bytes:
    """A profile of gamma 2.2, which is not that of sRGB."""
    array = np.zeros((1, 1, 3) if space == "RGB" else (1, 1), np.uint8)
    return Raster(array, Metadata(cicp=(1, 4, 0, True))).fit_colors().metadata.icc_profile


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("source", ["palette.png", "gray.jpg", "gray.tif"])
def test_rgb_profile_of_a_gray_image_becomes_a_gray_one(tmp_path, exiftool, source, caplog):
    image = Image.fromarray(RAMP)
    if source == "palette.png":
        image = image.convert("P")
        image.putpalette([value for value in range(256) for _ in range(3)])
    image.save(tmp_path / source, icc_profile=make_profile(), **({"quality": 100} if "jpg" in source else {}))
    raster = load_raster(tmp_path / source)
    assert raster.array.ndim == 2
    linear = (raster.array / 255) ** 2.2
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    deep, alpha = raster.with_bits(16), Raster(np.dstack([raster.array] * 2), raster.metadata)
    for name, written in {
        "b.png": raster, "deep.png": deep, "alpha.png": alpha, "b.jpg": raster, "b.tif": raster, "deep.tif": deep,
        "b.webp": raster, "b.avif": raster,
    }.items():  # fmt: skip
        save_image(written, tmp_path / name)
        with Image.open(tmp_path / name) as saved:
            assert saved.info["icc_profile"][16:20] == (b"RGB " if saved.mode == "RGB" else b"GRAY"), name
        if name not in ("deep.png", "deep.tif", "alpha.png"):  # modes that ImageCms does not convert
            assert np.abs(as_displayed(tmp_path / name)[..., 1] - expected).max() <= (5 if name == "b.avif" else 2), (
                name
            )
    assert not caplog.records
    assert {"RGB ", "GRAY"} & set(map(str, exiftool(tmp_path / "b.png").values())) == {"GRAY"}
    save_image(Raster(RAMP, Metadata(icc_profile=make_profile("GRAY"))), tmp_path / "c.webp")
    with Image.open(tmp_path / "c.webp") as saved:
        assert saved.info["icc_profile"][16:20] == b"RGB "


def with_space(profile: bytes, space: bytes) -> bytes:
    return profile[:16] + space + profile[20:]


@pytest.mark.parametrize(
    ("array", "profile"),
    [
        (PIXELS, with_space(make_profile(), b"CMYK")),
        (PIXELS, make_profile("GRAY")),
        (PIXELS, b"corrupt"),
        (RAMP, make_profile().replace(b"rTRC", b"rLUT")),
        (RAMP, with_space(make_profile(), b"CMYK")[:140]),
    ],
)
def test_profile_of_another_color_space_is_dropped_with_a_warning(tmp_path, array, profile, caplog):
    for suffix in (".png", ".jpg", ".tif", ".webp", ".avif"):
        if array is RAMP and suffix in (".webp", ".avif"):  # which store gray as RGB
            continue
        raster = Raster(array, Metadata(icc_profile=profile))
        for bits in (8, 16) if suffix in (".png", ".tif") else (8,):
            caplog.clear()
            path = tmp_path / f"{bits}{suffix}"
            write_raster(raster, path, SaveOptions(bit_depth=bits))
            assert f"{path.name}': dropped a color profile for" in caplog.text
            assert "icc_profile" not in Image.open(path).info


def test_profiles_of_multi_page_and_large_tiff(tmp_path, upscaler, monkeypatch):
    pages = [Image.fromarray(RAMP), Image.fromarray(PIXELS)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:], icc_profile=make_profile())
    tifffile.imwrite(tmp_path / "rows.tif", RAMP, iccprofile=make_profile())
    upscale_file(upscaler, tmp_path / "pages.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert [page.iccprofile[16:20] for page in file.pages] == [b"GRAY", b"RGB "]
    monkeypatch.setattr(tiff_media, "LARGE", 1)
    upscale_file(upscaler, tmp_path / "rows.tif", tmp_path / "c.tif")
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        assert file.pages[0].iccprofile[16:20] == b"GRAY"
