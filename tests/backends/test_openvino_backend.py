"""OpenVINO against the plain network; `tests/test_upscaler.py` tests the PyTorch backend."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_hub import Upscaler
from srgan_hub.backends.base import select_backend
from srgan_hub.backends.openvino_backend import OpenVINOBackend
from srgan_hub.images.lazy import LazyRows
from srgan_hub.network.fusion import fuse

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """With several threads OpenVINO may divide a strip differently from the whole image, and round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def random_image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def create(network: torch.nn.Sequential, **options) -> Upscaler:
    return Upscaler(network, **{"scale": 4, "device": "cpu", "dtype": "float32", "backend": "openvino", **options})


@pytest.fixture(scope="module")
def network(tiny_generator) -> torch.nn.Sequential:
    return tiny_generator()


@pytest.fixture(scope="module")
def streaming(network) -> Upscaler:
    return create(network, strip_height=8)


@pytest.fixture
def stages(monkeypatch) -> list[str]:
    """The stages that are used, in order."""
    used, borrow = [], OpenVINOBackend._borrow
    monkeypatch.setattr(OpenVINOBackend, "_borrow", lambda self, stage: used.append(stage) or borrow(self, stage))
    return used


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
@pytest.mark.parametrize("ends", [{}, {"trunk_end": "prelu", "output_activation": "clamp"}])
def test_strips_equal_the_plain_network(scale, upsampler, ends, tiny_generator, stages):
    network = tiny_generator(scale=scale, upsampler=upsampler, **ends)
    upscaler = create(network, scale=scale, strip_height=7)
    for height, width, expected in (
        (1, 1, ["whole"]),
        (20, 9, ["whole"]),
        (41, 5, ["first", "middle", "last"]),
        (60, 6, ["first", "middle", "last"]),
    ):
        stages.clear()
        lr = noise(2, 3, height, width)
        strips = list(upscaler.stream(lr))
        assert stages == expected and len(strips) >= len(expected)
        with torch.inference_mode():
            torch.testing.assert_close(torch.cat(strips, 2), network(lr), atol=1e-5, rtol=0)


def test_bundled_weights_stream_like_the_whole_image(bundled_model, stages):
    model, lr = bundled_model("srgan-x4-photo"), noise(3, 64, 30)
    whole = create(model.generator).upscale(lr)
    assert stages == ["whole"]
    # Bit-identical on some CPUs; on others the kernel depends on the height.
    torch.testing.assert_close(create(model.generator, strip_height=8).upscale(lr), whole, atol=1e-6, rtol=0)
    assert stages[1:] == ["first", "middle", "last"]
    with torch.inference_mode():
        torch.testing.assert_close(whole, model(lr[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("extra", [0, 1, 2, 8, 9])
def test_any_height_is_divided(extra, network, streaming):
    """The first strip has `min_first_rows` + 8 rows; the last one may have one row, or there is none."""
    lr = noise(3, streaming._backend_for(torch.float32).min_first_rows + 8 + extra, 20)
    torch.testing.assert_close(streaming.upscale(lr), create(network, strip_height=200).upscale(lr), atol=2e-6, rtol=0)


def test_alpha_batches_bit_depth_and_progress_as_with_torch(network, streaming):
    plain = create(network, backend="torch")
    image = random_image(70, 30, 4)
    calls = []
    images = [image, image[::-1].copy()]
    results = streaming.upscale_batch(images, progress=lambda *rows: calls.append(rows))
    assert calls[-1] == (70, 70) and [rows for rows, _ in calls] == sorted({rows for rows, _ in calls})
    for each, result in zip(images, results, strict=True):
        assert np.abs(result.astype(int) - plain.upscale(each)).max() <= 1
    uint16 = image[:, :, 0].astype(np.uint16) * 257
    assert np.abs(streaming.upscale(uint16) - plain.upscale(uint16).astype(int)).max() <= 3
    resized = streaming.upscale(Image.fromarray(image), size="2x")
    assert resized.mode == "RGBA" and resized.size == (60, 140)


def test_lazy_rows_are_streamed(streaming):
    image = random_image(90, 20, 3)
    rows = LazyRows(lambda first, last: image[first:last], 20, 3, image.dtype, 0, len(image))
    assert np.array_equal(np.concatenate(list(streaming.stream(rows))), streaming.upscale(image))


def test_threads_share_an_upscaler_and_streams_can_be_closed(streaming):
    images = [random_image(80, 10 + seed, 3, seed=seed) for seed in range(4)]
    expected = [streaming.upscale(image) for image in images]
    closed = streaming.stream(images[0])
    next(closed)
    closed.close()
    with ThreadPoolExecutor(4) as pool:
        for result, whole in zip(pool.map(streaming.upscale, images), expected, strict=True):
            assert np.array_equal(result, whole)


def test_out_of_memory_halves_the_strip_height(streaming, monkeypatch, caplog):
    lr = noise(3, 110, 12)
    whole = streaming.upscale(lr)
    stream, started, done = OpenVINOBackend.stream, [], []

    def limited(self, lr, *, strip_height, to_input):
        started.append((lr.shape[2], strip_height))
        for number, rows in enumerate(stream(self, lr, strip_height=strip_height, to_input=to_input)):
            if number == 2 and strip_height > 4:
                raise RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:224: std::bad_alloc")
            done.append(rows.shape[2])
            yield rows

    monkeypatch.setattr(OpenVINOBackend, "stream", limited)
    with caplog.at_level(logging.WARNING):
        result = streaming.upscale(lr)
    assert started == [(110, 8), (110 - max(0, sum(done[:2]) // 4 - streaming.receptive_field), 4)]
    assert "Out of memory at row" in caplog.text
    torch.testing.assert_close(result, whole, atol=2e-6, rtol=0)


def test_non_finite_bfloat16_is_computed_in_float32(network, monkeypatch, caplog):
    """The overflow is simulated, since a CPU without bfloat16 computes in float32."""
    upscaler, lr, stream = create(network, dtype="bfloat16", strip_height=5), noise(1, 3, 80, 6), OpenVINOBackend.stream

    def overflow(self, lr, **more):
        for number, rows in enumerate(stream(self, lr, **more)):
            yield rows / 0 if self.options["INFERENCE_PRECISION_HINT"] == "bf16" and number == 3 else rows

    monkeypatch.setattr(OpenVINOBackend, "stream", overflow)
    with caplog.at_level(logging.WARNING):
        result = upscaler.upscale(lr)
    assert "Non-finite values" in caplog.text and "torch.bfloat16" in caplog.text
    torch.testing.assert_close(result, create(network).upscale(lr), atol=0.02, rtol=0)


def test_bfloat16_scores_as_with_torch(benchmark_data, bundled_model):
    """PyTorch rounds each layer's output; OpenVINO keeps float32 in some, or in all without bfloat16 in hardware."""
    path = sorted((benchmark_data / "Set14").rglob("*.png"))[0]
    with Image.open(path) as image:
        hr = np.asarray(image.convert("RGB"))[:160, :160]
    lr = np.asarray(Image.fromarray(hr).resize((40, 40), Image.Resampling.BICUBIC))
    generator = bundled_model("srgan-x4-photo").generator
    errors = [
        np.square(create(generator, backend=name, dtype="bfloat16").upscale(lr).astype(float) - hr).mean()
        for name in ("torch", "openvino")
    ]
    assert abs(10 * np.log10(errors[0] / errors[1])) < 0.01


@pytest.mark.parametrize(
    ("machine", "device", "environment", "expected"),
    [
        ("x86_64", CPU, None, "openvino"),
        ("AMD64", CPU, None, "openvino"),
        ("arm64", CPU, None, "torch"),
        ("x86_64", CUDA, None, "torch"),
        ("x86_64", CPU, "torch", "torch"),
        ("arm64", CPU, "openvino", "openvino"),
    ],
)
def test_auto_depends_on_cpu_device_and_environment(machine, device, environment, expected, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv("SRGAN_BACKEND")
    if environment:
        monkeypatch.setenv("SRGAN_BACKEND", environment)
    assert select_backend("auto", device=device) == expected
    assert select_backend("torch", device=device) == "torch"


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "expected"),
    [
        ("auto", torch.float32, (4, 15), "openvino"),
        ("auto", torch.float32, (4, 16), "torch"),
        ("openvino", torch.float32, (4, 16), "openvino"),
        ("auto", torch.bfloat16, (9, 12), "openvino"),
        ("auto", torch.bfloat16, (9, 13), "torch"),
        ("auto", torch.float16, (1, 1), "torch"),
        ("auto", torch.float16, None, "torch"),
    ],
)
def test_auto_selects_the_faster_backend_per_image(name, dtype, shape, expected, network, monkeypatch):
    monkeypatch.setenv("SRGAN_BACKEND", "openvino")
    monkeypatch.setattr(OpenVINOBackend, "whole_image_pixels", 60)
    monkeypatch.setattr(OpenVINOBackend, "max_stream_width", 12)
    assert select_backend(name, device=CPU, dtype=dtype, shape=shape) == expected
    if shape and dtype != torch.float16:
        upscaler, lr = create(network, backend=name, dtype=dtype), noise(3, *shape)
        plain = create(network, backend="torch").upscale(lr)
        torch.testing.assert_close(upscaler.upscale(lr), plain, atol=0.02, rtol=0)
        assert upscaler.backend == "openvino" and {used for used, _ in upscaler._backends} == {expected}


def test_unavailable_backends_are_refused(network, monkeypatch):
    for options, message in (
        ({"backend": "ncnn"}, "`backend`.*'ncnn'"),
        ({"dtype": "float16"}, "float16"),
    ):
        with pytest.raises(ValueError, match=message):
            create(network, **options)
    with pytest.raises(ValueError, match="'cuda'"):
        select_backend("openvino", device=CUDA)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "srgan-hub\[openvino\]"'):
        create(network)
    monkeypatch.delenv("SRGAN_BACKEND")
    assert create(network, backend="auto").backend == "torch"


def test_fingerprint_depends_on_the_backend(network):
    assert len({create(network, backend=name).fingerprint() for name in ("torch", "openvino")}) == 2


def test_signals_are_survived_after_upscalers_are_deleted():
    """Ctrl+C is a signal, and so is what a data loader's worker sends when it exits."""
    code = """
import signal, sys, numpy as np, srgan_hub
model = srgan_hub.SRGAN(channels=4, num_blocks=1)
model.upscaler(backend="torch")
print(*{"openvino", "onnx"} & set(sys.modules))
upscalers = [model.upscaler(backend="openvino", device="cpu") for _ in range(3)]
for upscaler in upscalers:
    upscaler.upscale(np.zeros((5, 5, 3), np.uint8))
del upscaler
while upscalers:
    del upscalers[0]
signal.signal(signal.SIGUSR1, lambda *_: print("survived"))
signal.raise_signal(signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\nsurvived\n"), done.stderr  # nothing loaded before it is used


def test_auto_dtype_is_bfloat16_if_in_hardware(network, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    upscaler = create(network, dtype="auto")
    upscaler.upscale(np.zeros((5, 5, 3), np.uint8))
    assert [each.options["INFERENCE_PRECISION_HINT"] for each in upscaler._backends.values()][-1] == "bf16"


def test_min_first_rows_suffice(network):
    """With one row less, a layer would have fewer rows than it must cache."""
    backbone = fuse(network)[:-1]
    backend = OpenVINOBackend(backbone, scale=4, dtype=torch.float32)
    lr = noise(1, 3, backend.min_first_rows + 4, 6)
    strips = list(backend.stream(lr, strip_height=1, to_input=lambda rows: rows.contiguous()))
    assert len(strips) == 4
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat(strips, 2), backbone(lr), atol=1e-5, rtol=0)


def test_compiled_models_are_cached_and_the_oldest_removed(tiny_generator, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr("srgan_hub.backends.openvino_backend.MAX_CACHED_MODELS", 2)
    networks, lr = [tiny_generator(), tiny_generator(), tiny_generator()], noise(3, 8, 8)
    directories = []
    for network in (networks[0], networks[1], networks[0], networks[2]):
        expected = create(network, backend="torch").upscale(lr)
        torch.testing.assert_close(create(network).upscale(lr), expected, atol=1e-5, rtol=0)
        present = sorted((tmp_path / "srgan-hub" / "openvino").iterdir())
        directories += [each for each in present if each not in directories]
        for each in present:
            assert len(list(each.iterdir())) == 1  # reused, not compiled twice
            os.utime(each, (each.stat().st_atime, each.stat().st_mtime - 3600))
    assert present == sorted(directories[::2])
    (blob,) = directories[0].iterdir()
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:1000])  # as after an interrupted write
    expected = create(networks[0], backend="torch").upscale(lr)
    torch.testing.assert_close(create(networks[0]).upscale(lr), expected, atol=1e-5, rtol=0)


def test_unwritable_cache_is_not_used(network, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "file"))
    assert create(network).upscale(noise(3, 5, 4)).shape == (3, 20, 16)
