"""The other backend: the plain network's result, streamed as the whole; `tests/test_upscaler.py` is about PyTorch's."""

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

from srgan_hub import SRGAN, devices
from srgan_hub.backends import base as backends
from srgan_hub.backends.openvino_backend import OpenVINOBackend
from srgan_hub.images.lazy import LazyRows
from srgan_hub.network.fusion import fuse
from srgan_hub.upscaler import Upscaler


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """With several threads OpenVINO may divide a strip otherwise than the whole, and round the last bit otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def prepare(network: torch.nn.Sequential, **options) -> Upscaler:
    return Upscaler(network, **{"scale": 4, "device": "cpu", "dtype": "fp32", "backend": "openvino", **options})


@pytest.fixture(scope="module")
def model() -> SRGAN:
    return SRGAN.from_pretrained("srgan-x4-photo")


@pytest.fixture(scope="module")
def streaming(model) -> Upscaler:
    return model.upscaler(backend="openvino", device="cpu", dtype="fp32", strip_height=16)


@pytest.fixture
def infers(monkeypatch) -> list[str]:
    """The parts that are compiled, in their order."""
    parts = []
    compile_part = OpenVINOBackend._compile
    monkeypatch.setattr(OpenVINOBackend, "_compile", lambda self, part: parts.append(part) or compile_part(self, part))
    return parts


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "nearest"])
@pytest.mark.parametrize("ends", [{}, {"trunk_end": "prelu", "output_activation": "clamp"}])
def test_strips_are_the_whole_image_of_the_plain_network(scale, upsampler, ends, tiny_generator, infers):
    network = tiny_generator(scale=scale, upsampler=upsampler, **ends)
    upscaler = prepare(network, scale=scale, strip_height=7)
    for height, width, parts in (
        (1, 1, ["whole"]),
        (20, 9, ["whole"]),
        (41, 5, ["first", "middle", "last"]),
        (60, 6, ["first", "middle", "last"]),
    ):
        del infers[:]
        lr = noise(2, 3, height, width)
        strips = list(upscaler.stream(lr))
        assert infers == parts and len(strips) >= len(parts)
        with torch.inference_mode():
            torch.testing.assert_close(torch.cat(strips, 2), network(lr), atol=1e-5, rtol=0)


def test_bundled_weights_streamed_equal_the_whole(model, streaming, infers):
    lr = noise(3, 90, 50)
    whole = model.upscale(lr, backend="openvino", device="cpu", dtype="fp32")
    assert infers == ["whole"]
    # Bit-identical on some CPUs; on others other kernels serve other heights.
    torch.testing.assert_close(streaming.upscale(lr), whole, atol=1e-6, rtol=0)
    assert infers[1:] == ["first", "middle", "last"]
    with torch.inference_mode():
        torch.testing.assert_close(whole, model(lr[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("height", [57, 58, 59, 73, 74])
def test_any_height_is_divided(height, streaming, model):
    """41 rows must come first and 16 with them: one row may be left over, or none."""
    lr = noise(3, height, 20)
    whole = model.upscale(lr, backend="openvino", device="cpu", dtype="fp32", strip_height=200)
    torch.testing.assert_close(streaming.upscale(lr), whole, atol=2e-6, rtol=0)


def test_images_alpha_batches_and_progress_are_as_with_torch(streaming, model):
    levels = np.random.default_rng(0).integers(0, 256, (70, 30, 4), np.uint8)
    other = levels[::-1].copy()
    calls = []
    results = streaming.upscale_batch([levels, other], progress=lambda *rows: calls.append(rows))
    assert calls[-1] == (70, 70) and [rows for rows, _ in calls] == sorted({rows for rows, _ in calls})
    for array, result in zip((levels, other), results, strict=True):
        expected = model.upscale(array, backend="torch", device="cpu", dtype="fp32")
        assert np.abs(result.astype(int) - expected).max() <= 1
    deep = levels[:, :, 0].astype(np.uint16) * 257
    expected = model.upscale(deep, backend="torch", device="cpu").astype(int)
    assert np.abs(streaming.upscale(deep) - expected).max() <= 3  # of 65,535
    image = streaming.upscale(Image.fromarray(levels), size="2x")
    assert image.mode == "RGBA" and image.size == (60, 140)


def test_threads_share_one_and_a_stream_may_be_left(streaming):
    images = [np.random.default_rng(seed).integers(0, 256, (80, 10 + seed, 3), np.uint8) for seed in range(4)]
    expected = [streaming.upscale(image) for image in images]
    left = streaming.stream(images[0])
    next(left)
    left.close()
    with ThreadPoolExecutor(4) as pool:
        for result, whole in zip(pool.map(streaming.upscale, images), expected, strict=True):
            assert np.array_equal(result, whole)


def test_out_of_memory_goes_on_with_half_the_strip(streaming, monkeypatch, caplog):
    lr = noise(3, 110, 12)
    whole = streaming.upscale(lr)
    stream, begun, done = OpenVINOBackend.stream, [], []

    def crowded(self, lr, *, strip_height, to_input):
        begun.append((lr.shape[2], strip_height))
        for number, rows in enumerate(stream(self, lr, strip_height=strip_height, to_input=to_input)):
            if number == 2 and strip_height > 8:
                raise RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:224: std::bad_alloc")
            done.append(rows.shape[2])
            yield rows

    monkeypatch.setattr(OpenVINOBackend, "stream", crowded)
    with caplog.at_level(logging.WARNING):
        result = streaming.upscale(lr)
    assert begun == [(110, 16), (110 - max(0, sum(done[:2]) // 4 - streaming.receptive_field), 8)]
    assert "out of memory at row" in caplog.text
    torch.testing.assert_close(result, whole, atol=2e-6, rtol=0)


def test_half_precision_that_overflows_goes_on_in_float32(tiny_generator, monkeypatch, caplog):
    """Where there is no bfloat16, its backend is given an overflow as the hardware would give it."""
    network = tiny_generator()
    upscaler = prepare(network, dtype="bf16", strip_height=5)
    lr = noise(1, 3, 80, 6)
    stream = OpenVINOBackend.stream

    def overflowing(self, lr, **more):
        for number, rows in enumerate(stream(self, lr, **more)):
            half = self.options["INFERENCE_PRECISION_HINT"] == "bf16"
            yield rows / 0 if half and number == 3 else rows

    monkeypatch.setattr(OpenVINOBackend, "stream", overflowing)
    with caplog.at_level(logging.WARNING):
        result = upscaler.upscale(lr)
    assert "overflowed in torch.bfloat16" in caplog.text
    torch.testing.assert_close(result, prepare(network).upscale(lr), atol=0.02, rtol=0)


def test_bfloat16_scores_as_pytorchs(benchmark_data, model):
    """PyTorch rounds every layer's result where OpenVINO keeps float32 in some, and all where the hardware lacks it."""
    path = sorted((benchmark_data / "Set14").rglob("*.png"))[0]
    with Image.open(path) as image:
        hr = np.asarray(image.convert("RGB"))[:160, :160]
    lr = np.asarray(Image.fromarray(hr).resize((40, 40), Image.Resampling.BICUBIC))
    errors = [
        np.square(model.upscale(lr, backend=name, device="cpu", dtype="bf16").astype(float) - hr).mean()
        for name in ("torch", "openvino")
    ]
    assert abs(10 * np.log10(errors[0] / errors[1])) < 0.01


@pytest.mark.parametrize(
    ("machine", "device", "asked", "expected"),
    [
        ("x86_64", "cpu", None, "openvino"),
        ("AMD64", "cpu", None, "openvino"),
        ("arm64", "cpu", None, "torch"),
        ("x86_64", "cuda", None, "torch"),
        ("x86_64", "cpu", "torch", "torch"),
        ("arm64", "cpu", "openvino", "openvino"),
    ],
)
def test_auto_takes_what_is_faster(machine, device, asked, expected, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv("SRGAN_BACKEND")
    if asked:
        monkeypatch.setenv("SRGAN_BACKEND", asked)
    assert backends.select_backend("auto", torch.device(device)) == expected
    assert backends.select_backend("torch", torch.device(device)) == "torch"


def test_a_backend_that_cannot_be_used_is_refused(tiny_generator, monkeypatch):
    with pytest.raises(ValueError, match="Expected a backend out of auto, torch, openvino, got 'ncnn'"):
        prepare(tiny_generator(), backend="ncnn")
    with pytest.raises(ValueError, match="Expected dtype fp32 or bf16 with the backend openvino, got 'fp16'"):
        prepare(tiny_generator(), dtype="fp16")
    with pytest.raises(ValueError, match="Expected the device cpu for the backend openvino, got cuda"):
        backends.select_backend("openvino", torch.device("cuda"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "srgan-hub\[openvino\]"'):
        prepare(tiny_generator())
    monkeypatch.delenv("SRGAN_BACKEND")
    assert prepare(tiny_generator(), backend="auto").backend == "torch"


def test_auto_takes_torch_for_fp16(tiny_generator, monkeypatch):
    monkeypatch.setenv("SRGAN_BACKEND", "openvino")
    assert prepare(tiny_generator(), backend="auto").backend == "openvino"
    assert prepare(tiny_generator(), backend="auto", dtype="fp16").backend == "torch"


def test_results_depend_on_the_backend(tiny_generator):
    network = tiny_generator()
    prints = {prepare(network, backend=name).fingerprint() for name in ("torch", "openvino")}
    assert len(prints) == 2


def test_nothing_is_loaded_before_it_is_used():
    code = "import sys, srgan_hub; srgan_hub.SRGAN(channels=4, num_blocks=1).upscaler(backend='torch')"
    code += "; print(*{'openvino', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_signal_is_survived_after_upscalers_have_gone():
    """Ctrl+C is one, and what a data loader's worker sends when it ends."""
    code = """
import signal, numpy as np, srgan_hub
model = srgan_hub.SRGAN(channels=4, num_blocks=1)
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
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


def test_bfloat16_is_taken_where_the_hardware_has_it(tiny_generator, monkeypatch):
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    upscaler = prepare(tiny_generator(), dtype="auto")
    upscaler.upscale(np.zeros((5, 5, 3), np.uint8))
    assert [each.options["INFERENCE_PRECISION_HINT"] for each in upscaler._backends.values()][-1] == "bf16"


def test_the_rows_that_must_come_first_suffice(tiny_generator):
    """One row less, and a layer would have fewer rows than it must keep."""
    network = fuse(tiny_generator())[:-1]
    backend = OpenVINOBackend(network, scale=4, dtype=torch.float32)
    lr = noise(1, 3, backend.min_first_rows + 4, 6)
    strips = list(backend.stream(lr, strip_height=1, to_input=lambda rows: rows.contiguous()))
    assert len(strips) == 4
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat(strips, 2), network(lr), atol=1e-5, rtol=0)


def test_what_is_compiled_is_kept_by_the_weights_and_the_oldest_goes(tiny_generator, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr("srgan_hub.backends.openvino_backend.MAX_CACHED_MODELS", 2)
    networks, lr = [tiny_generator(), tiny_generator(), tiny_generator()], noise(3, 8, 8)
    folders = []
    for network in (networks[0], networks[1], networks[0], networks[2]):
        expected = prepare(network, backend="torch").upscale(lr)
        torch.testing.assert_close(prepare(network).upscale(lr), expected, atol=1e-5, rtol=0)
        there = sorted((tmp_path / "srgan-hub" / "openvino").iterdir())
        folders += [folder for folder in there if folder not in folders]
        for folder in there:
            assert len(list(folder.iterdir())) == 1  # found again, not compiled twice
            os.utime(folder, (folder.stat().st_atime, folder.stat().st_mtime - 3600))
    assert there == sorted(folders[::2])
    (kept,) = folders[0].iterdir()
    kept.chmod(0o600)
    kept.write_bytes(kept.read_bytes()[:1000])  # a process was killed while it wrote
    expected = prepare(networks[0], backend="torch").upscale(lr)
    torch.testing.assert_close(prepare(networks[0]).upscale(lr), expected, atol=1e-5, rtol=0)


def test_where_nothing_can_be_kept_it_works_all_the_same(tiny_generator, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "file"))
    assert prepare(tiny_generator()).upscale(noise(3, 5, 4)).shape == (3, 20, 16)


@pytest.mark.parametrize(
    ("backend", "dtype", "height", "width", "expected"),
    [
        ("auto", "fp32", 4, 15, "openvino"),
        ("auto", "fp32", 4, 16, "torch"),
        ("openvino", "fp32", 4, 16, "openvino"),
        ("auto", "bf16", 9, 12, "openvino"),
        ("auto", "bf16", 9, 13, "torch"),
    ],
)
def test_auto_gives_images_to_torch_where_openvino_does_not_repay(
    backend, dtype, height, width, expected, tiny_generator, monkeypatch
):
    monkeypatch.setenv("SRGAN_BACKEND", "openvino")
    monkeypatch.setattr(OpenVINOBackend, "whole_image_pixels", 60)
    monkeypatch.setattr(OpenVINOBackend, "max_stream_width", 12)
    network, lr = tiny_generator(), noise(3, height, width)
    upscaler = prepare(network, backend=backend, dtype=dtype)
    torch.testing.assert_close(upscaler.upscale(lr), prepare(network, backend="torch").upscale(lr), atol=0.02, rtol=0)
    assert {name for name, _ in upscaler._backends} == {expected}


def test_rows_that_are_not_in_memory_are_streamed(streaming):
    levels = np.random.default_rng(0).integers(0, 256, (90, 20, 3), np.uint8)
    rows = LazyRows(lambda first, last: levels[first:last], 20, 3, levels.dtype, 0, len(levels))
    assert np.array_equal(np.concatenate(list(streaming.stream(rows))), streaming.upscale(levels))
