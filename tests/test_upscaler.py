import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import SRGAN, bundled_model_path, devices
from srgan_hub.backends.torch_backend import TorchBackend
from srgan_hub.images.errors import ImageError
from srgan_hub.images.tensors import TensorImage
from srgan_hub.network.fusion import fuse
from srgan_hub.network.streaming import StreamingState
from srgan_hub.network.winograd import WinogradConv2d
from srgan_hub.upscaler import Upscaler

CAT = bundled_model_path("srgan-x4").parent.parent / "examples" / "cat.png"


@pytest.fixture(scope="module")
def model() -> SRGAN:
    return SRGAN.from_pretrained("srgan-x4")


@pytest.fixture
def cat() -> np.ndarray:
    with Image.open(CAT) as image:
        return np.asarray(image)[40:70, 60:100]


def network_output(model: SRGAN, array: np.ndarray) -> np.ndarray:
    """The plain network on the whole image, as HWC in [0, 1]."""
    lr = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return model(lr)[0].permute(1, 2, 0).numpy()


def test_kinds_of_images_agree(model, cat, tmp_path):
    expected = network_output(model, cat / 255)
    levels = np.round(expected * 255).astype(np.uint8)
    array = model.upscale(cat, strip_height=7, dtype="fp32")
    assert array.dtype == np.uint8 and np.abs(array.astype(int) - levels).max() <= 1
    assert (array != levels).mean() < 1e-3  # ties that rounding in the last bit turned

    image = model.upscale(Image.fromarray(cat), strip_height=7, dtype="fp32")
    assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), array)
    Image.fromarray(cat).save(tmp_path / "cat.png")
    for path in (tmp_path / "cat.png", str(tmp_path / "cat.png")):
        assert np.array_equal(np.asarray(model.upscale(path, strip_height=7, dtype="fp32")), array)

    tensor = torch.from_numpy(cat / np.float32(255)).permute(2, 0, 1)
    sr = model.upscale(tensor, strip_height=7)
    assert sr.shape == (3, 120, 160) and sr.dtype == torch.float32
    np.testing.assert_allclose(sr.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    batch = model.upscale(torch.stack([tensor, tensor.flip(2)]).double(), strip_height=7)
    assert batch.dtype == torch.float64
    torch.testing.assert_close(batch[0].float(), sr, atol=1e-5, rtol=0)

    deep = model.upscale(cat.astype(np.uint16) * 257, strip_height=7)
    assert deep.dtype == np.uint16
    np.testing.assert_allclose(deep / 65535, expected, atol=2e-5)


def test_gray_alpha_and_one_pixel(model, cat):
    gray = cat[:12, :12, 0]
    result = model.upscale(gray, dtype="fp32")
    assert result.shape == (48, 48)
    expected = network_output(model, np.dstack([gray] * 3) / 255).mean(2)
    assert np.abs(result - expected * 255).max() <= 0.51
    assert np.array_equal(model.upscale(np.dstack([gray] * 3), dtype="fp32"), np.dstack([result] * 3))

    alpha = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (12, 1))
    image = model.upscale(Image.fromarray(np.dstack([cat[:12, :12], alpha])), dtype="fp32")
    assert image.mode == "RGBA"
    filled = TensorImage(np.dstack([cat[:12, :12], alpha]), 4)  # column 0 is hidden
    colors = network_output(model, filled.to_input(filled.lr)[0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(np.asarray(image)[:, 16:, :3] / 255, colors[:, 16:], atol=0.003)
    a = np.asarray(image)[:, 16:, 3] / 255
    assert np.abs(a - network_output(model, np.dstack([alpha] * 3) / 255).mean(2)[:, 16:]).max() < 0.1
    assert model.upscale(cat[:1, :1]).shape == (4, 4, 3)


def test_progress_counts_rows_and_stream_gives_the_same(model, cat):
    calls = []
    whole = model.upscale(cat, strip_height=4, progress=lambda done, total: calls.append((done, total)))
    assert [total for _, total in calls] == [30] * len(calls)
    dones = [done for done, _ in calls]
    assert dones == sorted(dones) and dones[-1] == 30
    upscaler = model.upscaler(strip_height=4)
    assert np.array_equal(np.concatenate(list(upscaler.stream(cat))), whole)
    tensor = torch.from_numpy(cat / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(torch.cat(list(upscaler.stream(tensor)), 1), upscaler.upscale(tensor))


def test_the_strip_has_as_many_pixels_as_the_device_takes(tiny_generator, monkeypatch):
    pushed = []
    push = StreamingState.step
    monkeypatch.setattr(
        StreamingState, "step", lambda self, rows, **more: pushed.append(rows.shape) or push(self, rows, **more)
    )
    monkeypatch.setattr("srgan_hub.backends.torch_backend.CPU_PIXELS", 100)
    list(Upscaler(tiny_generator(), scale=4, device="cpu").stream(torch.rand(2, 3, 30, 10)))
    assert pushed == [(2, 3, 5, 10)] * 6


def test_model_and_image_are_left_as_they_were(model, cat):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = cat.copy()
    model.train()
    model.upscale(image)
    assert model.training
    model.eval()
    assert np.array_equal(image, cat)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def begun(monkeypatch) -> list[tuple[int, int]]:
    """The LR rows and the height of the strips of each stream that is begun."""
    streams = []
    stream = TorchBackend.stream
    monkeypatch.setattr(
        TorchBackend,
        "stream",
        lambda self, lr, **more: streams.append((lr.shape[2], more["strip_height"])) or stream(self, lr, **more),
    )
    return streams


@pytest.mark.parametrize("layer", [0, 3, 5, 6])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_goes_on_with_half_the_strip(layer, error, tiny_generator, monkeypatch, caplog, begun):
    """From its third call on, one convolution (head, trunk, both upsamplings) can do with no more than 6 new rows."""
    network, lr = tiny_generator(), torch.rand(1, 3, 81, 5)
    prepared = Upscaler(network, scale=4, dtype="fp32", strip_height=20)
    convs = [
        module
        for module in prepared._backend_for(torch.float32).network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    convolve, calls, fails = torch.nn.functional.conv2d, [], []

    def crowded(x, weight, *args, **kwargs):
        if weight is convs[layer].weight:
            calls.append(x.shape[2])
            if len(calls) > 2 and x.shape[2] > 6 + 2 * (convs[layer].kernel_size[0] // 2):
                fails.append(x.shape[2])
                raise error
        return convolve(x, weight, *args, **kwargs)

    with torch.inference_mode():
        whole = fuse(network)(lr)
    monkeypatch.setattr(torch.nn.functional, "conv2d", crowded)
    with caplog.at_level(logging.WARNING):
        strips = list(prepared.stream(lr))
    torch.testing.assert_close(torch.cat(strips, 2), whole, atol=1e-5, rtol=0)
    assert 1 <= len(fails) == caplog.text.count("out of memory at row") == len(begun) - 1
    assert [strip for _, strip in begun] == [20, 10, 5, 3][: len(begun)]


def test_finished_rows_are_kept_when_memory_runs_out(tiny_generator, monkeypatch, begun):
    """The stream begins again with the rows that the next one depends on, not with the image."""
    prepared = Upscaler(tiny_generator(), scale=4, dtype="fp32", strip_height=20)
    push, pushes = StreamingState.step, []

    def crowded(self, rows, **more):
        pushes.append(rows.shape[2])
        if len(pushes) == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return push(self, rows, **more)

    monkeypatch.setattr(StreamingState, "step", crowded)
    lr = torch.rand(1, 3, 100, 5)
    strips = prepared.stream(lr)
    done = next(strips).shape[2] + next(strips).shape[2] + next(strips).shape[2]
    rest = torch.cat(list(strips), 2)
    assert begun == [(100, 20), (100 - (done // 4 - prepared.receptive_field), 10)] and done + rest.shape[2] == 400
    torch.testing.assert_close(rest, prepared.upscale(lr)[:, :, done:], atol=1e-5, rtol=0)


def test_out_of_memory_with_one_row_is_an_error(tiny_generator, monkeypatch, begun):
    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.nn.functional, "conv2d", full)
    with pytest.raises(RuntimeError, match="can't allocate"):
        Upscaler(tiny_generator(), scale=4, strip_height=30).upscale(torch.rand(3, 20, 4))
    assert [strip for _, strip in begun] == [20, 10, 5, 3, 2, 1]


def test_other_errors_are_not_tried_again(tiny_generator, monkeypatch, begun):
    monkeypatch.setattr(StreamingState, "step", lambda *args, **more: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):
        Upscaler(tiny_generator(), scale=4).upscale(torch.rand(3, 20, 4))
    assert len(begun) == 1


def test_a_strip_is_copied_while_the_next_one_is_computed(monkeypatch):
    """What a CUDA device would do, in the order in which it is told to."""
    told = []

    class Copied:
        def __init__(self, number):
            self.number = number

        def synchronize(self):
            told.append(f"wait for {self.number}")

    def strips():
        for number in range(3):
            told.append(f"compute {number}")
            yield torch.tensor(number)

    def start_copy(strip):
        told.append(f"copy {int(strip)}")
        return strip, Copied(int(strip))

    monkeypatch.setattr(devices, "_start_copy", start_copy)
    assert [int(strip) for strip in devices.copy_to_cpu(strips(), torch.device("cuda"))] == [0, 1, 2]
    assert told == [
        *("compute 0", "copy 0", "compute 1", "copy 1", "wait for 0"),
        *("compute 2", "copy 2", "wait for 1", "wait for 2"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "levels"), [("fp32", 1), ("bf16", 30), ("fp16", 8)])
def test_cuda_agrees_with_the_cpu(model, cat, dtype, levels):
    expected = model.upscale(cat, device="cpu", dtype="fp32").astype(int)
    result = model.upscale(cat, device="cuda", dtype=dtype, strip_height=7)
    assert np.abs(result - expected).max() <= levels
    lr = torch.from_numpy(cat / np.float32(255)).permute(2, 0, 1)
    sr = model.upscale(lr, device="cuda", strip_height=7)
    assert sr.device.type == "cpu" and model.upscale(lr.cuda(), device="cuda").device.type == "cuda"
    torch.testing.assert_close(sr, model.upscale(lr, device="cpu"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_close(model, cat, dtype):
    exact, half = (model.upscale(cat, dtype=p).astype(int) for p in ("fp32", dtype))
    assert 0 < np.abs(exact - half).mean() < 1


@pytest.mark.parametrize("where", [0, 9, 25, 40])
def test_rows_that_overflow_are_computed_again_in_float32(tiny_generator, where, caplog):
    """One weight is too large for float16 where a single bright pixel meets it."""
    network = tiny_generator(scale=3)
    lr = torch.full((1, 3, 41, 6), 1e-4)
    lr[:, :, where, 3] = 1.0
    with torch.no_grad():
        network.head_conv.weight[0] = 5e4
        for conv in (network.trunk.block0.conv1, network.trunk.block1.conv1, network.trunk.conv):
            conv.weight[:, 0] *= 1e-5  # float32 must hold it without losing the rest
        network.up0_conv.weight[:, 0] = 0
    with torch.inference_mode():
        whole = network(lr)
    assert not fuse(network)[:-1].half()(lr.half()).isfinite().all()
    sr = Upscaler(network, scale=3, dtype="fp16", strip_height=5).upscale(lr)
    assert "overflowed in torch.float16" in caplog.text
    assert sr.isfinite().all()
    reach = slice(max(0, where - 2) * 3, (where + 3) * 3)  # where the spike is felt most
    torch.testing.assert_close(sr[:, :, reach], whole[:, :, reach], atol=1e-4, rtol=0)


def test_auto_precision_asks_the_hardware(bfloat16, tiny_generator, monkeypatch):
    used = []
    network = Upscaler._backend_for
    monkeypatch.setattr(
        Upscaler, "_backend_for", lambda self, dtype, *width: used.append(dtype) or network(self, dtype, *width)
    )
    upscaler = Upscaler(tiny_generator(), scale=4, device="cpu")
    upscaler.upscale(np.zeros((3, 3, 3), np.uint8))
    assert set(used) == {torch.bfloat16 if bfloat16 else torch.float32}
    used.clear()
    upscaler.upscale(np.zeros((3, 3, 3), np.uint16))
    upscaler.upscale(torch.zeros(3, 3, 3))
    assert set(used) == {torch.float32}  # their values are finer than bfloat16


def test_auto_gives_what_its_precision_gives(bfloat16, model, cat):
    fp32, bf16 = (model.upscale(cat[:8, :8], device="cpu", dtype=dtype) for dtype in ("fp32", "bf16"))
    assert not np.array_equal(fp32, bf16)
    assert np.array_equal(model.upscale(cat[:8, :8], device="cpu"), bf16 if bfloat16 else fp32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 5, 5), r"\(3, H, W\)"),
        (torch.zeros(3, 0, 5), r"\(3, H, W\)"),
        (torch.zeros(3, 5, 5, dtype=torch.uint8), "float tensor"),
        (torch.full((3, 5, 5), 255.0), r"values in \[0, 1\], got 255 to 255"),
        (torch.full((3, 5, 5), torch.nan), r"values in \[0, 1\]"),
        (np.zeros((5, 5, 3), np.float32), "uint8 or uint16"),
        (7, "Expected a path, PIL image, array or tensor, got int"),
        ("no/such/file.png", "does not exist"),
    ],
)
def test_bad_images(tiny_generator, image, message):
    with pytest.raises(ValueError, match=message):
        Upscaler(tiny_generator(), scale=4).upscale(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "Expected a dtype out of"),
        ({"strip_height": 0}, "Expected strip_height as a positive integer"),
        ({"strip_height": 2.0}, "Expected strip_height as a positive integer"),
        ({"device": "abacus"}, "Device 'abacus' cannot be used"),
    ],
)
def test_bad_options(tiny_generator, options, message):
    with pytest.raises(ValueError, match=message):
        Upscaler(tiny_generator(), scale=4, **options)


def test_a_broken_file_is_an_image_error(model, tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ImageError, match="not an image"):
        model.upscale(tmp_path / "a.png")


def test_winograd_is_for_float32_alone():
    upscaler = SRGAN(channels=48, num_blocks=1).upscaler(device="cpu")
    counts = [
        sum(isinstance(layer, WinogradConv2d) for layer in upscaler._backend_for(dtype).network.modules())
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert counts == [5, 0]


def test_threads_may_share_an_upscaler(tiny_generator):
    upscaler = Upscaler(tiny_generator(), scale=4, strip_height=3, device="cpu")
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (9 + n, 11, 3 + n % 2), dtype=np.uint8) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(upscaler.upscale, images))
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(result, upscaler.upscale(image))
