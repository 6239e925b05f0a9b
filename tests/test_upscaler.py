import io
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN, devices
from srgan_hub.backends.torch_backend import TorchBackend
from srgan_hub.images.errors import ImageError
from srgan_hub.images.tensors import TensorImage
from srgan_hub.network.fusion import fuse
from srgan_hub.network.streaming import StreamingState
from srgan_hub.network.winograd import WinogradConv2d
from srgan_hub.upscaler import Upscaler


@pytest.fixture(scope="module")
def model(bundled_model) -> SRGAN:
    return bundled_model("srgan-x4")


@pytest.fixture
def cat(cat_image) -> np.ndarray:
    return cat_image[40:70, 60:100]


def network_output(model: SRGAN, array: np.ndarray) -> np.ndarray:
    """The plain network's output for a complete image, (H, W, C) in [0, 1]."""
    lr = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return model(lr)[0].permute(1, 2, 0).numpy()


def test_image_types_agree(model, cat, tmp_path):
    expected = network_output(model, cat / 255)
    rounded = np.round(expected * 255).astype(np.uint8)
    upscaler = model.upscaler(strip_height=7, dtype="float32")
    array = upscaler.upscale(cat)
    assert array.dtype == np.uint8 and np.abs(array.astype(int) - rounded).max() <= 1
    assert (array != rounded).mean() < 1e-3  # ties, rounded differently

    image = model.upscale(Image.fromarray(cat), strip_height=7, dtype="float32")
    assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), array)
    Image.fromarray(cat).save(tmp_path / "cat.png")
    for path in (tmp_path / "cat.png", str(tmp_path / "cat.png")):
        assert np.array_equal(np.asarray(upscaler.upscale(path)), array)

    tensor = torch.from_numpy(cat / np.float32(255)).permute(2, 0, 1)
    sr = upscaler.upscale(tensor)
    assert sr.shape == (3, 120, 160) and sr.dtype == torch.float32
    np.testing.assert_allclose(sr.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    batch = upscaler.upscale(torch.stack([tensor, tensor.flip(2)]).double())
    assert batch.dtype == torch.float64
    torch.testing.assert_close(batch[0].float(), sr, atol=1e-5, rtol=0)

    uint16 = upscaler.upscale(cat.astype(np.uint16) * 257)
    assert uint16.dtype == np.uint16
    np.testing.assert_allclose(uint16 / 65535, expected, atol=2e-5)


def test_grayscale_alpha_and_one_pixel(model, cat):
    upscaler = model.upscaler(dtype="float32")
    gray = cat[:12, :12, 0]
    result = upscaler.upscale(gray)
    assert result.shape == (48, 48)
    expected = network_output(model, np.dstack([gray] * 3) / 255).mean(2)
    assert np.abs(result - expected * 255).max() <= 0.51
    assert np.array_equal(upscaler.upscale(np.dstack([gray] * 3)), np.dstack([result] * 3))

    alpha = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (12, 1))
    image = upscaler.upscale(Image.fromarray(np.dstack([cat[:12, :12], alpha])))
    assert image.mode == "RGBA"
    filled = TensorImage(np.dstack([cat[:12, :12], alpha]), 4)  # column 0 is transparent
    colors = network_output(model, filled.to_input(filled.lr)[0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(np.asarray(image)[:, 16:, :3] / 255, colors[:, 16:], atol=0.003)
    a = np.asarray(image)[:, 16:, 3] / 255
    assert np.abs(a - network_output(model, np.dstack([alpha] * 3) / 255).mean(2)[:, 16:]).max() < 0.1
    assert upscaler.upscale(cat[:1, :1]).shape == (4, 4, 3)


def test_progress_counts_rows_and_stream_equals_upscale(model, cat):
    calls = []
    upscaler = model.upscaler(strip_height=4)
    whole = upscaler.upscale(cat, progress=lambda done, total: calls.append((done, total)))
    assert {total for _, total in calls} == {30}
    done = [done for done, _ in calls]
    assert done == sorted(done) and done[-1] == 30
    assert np.array_equal(np.concatenate(list(upscaler.stream(cat))), whole)
    tensor = torch.from_numpy(cat / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(torch.cat(list(upscaler.stream(tensor)), 1), upscaler.upscale(tensor))


@pytest.mark.parametrize("entry", ["model", "upscaler"])
def test_at_most_9_frames_from_upscale_to_the_first_convolution(entry, tiny_generator, monkeypatch):
    model = SRGAN(channels=4, num_blocks=2)
    upscale = model.upscale if entry == "model" else model.upscaler().upscale
    conv2d, stacks = torch.nn.functional.conv2d, []

    def record(*args, **kwargs):
        stacks.append([frame.name for frame in traceback.extract_stack()])
        return conv2d(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "conv2d", record)
    for image in (np.zeros((9, 9, 3), np.uint8), Image.new("RGB", (9, 9)), torch.zeros(3, 9, 9)):
        stacks.clear()
        upscale(image)
        frames = stacks[0][stacks[0].index("upscale") : -1]  # without `record`
        assert frames[-1] == "_conv" and len(frames) <= 9, frames


def test_strips_have_the_backends_pixels(tiny_generator, monkeypatch):
    strips = []
    step = StreamingState.step
    monkeypatch.setattr(
        StreamingState, "step", lambda self, rows, **more: strips.append(rows.shape) or step(self, rows, **more)
    )
    monkeypatch.setattr("srgan_hub.backends.torch_backend.CPU_PIXELS", 100)
    list(Upscaler(tiny_generator(), scale=4, device="cpu").stream(torch.rand(2, 3, 30, 10)))
    assert strips == [(2, 3, 5, 10)] * 6


def test_model_and_image_are_not_modified(tiny_generator, cat):
    model = SRGAN(channels=4, num_blocks=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = cat.copy()
    model.train().upscale(image)
    assert model.training and np.array_equal(image, cat)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def streams(monkeypatch) -> list[tuple[int, int]]:
    """The LR rows and the strip height of each stream that is started."""
    started = []
    stream = TorchBackend.stream
    monkeypatch.setattr(
        TorchBackend,
        "stream",
        lambda self, lr, **more: started.append((lr.shape[2], more["strip_height"])) or stream(self, lr, **more),
    )
    return started


@pytest.mark.parametrize("layer", [0, 3, 5, 6])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_halves_the_strip_height(layer, error, tiny_generator, monkeypatch, caplog, streams):
    """From its third call, one convolution (head, trunk, both upsamplings) fails with more than 6 new rows."""
    network, lr = tiny_generator(), torch.rand(1, 3, 81, 5)
    upscaler = Upscaler(network, scale=4, dtype="float32", strip_height=20)
    convs = [
        module
        for module in upscaler._backend_for(torch.float32).network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    conv2d, calls, failures = torch.nn.functional.conv2d, [], []

    def limited(x, weight, *args, **kwargs):
        if weight is convs[layer].weight:
            calls.append(x.shape[2])
            if len(calls) > 2 and x.shape[2] > 6 + 2 * (convs[layer].kernel_size[0] // 2):
                failures.append(x.shape[2])
                raise error
        return conv2d(x, weight, *args, **kwargs)

    with torch.inference_mode():
        whole = fuse(network)(lr)
    monkeypatch.setattr(torch.nn.functional, "conv2d", limited)
    with caplog.at_level(logging.WARNING):
        strips = list(upscaler.stream(lr))
    torch.testing.assert_close(torch.cat(strips, 2), whole, atol=1e-5, rtol=0)
    assert 1 <= len(failures) == caplog.text.count("Out of memory at row") == len(streams) - 1
    assert [strip_height for _, strip_height in streams] == [20, 10, 5, 3][: len(streams)]


def test_finished_rows_are_kept_after_out_of_memory(tiny_generator, monkeypatch, streams):
    """The stream restarts at the receptive field of the next row, not at the top."""
    upscaler = Upscaler(tiny_generator(), scale=4, dtype="float32", strip_height=20)
    step, steps = StreamingState.step, []

    def limited(self, rows, **more):
        steps.append(rows.shape[2])
        if len(steps) == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return step(self, rows, **more)

    monkeypatch.setattr(StreamingState, "step", limited)
    lr = torch.rand(1, 3, 100, 5)
    strips = upscaler.stream(lr)
    done = sum(next(strips).shape[2] for _ in range(3))
    rest = torch.cat(list(strips), 2)
    assert streams == [(100, 20), (100 - (done // 4 - upscaler.receptive_field), 10)]
    assert done + rest.shape[2] == 400
    torch.testing.assert_close(rest, upscaler.upscale(lr)[:, :, done:], atol=1e-5, rtol=0)


def test_out_of_memory_with_one_row_raises(tiny_generator, monkeypatch, streams):
    def fail(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.nn.functional, "conv2d", fail)
    with pytest.raises(RuntimeError, match="can't allocate"):
        Upscaler(tiny_generator(), scale=4, strip_height=30).upscale(torch.rand(3, 20, 4))
    assert [strip_height for _, strip_height in streams] == [20, 10, 5, 3, 2, 1]


def test_other_errors_are_not_retried(tiny_generator, monkeypatch, streams):
    monkeypatch.setattr(StreamingState, "step", lambda *args, **more: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):
        Upscaler(tiny_generator(), scale=4).upscale(torch.rand(3, 20, 4))
    assert len(streams) == 1


def test_strips_are_copied_while_the_next_one_is_computed(monkeypatch):
    """The order of operations on a CUDA device."""
    log = []

    class Event:
        def __init__(self, number):
            self.number = number

        def synchronize(self):
            log.append(f"wait for {self.number}")

    def strips():
        for number in range(3):
            log.append(f"compute {number}")
            yield torch.tensor(number)

    def start_copy(strip):
        log.append(f"copy {int(strip)}")
        return strip, Event(int(strip))

    monkeypatch.setattr(devices, "_start_copy", start_copy)
    assert [int(strip) for strip in devices.copy_to_cpu(strips(), torch.device("cuda"))] == [0, 1, 2]
    assert log == [
        *("compute 0", "copy 0", "compute 1", "copy 1", "wait for 0"),
        *("compute 2", "copy 2", "wait for 1", "wait for 2"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1), ("bfloat16", 30), ("float16", 8)])
def test_cuda_agrees_with_cpu(model, cat, dtype, tolerance):
    expected = model.upscale(cat, device="cpu", dtype="float32").astype(int)
    result = model.upscale(cat, device="cuda", dtype=dtype, strip_height=7)
    assert np.abs(result - expected).max() <= tolerance
    lr = torch.from_numpy(cat / np.float32(255)).permute(2, 0, 1)
    sr = model.upscale(lr, device="cuda", strip_height=7)
    assert sr.device.type == "cpu" and model.upscale(lr.cuda(), device="cuda").device.type == "cuda"
    torch.testing.assert_close(sr, model.upscale(lr, device="cpu"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["bf16", torch.float16])
def test_half_precision_is_close(model, cat, dtype):
    exact, half = (model.upscale(cat[:12, :12], dtype=each).astype(int) for each in ("float32", dtype))
    assert 0 < np.abs(exact - half).mean() < 1


@pytest.mark.parametrize("row", [0, 9, 25, 40])
def test_non_finite_rows_in_half_precision_are_computed_in_float32(tiny_generator, row, caplog):
    """One weight overflows float16 at a single bright pixel."""
    network = tiny_generator(scale=3)
    lr = torch.full((1, 3, 41, 6), 1e-4)
    lr[:, :, row, 3] = 1.0
    with torch.no_grad():
        network.head_conv.weight[0] = 5e4
        for conv in (network.trunk.block0.conv1, network.trunk.block1.conv1, network.trunk.conv):
            conv.weight[:, 0] *= 1e-5  # float32 must represent it together with all others
        network.up0_conv.weight[:, 0] = 0
    with torch.inference_mode():
        whole = network(lr)
    assert not fuse(network)[:-1].half()(lr.half()).isfinite().all()
    sr = Upscaler(network, scale=3, dtype="float16", strip_height=5).upscale(lr)
    assert "Non-finite values" in caplog.text and "torch.float16" in caplog.text
    assert sr.isfinite().all()
    affected = slice(max(0, row - 2) * 3, (row + 3) * 3)
    torch.testing.assert_close(sr[:, :, affected], whole[:, :, affected], atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["head_conv.weight", "trunk.block0.bn1.running_var", "up1_act.weight"])
def test_generators_with_non_finite_weights_are_refused(name, value, tiny_generator):
    network = tiny_generator()
    network.state_dict()[name].view(-1)[1] = value
    with pytest.raises(ValueError, match=f"NaN or infinite weights in '{name}'"):
        Upscaler(network, scale=4)


def test_weights_that_overflow_when_fused_are_refused(tiny_generator):
    network = tiny_generator()
    network.trunk.bn.eps = 1e-45
    network.trunk.bn.running_var[0], network.trunk.bn.weight.data[0] = 0, 1e30
    with pytest.raises(ValueError, match=r"infinite weights in 'trunk\.conv"):
        Upscaler(network, scale=4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_infinite_output_in_float32_is_an_error(backend, dtype, tiny_generator):
    network = tiny_generator()
    for layer in (network.head_conv, network.up0_conv):
        layer.weight.data.fill_(1e30)
    upscaler = Upscaler(network, scale=4, dtype=dtype, backend=backend, device="cpu", strip_height=8)
    for image in (np.full((60, 8, 3), 255, np.uint8), torch.ones(3, 60, 8)):
        with pytest.raises(ValueError, match="infinite in float32"):
            upscaler.upscale(image)


def test_auto_dtype_depends_on_hardware_and_bit_depth(bfloat16, model, cat, monkeypatch):
    used, backend_for = [], Upscaler._backend_for
    monkeypatch.setattr(
        Upscaler, "_backend_for", lambda self, dtype, *size: used.append(dtype) or backend_for(self, dtype, *size)
    )
    upscaler = model.upscaler(device="cpu")
    result = upscaler.upscale(cat[:8, :8])
    assert set(used) == {torch.bfloat16 if bfloat16 else torch.float32}
    fp32, bf16 = (model.upscale(cat[:8, :8], device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert not np.array_equal(fp32, bf16) and np.array_equal(result, bf16 if bfloat16 else fp32)
    used.clear()
    upscaler.upscale(np.zeros((3, 3, 3), np.uint16))
    upscaler.upscale(torch.zeros(3, 3, 3))
    assert set(used) == {torch.float32}  # their values are finer than bfloat16


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(">u2"),
        lambda a: a.byteswap().view(a.dtype.newbyteorder()),
        lambda a: np.flip(np.flip(a, 1).copy(), 1),
        lambda a: np.asfortranarray(a),
        lambda a: np.ma.array(a),
        lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),  # read-only
        lambda a: a / 65_535,
        lambda a: (a / 65_535).astype(">f4"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_any_layout_byte_order_and_float_type(change, channels, tiny_generator):
    array = np.random.default_rng(0).integers(0, 65_536, (6, 5, channels), np.uint16)
    upscaler = Upscaler(tiny_generator(), scale=4, dtype="float32")
    expected, changed = upscaler.upscale(array), change(array)
    result = upscaler.upscale(changed)
    assert result.dtype == changed.dtype.newbyteorder("=")
    if result.dtype.kind == "f":
        assert np.array_equal(result, (expected / 65_535).astype(result.dtype))
    else:
        assert np.array_equal(result, expected)
    assert np.array_equal(np.concatenate([*upscaler.stream(changed)]), result)
    assert upscaler.upscale_batch([changed])[0].dtype == result.dtype


def test_booleans_are_black_and_white(tiny_generator):
    upscaler = Upscaler(tiny_generator(), scale=4)
    mask = np.random.default_rng(0).random((7, 6)) > 0.5
    result = upscaler.upscale(mask)
    assert result.dtype == np.uint8 and np.array_equal(
        result, upscaler.upscale(np.where(mask, 255, 0).astype(np.uint8))
    )


def opened(size: int | None = None) -> Image.Image:
    buffer = io.BytesIO()
    Image.effect_noise((50, 50), 50).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:size]))


def closed(image: Image.Image, what: str = "") -> Image.Image:
    """Close an image, or its file."""
    (getattr(image, what) if what else image).close()
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 5, 5), r"\(3, H, W\)"),
        (torch.zeros(3, 0, 5), r"\(3, H, W\)"),
        (torch.zeros(3, 5, 5, dtype=torch.uint8), "float tensor"),
        (torch.full((3, 5, 5), 255.0), r"got 255 to 255"),
        (torch.full((3, 5, 5), torch.nan), r"values in \[0, 1\]"),
        (torch.zeros(5), r"\(3, H, W\)"),
        (torch.tensor(0.0), r"\(3, H, W\)"),
        (np.full((5, 5, 3), 255.0), r"float64.*\[0, 1\], got 255 to 255"),
        (np.full((5, 5), np.nan, np.float16), r"float16.*\[0, 1\], got nan to nan"),
        (np.zeros((3, 5, 5), np.float32), r"\(H, W, 1 to 4\), got \(3, 5, 5\)"),
        (np.zeros((5, 5, 3), np.int64), "uint8, uint16.*got int64; convert"),
        (np.zeros((5, 5, 3), np.uint32), "uint8, uint16.*got uint32; convert"),
        (np.zeros((5, 5), complex), "uint8, uint16.*got complex128; convert"),
        (np.zeros((5, 5), object), "uint8, uint16.*got object; convert"),
        (np.ma.masked_equal(np.eye(5, dtype=np.uint8), 1), "masked values.*`filled`"),
        (np.zeros((0, 5), float), r"\(H, W\)"),
        (np.zeros(5, np.uint8), r"\(H, W\)"),
        (np.uint8(5), "got uint8"),
        (opened(1500), "Cannot decode the image: .*truncated"),
        (closed(opened()), "the image was closed before"),
        (closed(Image.new("RGB", (5, 5))), "the image was closed before"),
        (closed(opened(), "fp"), "the image was closed before"),
        (7, "got int"),
        ("no/such/file.png", "no/such/file.png"),
    ],
)
def test_invalid_images_are_refused(tiny_generator, image, message):
    with pytest.raises(ValueError, match=message):
        Upscaler(tiny_generator(), scale=4).upscale(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "`dtype`.*'int8'"),
        ({"dtype": torch.float64}, "`dtype`.*torch.float64"),
        ({"strip_height": 0}, "`strip_height`.*0"),
        ({"strip_height": 2.0}, "`strip_height`.*2.0"),
        ({"device": "abacus"}, "Device 'abacus' is not available"),
    ],
)
def test_invalid_options_are_refused(tiny_generator, options, message):
    with pytest.raises(ValueError, match=message):
        Upscaler(tiny_generator(), scale=4, **options)


def test_corrupt_file_raises_image_error(tiny_generator, tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ImageError, match=r"a.png"):
        Upscaler(tiny_generator(), scale=4).upscale(tmp_path / "a.png")


def test_winograd_is_used_in_float32_only():
    upscaler = SRGAN(channels=48, num_blocks=1).upscaler(device="cpu")
    counts = [
        sum(isinstance(layer, WinogradConv2d) for layer in upscaler._backend_for(dtype).network.modules())
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert counts == [5, 0]


def test_threads_share_an_upscaler(tiny_generator):
    upscaler = Upscaler(tiny_generator(), scale=4, strip_height=3, device="cpu")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (9 + n, 11, 3 + n % 2), dtype=np.uint8) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(upscaler.upscale, images))
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(result, upscaler.upscale(image))
