"""Run one contender of `inference.py`: prepare, warm up, run once, report as JSON."""

import itertools
import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.profiler import ProfilerActivity, profile

from srgan_hub import SRGAN
from srgan_hub.publish import EXAMPLE

MODEL = "srgan-x4"
# Larger images run without warm-up: one-time costs are negligible.
LARGE = 2**19
# Convolutions of this network: height, width, input and output channels, kernel size.
CONVOLUTIONS = [(64, 64, 64, 3), (128, 64, 64, 3), (256, 64, 64, 3), (64, 64, 256, 3), (128, 64, 256, 3)]

Run = Callable[[], np.ndarray]


def make_image(height: int, width: int) -> np.ndarray:
    """Return a photograph of this size: (height, width, 3), uint8."""
    with Image.open(EXAMPLE.with_name("astronaut.png")) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def to_lr(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None].contiguous()


def pytorch(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """The plain network, as other projects run it."""
    model, lr = SRGAN.from_pretrained(MODEL), to_lr(image)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model(lr).numpy()

    return run


def onnxruntime(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """Our export."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(onnx_file, options, providers=["CPUExecutionProvider"])
    inputs = {"lr": to_lr(image).numpy()}
    return lambda: session.run(["sr"], inputs)[0]


def openvino(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """Our export, compiled for this one size, which suits it best."""
    import openvino as ov

    return _compiled(ov.Core().read_model(onnx_file), image, dtype)


def openvino_plain(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """The plain network by OpenVINO's own converter."""
    import openvino as ov

    example = torch.rand(1, 3, 32, 32)
    return _compiled(ov.convert_model(SRGAN.from_pretrained(MODEL), example_input=example), image, dtype)


def _compiled(model: object, image: np.ndarray, dtype: str) -> Run:
    import openvino as ov

    lr = to_lr(image).numpy()
    model.reshape(list(lr.shape))  # type: ignore[attr-defined]
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[dtype],
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([lr], share_inputs=True, share_outputs=True)[0]


def srgan_hub(image: np.ndarray, dtype: str, onnx_file: str, backend: str = "torch") -> Run:
    """srgan-hub, from uint8 to uint8; fusion and compilation are not timed, as for the others."""
    upscaler = SRGAN.from_pretrained(MODEL).upscaler(dtype=dtype, device="cpu", backend=backend)
    return lambda: upscaler.upscale(image).transpose(2, 0, 1)[None] / np.float32(255)


def srgan_hub_openvino(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """srgan-hub with the OpenVINO backend."""
    return srgan_hub(image, dtype, onnx_file, "openvino")


class Compact(nn.Sequential):
    """Real-ESRGAN's small network (SRVGGNetCompact) as in realesr-general-x4v3: 64 channels, 32 inner convolutions.

    From the description in its paper's repository; the weights are random, since it is here for its speed alone.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64)]
        for _ in range(32):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.PReLU(64)]
        super().__init__(*layers, nn.Conv2d(64, 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return super().forward(lr) + nn.functional.interpolate(lr, scale_factor=4, mode="nearest")


class Span(nn.Module):
    """SPAN (Wan et al. 2023, https://arxiv.org/abs/2311.12770) for x4: 48 channels, six blocks.

    As it runs: what training has as three convolutions is one. Attention has no weights; the others are random.
    """

    def __init__(self, channels: int = 48) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)

        self.head = conv(3, channels)
        self.blocks = nn.ModuleList(nn.ModuleList(conv(channels, channels) for _ in range(3)) for _ in range(6))
        self.after = conv(channels, channels)
        self.join = conv(4 * channels, channels, 1)
        self.tail = conv(channels, 48)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        head = x = self.head(lr)
        kept = []
        for first, second, third in self.blocks:  # type: ignore[misc]
            inner = nn.functional.silu(first(x))
            out = third(nn.functional.silu(second(inner)))
            x = (out + x) * (torch.sigmoid(out) - 0.5)
            kept.append((x, inner))
        joined = torch.cat([head, self.after(x), kept[0][0], kept[-1][1]], 1)
        return nn.functional.pixel_shuffle(self.tail(self.join(joined)), 4)


def compact(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """Real-ESRGAN's Compact in plain PyTorch, with random weights."""
    return _plain(Compact(), image, dtype)


def span(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """SPAN in plain PyTorch, with random weights."""
    return _plain(Span(), image, dtype)


class UpscalerJS:
    """One of UpscalerJS's models in node; see `upscalerjs.mjs`. `UPSCALERJS` names the folder with its packages."""

    def __init__(self, kind: str) -> None:
        command = ["node", str(Path(__file__).parent / "upscalerjs.mjs"), os.environ["UPSCALERJS"], kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Upscale (H, W, 3) uint8 to (4 * H, 4 * W, 3) float32 in [0, 1]."""
        assert self.process.stdin and self.process.stdout
        height, width, _ = image.shape
        self.process.stdin.write(struct.pack("<II", height, width) + image.tobytes())
        self.process.stdin.flush()
        values = self.process.stdout.read(height * width * 16 * 3 * 4)
        return np.frombuffer(values, np.float32).reshape(4 * height, 4 * width, 3)


def upscalerjs_slim(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """The small model that its demos use."""
    model = UpscalerJS("slim")
    return lambda: model(image).transpose(2, 0, 1)[None]


def upscalerjs_thick(image: np.ndarray, dtype: str, onnx_file: str) -> Run:
    """The best model."""
    model = UpscalerJS("thick")
    return lambda: model(image).transpose(2, 0, 1)[None]


def _plain(network: nn.Module, image: np.ndarray, dtype: str) -> Run:
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    network, lr = network.eval().to(torch_dtype, memory_format=torch.channels_last), to_lr(image).to(torch_dtype)
    lr = lr.contiguous(memory_format=torch.channels_last)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(lr).float().numpy()

    return run


CONTENDERS = {
    call.__name__: call
    for call in (pytorch, onnxruntime, openvino_plain, openvino, srgan_hub, srgan_hub_openvino, compact, span)
}
if "UPSCALERJS" in os.environ:
    CONTENDERS |= {call.__name__: call for call in (upscalerjs_slim, upscalerjs_thick)}


def time_contender(name: str, dtype: str, height: int, width: int, onnx_file: str) -> dict[str, float]:
    run = CONTENDERS[name](make_image(height, width), dtype, onnx_file)
    if height * width <= LARGE:
        run()
    start = time.perf_counter()
    sr = run()
    seconds = time.perf_counter() - start
    # A thumbnail, to compare the contenders' results.
    thumbnail = sr[0, :, :: sr.shape[2] // 8, :: sr.shape[3] // 8].astype(float)
    return {"seconds": seconds, "peak_mb": peak_mb(), "thumbnail": thumbnail.round(4).tolist()}


def best_rate(dtype: str) -> dict[str, float]:
    """Return the best rate of the convolutions in GFLOP/s, this machine's limit."""
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    best = 0.0
    for side, inputs, outputs, kernel in CONVOLUTIONS:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2).to(
            torch_dtype, memory_format=torch.channels_last
        )
        x = torch.rand(1, inputs, side, side, dtype=torch_dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            conv(x)
            for _ in range(10):
                start = time.perf_counter()
                conv(x)
                flop = 2 * conv.weight.numel() * side**2
                best = max(best, flop / (time.perf_counter() - start) / 1e9)
    return {"gflops": best}


def network_share(dtype: str, height: int, width: int) -> dict[str, float]:
    """Return the peak memory in MB of live tensors while an image is streamed and its result discarded.

    What the process has beyond that is what its allocator leaves unused between them.
    """
    upscaler = SRGAN.from_pretrained(MODEL).upscaler(dtype=dtype, device="cpu", backend="torch")
    image = make_image(height, width)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in upscaler.stream(image):
            pass
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return {"share_mb": max(itertools.accumulate(sizes)) / 1e6}


def network_share_openvino(dtype: str, height: int, width: int) -> dict[str, float]:
    """Return the growth in MB of resident memory while an image is streamed and its result discarded.

    That is more than the tensors: OpenVINO's own copies of the weights and what it takes to compile are in it.
    """
    upscaler = SRGAN.from_pretrained(MODEL).upscaler(dtype=dtype, device="cpu", backend="openvino")
    image = make_image(height, width)
    before = peak_mb()
    for _ in upscaler.stream(image):
        pass
    return {"share_mb": peak_mb() - before}


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB (Linux counts kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    name, dtype, height, width, threads, onnx_file = sys.argv[1:]
    torch.set_num_threads(int(threads))
    if name == "best_rate":
        result = best_rate(dtype)
    elif name.startswith("network_share"):
        result = {"network_share": network_share}.get(name, network_share_openvino)(dtype, int(height), int(width))
    else:
        result = time_contender(name, dtype, int(height), int(width), onnx_file)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
