"""Images that repeat are upscaled as the middle of their repetition, and alpha that is data as an image of its own."""

import itertools
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from srgan_hub import SRGAN
from srgan_hub.backends.torch_backend import TorchBackend
from srgan_hub.batch import SaveOptions, upscale_files
from srgan_hub.cli import main
from srgan_hub.frames import upscale_frames
from srgan_hub.images import tiff_media
from srgan_hub.images.lazy import LazyRows
from srgan_hub.network.streaming import StreamingState
from srgan_hub.resize import TargetSize, downscale_rows, resize
from srgan_hub.upscaler import Upscaler

AXES = ("x", "y", "xy")
SHAPES = [(1, 1), (3, 5), (20, 31), (61, 7), (7, 61)]


@pytest.fixture(scope="module")
def upscaler(tiny_generator) -> Upscaler:
    return Upscaler(tiny_generator(), scale=4, device="cpu", dtype="float32", backend="torch")


def repeat(array, wrap: str, rows: int = 0):
    """Repeat an image three times along the axes; `rows` is the index of its height."""
    counts = [1] * array.ndim
    counts[rows : rows + 2] = [3 if axis in wrap else 1 for axis in "yx"]
    return array.repeat(counts) if isinstance(array, torch.Tensor) else np.tile(array, counts)


def middle(array, wrap: str, rows: int = 0):
    for axis, name in ((rows, "y"), (rows + 1, "x")):
        if name in wrap:
            side = array.shape[axis] // 3
            array = array[(slice(None),) * axis + (slice(side, 2 * side),)]
    return array


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("wrap", AXES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tensors_are_bit_exact(upscaler, shape, wrap):
    for image in (torch.rand(3, *shape), torch.rand(2, 3, *shape)):
        expected = middle(upscaler.upscale(repeat(image, wrap, image.ndim - 2)), wrap, image.ndim - 2)
        assert torch.equal(upscaler.upscale(image, wrap=wrap), expected)


def test_columns_have_the_repetitions_rounding(tiny_generator, monkeypatch):
    """Minimal filtering computes columns in tiles: the halo starts where one does, and covers what they depend on."""
    network = tiny_generator(channels=48, num_blocks=1, scale=2)
    monkeypatch.setattr("srgan_hub.backends.torch_backend.CPU_PIXELS", 1000)
    upscaler = Upscaler(network, scale=2, device="cpu", dtype="float32", backend="torch")
    image = torch.rand(3, 11, 67)
    assert upscaler.receptive_field < upscaler._backend_for(torch.float32).column_radius < 60
    expected = middle(upscaler.upscale(repeat(image, "x", 1)), "x", 1)
    assert torch.equal(upscaler.upscale(image, wrap="x"), expected)


@pytest.mark.parametrize("size", [None, "3x", 41, (50, 40), (124, 7), (1, 80), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exact_sizes_wrap_too(upscaler, channels, size):
    image = noise(20, 31, channels)
    for wrap in AXES:
        result = upscaler.upscale(image, size=size, wrap=wrap)
        height, width = result.shape[:2]
        repeated = tuple(side * (3 if axis in wrap else 1) for side, axis in ((width, "x"), (height, "y")))
        expected = middle(upscaler.upscale(repeat(image, wrap), size=repeated), wrap)
        assert np.array_equal(result, expected), wrap


def test_tensors_at_exact_sizes(upscaler):
    image, calls = torch.rand(2, 3, 20, 31), []
    result = upscaler.upscale(image, size=(50, 40), wrap="xy", progress=lambda *rows: calls.append(rows))
    assert result.shape == (2, 3, 40, 50) and calls[-1] == (20, 20) and result.min() >= 0 and result.max() <= 1
    assert torch.equal(result, middle(upscaler.upscale(repeat(image, "xy", 2), size=(150, 120)), "xy", 2))
    assert (result - resize(upscaler.upscale(image, wrap="xy"), (40, 50)))[..., 9:-9, 9:-9].abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays(upscaler, channels, dtype):
    for shape, wrap in itertools.product(SHAPES, ("x", "xy")):
        image = noise(*shape, *([channels] if channels else []), dtype=dtype)
        if channels in (2, 4):  # hidden colors are filled from around, across the edges
            image[..., -1][noise(*shape, seed=1) < 200] = 0
        expected = middle(upscaler.upscale(repeat(image, wrap)), wrap)
        assert np.array_equal(upscaler.upscale(image, wrap=wrap), expected), (shape, wrap)


def test_batches(upscaler):
    """Of images with and without transparency, whose copies have hidden colors of their own."""
    images = [noise(18, 25, 4, seed=seed) for seed in range(3)]
    images[1][..., 3] = 255
    images[2][5:15, 20:, 3] = 0
    for image, result in zip(images, upscaler.upscale_batch(images, wrap="xy", size="2x"), strict=True):
        assert np.array_equal(result, middle(upscaler.upscale(repeat(image, "xy"), size=(150, 108)), "xy"))


def test_large_transparent_regions_are_filled_strip_by_strip(upscaler, monkeypatch):
    image = noise(33, 40, 4)
    image[3:30, :25, 3] = 0
    expected = middle(upscaler.upscale(repeat(image, "xy")), "xy")
    monkeypatch.setattr("srgan_hub.images.tensors.STRIP", 10)
    assert np.abs(upscaler.upscale(image, wrap="xy").astype(int) - expected).max() <= 1


def test_rows_are_read_once_and_the_halo_twice(upscaler):
    image, read = noise(90, 20, 3), []
    rows = LazyRows(lambda top, end: read.extend(range(top, end)) or image[top:end], 20, 3, image.dtype, 0, 90)
    strips = list(upscaler.stream(rows, wrap="y"))
    assert np.array_equal(np.concatenate(strips), middle(upscaler.upscale(repeat(image, "y")), "y"))
    del read[:90]  # whether they are gray
    below = read.index(0)
    assert read == [*range(90 - below, 90), *range(90), *range(len(read) - 90 - below)]
    assert upscaler.receptive_field <= below < upscaler.receptive_field + 6


@pytest.mark.parametrize("start", [1, 50, 357])
@pytest.mark.parametrize("wrap", [None, "y"])
def test_rows_from_the_middle(upscaler, wrap, start):
    image = noise(90, 20, 3)
    rows = np.concatenate(list(upscaler.stream(image, wrap=wrap, start=start)))
    assert np.array_equal(rows, upscaler.upscale(image, wrap=wrap)[start:])
    with pytest.raises(ValueError, match=r"`start`.*'2x'"):
        next(upscaler.stream(image, start=start, size="2x"))


def test_memory_that_runs_out_and_half_precision_that_overflows(tiny_generator, monkeypatch, caplog):
    image, step, steps = torch.rand(3, 60, 20), StreamingState.step, []
    network, options = tiny_generator(), {"scale": 4, "device": "cpu", "backend": "torch", "strip_height": 10}
    upscaler = Upscaler(network, dtype="float16", **options)
    exact = Upscaler(network, dtype="float32", **options).upscale(image, wrap="xy")

    def failing(self, rows, **more):
        steps.append(rows.dtype)
        if len(steps) == 4:
            raise MemoryError
        output = step(self, rows, **more)
        overflows = len(steps) > 9 and rows.dtype == torch.float16 and output is not None
        return output * torch.inf if overflows else output

    monkeypatch.setattr(StreamingState, "step", failing)
    with caplog.at_level(logging.WARNING):
        result = upscaler.upscale(image, wrap="xy")
    assert "Out of memory" in caplog.text and "Non-finite" in caplog.text
    assert set(steps) == {torch.float16, torch.float32} and (result - exact).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(9, 13), (100, 20)])
def test_openvino(tiny_generator, monkeypatch, shape):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    image = torch.rand(3, *shape)
    upscaler = Upscaler(tiny_generator(), scale=4, device="cpu", dtype="float32", backend="openvino", strip_height=8)
    expected = middle(upscaler.upscale(repeat(image, "xy", 1)), "xy", 1)
    torch.testing.assert_close(upscaler.upscale(image, wrap="xy"), expected, atol=1e-5, rtol=0)


def test_halo_is_no_larger_than_necessary(tiny_generator, monkeypatch):
    shapes, stream = [], TorchBackend.stream
    monkeypatch.setattr(
        TorchBackend, "stream", lambda self, lr, **more: shapes.append(lr.shape[2:]) or stream(self, lr, **more)
    )
    upscaler = Upscaler(tiny_generator(), scale=4, device="cpu", dtype="float32", backend="torch")
    upscaler.upscale(noise(200, 300, 3), wrap="xy")
    halo = upscaler.receptive_field
    assert [side - 2 * halo for side in shapes[0]] == [pytest.approx(side, abs=10) for side in (200, 300)]


@pytest.mark.parametrize("change", [(0, 0), (50, 0), (0, 60), (50, 60), None])
def test_frames(upscaler, change, monkeypatch):
    """Changes reach across the edges; one along a whole axis leaves the other axis in part."""
    scene = noise(100, 120, 3)
    moved = scene.copy()
    moved[change or slice(7, 9)] ^= 255
    shapes, upscale = [], Upscaler.upscale
    monkeypatch.setattr(Upscaler, "upscale", lambda self, x, **more: shapes.append(x.shape) or upscale(self, x, **more))
    _, result = upscale_frames(upscaler, [scene, moved], wrap="xy")
    assert shapes[0] == scene.shape and np.prod(shapes[1]) < scene.size
    assert np.abs(result.astype(int) - upscale(upscaler, moved, wrap="xy")).max() <= 1
    _, result = upscale_frames(upscaler, [scene, moved], TargetSize(2), wrap="x")
    assert np.array_equal(result, upscale(upscaler, moved, size="2x", wrap="x"))


def file_of(upscaler: Upscaler, path, **options) -> np.ndarray:
    (result,) = upscale_files(upscaler, path, options=SaveOptions(overwrite=True), **options)
    assert result.error is None, result.error
    return tifffile.imread(result.target)


@pytest.mark.parametrize("size", [None, 50])
@pytest.mark.parametrize("hole", [False, True])
def test_floating_point_and_channels(upscaler, tmp_path, size, hole):
    array = np.random.default_rng(0).random((20, 31)).astype(np.float32)
    if hole:
        array[4:11, 25:] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", array)
    tifffile.imwrite(tmp_path / "b.tif", repeat(array, "xy"))
    expected = middle(file_of(upscaler, tmp_path / "b.tif", size=size and (150, 96)), "xy")
    assert np.array_equal(file_of(upscaler, tmp_path / "a.tif", size=size, wrap="xy"), expected, equal_nan=True)


def test_pages_and_large_files_that_resume(upscaler, tmp_path, monkeypatch):
    image = noise(70, 20, 3)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([image, image]), photometric="rgb")
    assert np.array_equal(file_of(upscaler, tmp_path / "a.tif", wrap="y")[1], upscaler.upscale(image, wrap="y"))

    monkeypatch.setattr(tiff_media, "LARGE", 1)
    monkeypatch.setattr(tiff_media, "_TILE", 32)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    add, rows = tiff_media.TileSpool._add, []

    def interrupted(self, strip):
        rows.append(len(strip))
        if len(rows) == 5:
            raise KeyboardInterrupt
        add(self, strip)

    monkeypatch.setattr(tiff_media.TileSpool, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        file_of(upscaler, tmp_path / "a.tif", wrap="y")
    assert np.array_equal(file_of(upscaler, tmp_path / "a.tif"), upscaler.upscale(image))  # starts from the top
    assert sum(rows) == 5 * 32 + 280
    rows.clear()
    with pytest.raises(KeyboardInterrupt):
        file_of(upscaler, tmp_path / "a.tif", wrap="y")
    assert np.array_equal(file_of(upscaler, tmp_path / "a.tif", wrap="y"), upscaler.upscale(image, wrap="y"))
    assert sum(rows) == 280 + 32  # the fifth strip twice


@pytest.mark.parametrize(
    ("options", "message"),
    [({"wrap": "yx"}, "`wrap`.*'yx'"), ({"wrap": ""}, "`wrap`.*''"), ({"alpha": "none"}, "`alpha`.*'none'")],
)
def test_invalid_options(upscaler, tmp_path, options, message):
    image = noise(3, 3, 4)
    Image.fromarray(image).save(tmp_path / "a.png")
    for call in (
        lambda: upscaler.upscale(image, **options),
        lambda: upscaler.upscale(torch.rand(3, 2, 2), **options),
        lambda: upscaler.upscale_batch([image], **options),
        lambda: next(upscaler.stream(image, **options)),
        lambda: next(upscale_files(upscaler, tmp_path / "a.png", **options)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_opacity_weights_colors_at_exact_sizes(upscaler):
    image = noise(20, 31, 4)
    image[:, :9, 3] = 0
    native = torch.from_numpy(upscaler.upscale(image))[None]
    (expected,) = downscale_rows(iter([native]), (124, 80), (50, 40), max_value=255, alpha=True)
    assert np.array_equal(upscaler.upscale(image, size=(50, 40)), expected[0])


@pytest.mark.parametrize("size", [None, "2x"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_that_is_data(upscaler, channels, dtype, size):
    """Colors are those of the image without alpha, and alpha is that of a gray image."""
    image = noise(20, 31, channels, dtype=dtype)
    images = [image.copy() for _ in range(3)]
    images[0][5:15, 5:25, -1] = 0
    images[1][..., -1] = np.iinfo(dtype).max
    batch = upscaler.upscale_batch(images, alpha="independent", size=size)
    for each, of_batch in zip(images, batch, strict=True):
        colors, alpha = (upscaler.upscale(part, size=size) for part in (each[..., :-1], each[..., -1]))
        result = upscaler.upscale(each, alpha="independent", size=size)
        assert np.array_equal(result[..., :-1], colors) and np.array_equal(result[..., -1], alpha)
        assert np.array_equal(of_batch, result)
    wrapped = upscaler.upscale(images[0], alpha="independent", wrap="xy")
    assert np.array_equal(wrapped[..., :-1], upscaler.upscale(images[0][..., :-1], wrap="xy"))


def test_alpha_that_is_data_in_files(tmp_path, capsys):
    image = noise(12, 9, 4)
    image[3:9, :, 3] = 0
    frames = [Image.fromarray(image), Image.fromarray(image[::-1].copy())]
    frames[0].save(tmp_path / "a.png")
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    SRGAN(channels=4, num_blocks=1).save_pretrained(tmp_path / "model")
    upscaler = SRGAN.from_pretrained(str(tmp_path / "model")).upscaler(dtype="float32")
    options = ["--model", str(tmp_path / "model"), "--dtype", "float32", "--wrap", "xy", "--alpha", "independent"]
    assert main(["upscale", str(tmp_path / "a.png"), str(tmp_path / "b.png"), *options]) == 0
    for name, each in (("a_x4.png", image), ("b_x4.png", image)):
        with Image.open(tmp_path / name) as result:
            expected = upscaler.upscale(each, wrap="xy", alpha="independent")
            assert np.array_equal(np.asarray(result), expected), name
    assert main(["upscale", str(tmp_path / "a.png"), "--output", str(tmp_path / "a.webp"), *options]) == 0
    with Image.open(tmp_path / "a.webp") as result:
        assert np.array_equal(np.asarray(result), upscaler.upscale(image, wrap="xy", alpha="independent"))
    for suffix in ("gif", "webp"):
        assert main(["upscale", str(tmp_path / "b.png"), "--output", str(tmp_path / f"b.{suffix}"), *options]) == 0
        assert "no colors where alpha is 0" in capsys.readouterr().err
    with Image.open(tmp_path / "b_x4.png") as result:
        result.seek(1)
        assert np.array_equal(np.asarray(result), upscaler.upscale(image[::-1], wrap="xy", alpha="independent"))


def test_work_of_interrupted_runs_is_kept_per_option(upscaler):
    from srgan_hub.batch import _BatchRunner

    keys = set()
    for wrap, alpha in itertools.product((None, *AXES), ("opacity", "independent")):
        run = _BatchRunner(upscaler, TargetSize(), wrap, alpha, SaveOptions(), *[None] * 7)
        reader = SimpleNamespace(width=4, height=4, kind="video")
        keys.add(run._output("a", reader, "b").key)
    assert len(keys) == 8


@pytest.mark.parametrize(("wrap", "hinted"), [(None, True), ("y", True), ("x", False), ("xy", False)])
def test_panorama_that_is_not_wrapped_is_named(upscaler, tmp_path, caplog, wrap, hinted):
    names = (
        "xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns:g='http://ns.google.com/photos/1.0/panorama/'"
    )
    sizes = "g:ProjectionType='equirectangular' g:FullPanoWidthPixels='8' g:CroppedAreaImageWidthPixels='8'"
    xmp = f"<rdf:RDF {names}><rdf:Description {sizes} g:FullPanoHeightPixels='4'/></rdf:RDF>"
    Image.fromarray(noise(4, 8, 3)).save(tmp_path / "a.jpg", xmp=xmp.encode())
    upscaler.upscale(tmp_path / "a.jpg", wrap=wrap)
    (result,) = upscale_files(upscaler, [tmp_path / "a.jpg"], wrap=wrap)
    assert result.error is None
    assert ["360° panorama" in message and "a.jpg" in message for message in caplog.messages] == [True, True] * hinted
