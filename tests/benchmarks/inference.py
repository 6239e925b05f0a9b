"""Measure the speed and memory of upscaling on a CPU, compared with other programs.

    python tests/benchmarks/inference.py [--size H W] [--only NAME ...] [--runs N] [--json]   time of all contenders
    python tests/benchmarks/inference.py --streaming [--backend NAME]   strips and batches compared with one pass
    python tests/benchmarks/inference.py --memory [--backend NAME]      peak memory of the command line
    python tests/benchmarks/inference.py --startup                      imports, and a small image on the command line
    python tests/benchmarks/inference.py --line [--backend NAME]        linear fit of time against image size
    python tests/benchmarks/inference.py --quality --data DIRECTORY     scores of UpscalerJS's models and ours
    python tests/benchmarks/inference.py --processes                    a directory with one process and with two

Figures are medians of interleaved runs, each contender in a separate process. Requires the extra [bench].
"""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import CONTENDERS, MODEL, UpscalerJS, make_image
from PIL import Image
from torch import nn

from srgan_hub import SRGAN
from srgan_hub.backends.openvino_backend import OpenVINOBackend
from srgan_hub.backends.torch_backend import CPU_PIXELS
from srgan_hub.devices import preferred_dtype
from srgan_hub.evaluate.datasets import PairedDataset
from srgan_hub.evaluate.evaluate import score_pair
from srgan_hub.evaluate.scorers import make_scorers
from srgan_hub.export import export_onnx
from srgan_hub.hub import WEIGHTS, bundled_model_path

FOLDER = Path(__file__).parent
RATIOS = FOLDER / "ratios.json"
OURS = "srgan_hub"
# Also measured in bfloat16, if the CPU has it.
IN_HALF = ("openvino_plain", "openvino", OURS, "srgan_hub_openvino", "compact", "span")
# Smaller networks with other results.
RIVALS = ("compact", "span", "upscalerjs_slim", "upscalerjs_thick")
TITLES = {
    "pytorch": "PyTorch, the plain network",
    "onnxruntime": "ONNX Runtime, our export",
    "openvino_plain": "OpenVINO, the plain network",
    "openvino": "OpenVINO, our export",
    OURS: "srgan-hub, backend torch",
    "srgan_hub_openvino": "srgan-hub, backend openvino",
    "compact": "PyTorch, Real-ESRGAN's Compact (32 convolutions), random weights",
    "upscalerjs_slim": "UpscalerJS in node, esrgan-slim",
    "upscalerjs_thick": "UpscalerJS in node, esrgan-thick",
    "span": "PyTorch, SPAN (48 channels), random weights",
}

Report = dict[str, Any]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="size of the LR image")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], help="contenders")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: PyTorch's choice")
    parser.add_argument("--backend", choices=("torch", "openvino"), default="torch", help="backend of the other modes")
    parser.add_argument("--data", type=Path, help="ground truth, for --quality")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--write-ratios", action="store_true", help=f"write the ratios to {RATIOS.name}")
    mode = parser.add_mutually_exclusive_group()
    for name, text in (
        ("streaming", "strips and batches compared with one pass (default size: 512 512)"),
        ("memory", "peak memory (default size: 3000 4000)"),
        ("startup", "time to the first result"),
        ("line", "time against size, from 64x64 (default largest: 1024 1024)"),
        ("quality", "scores of UpscalerJS's models and ours on --data"),
        ("processes", "sixteen images by one process and by two, each on one thread (default size: 128 128)"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    measure, sizes = {
        "streaming": (streaming, (512, 512)),
        "memory": (memory, (3000, 4000)),
        "startup": (startup, (64, 64)),
        "quality": (quality, (0, 0)),
        "line": (line, (1024, 1024)),
        "processes": (processes, (128, 128)),
        None: (compare, (256, 256)),
    }[arguments.mode]
    report = {"machine": machine(arguments.threads), "runs": arguments.runs}
    report |= measure(*(arguments.size or sizes), arguments)
    if arguments.write_ratios and arguments.mode is None:
        recorded = json.loads(RATIOS.read_text(encoding="utf-8"))
        recorded[torch.backends.cpu.get_cpu_capability()] = {key: report[key] for key in ("size", "ratios", "machine")}
        RATIOS.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2) if arguments.json else to_markdown(report))


def compare(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Time every contender, and the best rate of convolutions."""
    half = preferred_dtype(torch.device("cpu")) == torch.bfloat16
    names = [(name, "fp32") for name in arguments.only]
    names += [(name, "bf16") for name in arguments.only if half and name in IN_HALF]
    rates = [("best_rate", dtype) for dtype in ("fp32", "bf16")[: 1 + half]]
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        model = SRGAN.from_pretrained(MODEL)
        onnx_file = folder + "/model.onnx"
        if {"onnxruntime", "openvino"} & {*arguments.only}:
            export_onnx(model, Path(onnx_file))
        for _ in range(arguments.runs):
            for name, dtype in [*rates, *names]:
                found[name, dtype].append(run(name, dtype, height, width, arguments.threads, onnx_file))
    reference = np.array(found[names[0]][0]["thumbnail"])
    for key in names:
        if key[0] in RIVALS:
            continue
        difference = np.abs(np.array(found[key][0]["thumbnail"]) - reference).max()
        if difference > (0.003 if key[1] == "fp32" else 0.1):
            raise SystemExit(f"{key} computes something else: a difference of {difference:.3f}")
    seconds = {key: statistics.median(each["seconds"] for each in found[key]) for key in names}
    best = {dtype: max(each["gflops"] for each in found["best_rate", dtype]) for _, dtype in rates}
    gflop = count_flop(model.generator, height * width) / 1e9
    rows = [
        {
            "contender": TITLES[name],
            "dtype": dtype,
            "seconds": round(time, 3),
            **{f"{p} ours is faster": round(time / seconds[OURS, p], 2) for p in best if (OURS, p) in seconds},
            "GFLOP/s": "" if name in RIVALS else round(gflop / time, 1),
            "of the best rate": "" if name in RIVALS else f"{gflop / time / best[dtype]:.0%}",
            "peak MB": round(max(each["peak_mb"] for each in found[name, dtype])),
        }
        for (name, dtype), time in seconds.items()
    ]
    ratios = {
        dtype: {f"{name} {p}": round(time / seconds[OURS, dtype], 3) for (name, p), time in seconds.items()}
        for dtype in best
        if (OURS, dtype) in seconds
    }
    notes = [f"{gflop:.0f} GFLOP by the plain network; best rate of a convolution here: {best} GFLOP/s"]
    notes += [] if half else ["bfloat16 is not measured: this CPU has neither avx512_bf16 nor amx_bf16"]
    return {"size": [height, width], "rows": rows, "ratios": ratios, "notes": notes}


def streaming(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Time the whole image, strips of several heights, and as many pixels in images of 64x64."""
    model = SRGAN.from_pretrained(MODEL)
    image = make_image(height, width)
    heights = [height, *(max(1, 2**power // width) for power in range(12, 17))]
    prepare = functools.partial(model.upscaler, device="cpu", backend=arguments.backend)
    upscalers = {f"strips of {rows} rows": prepare(strip_height=rows) for rows in heights}
    default = prepare()
    small = [image[y : y + 64, x : x + 64] for y in range(0, height - 63, 64) for x in range(0, width - 63, 64)]
    size = default.max_batch_size(64, 64)

    def whole(upscaler: Any) -> Callable[[], object]:
        return lambda: upscaler.upscale(image)

    calls: dict[str, Callable[[], object]] = {name: whole(upscaler) for name, upscaler in upscalers.items()}
    calls["strips of the default height"] = whole(default)
    calls[f"{len(small)} images of 64x64, {size} at once"] = lambda: [
        default.upscale_batch(small[i : i + size]) for i in range(0, len(small), size)
    ]
    calls[f"{len(small)} images of 64x64, one by one"] = lambda: [default.upscale(each) for each in small]
    default.upscale(image)
    times = take_turns(calls, arguments.runs)
    first = next(iter(times.values()))
    rows = [
        {"what": name, "seconds": round(time, 3), "of the whole image": round(time / first, 3)}
        for name, time in times.items()
    ]
    pixels = {"torch": CPU_PIXELS, "openvino": OpenVINOBackend.strip_pixels}[arguments.backend]
    notes = [f"backend {arguments.backend}; the default strip has {pixels} pixels"]
    return {"size": [height, width], "rows": rows, "notes": notes}


def memory(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Measure the peak of the command line, and what the network takes of it at two heights."""
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/image.png"
        Image.fromarray(make_image(height, width)).save(source, compress_level=1)
        command = [sys.executable, "-m", "srgan_hub", "upscale", source, "--backend", arguments.backend]
        command += ["--threads", str(arguments.threads)]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} failed with status {status}")
    # Linux counts in kB.
    rows = [{"what": "command line, to PNG", "peak MB": round(usage.ru_maxrss * 1024 / 1e6), "s": round(seconds, 1)}]
    for rows_of_lr in (64, 128):
        name = "network_share" if arguments.backend == "torch" else "network_share_openvino"
        share = run(name, "fp32", rows_of_lr, width, arguments.threads, "")["share_mb"]
        rows.append(
            {"what": f"of these the network's tensors, at {rows_of_lr} x {width}", "peak MB": round(share), "s": ""}
        )
    return {"size": [height, width], "rows": rows, "notes": []}


def startup(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Time imports, and the command line with a small image."""
    weights = bundled_model_path(MODEL) / WEIGHTS
    codes = {
        "import torch": "import torch",
        "import srgan_hub": "import srgan_hub",
        "import torch, load the weights": f"import torch, safetensors.torch as s; s.load_file({str(weights)!r})",
    }
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/image.png"
        Image.fromarray(make_image(height, width)).save(source)
        commands = {name: ["-c", code] for name, code in codes.items()}
        commands[f"upscale {height}x{width}"] = ["-m", "srgan_hub", "upscale", source, "--overwrite"]
        calls = {
            name: lambda c=command: subprocess.run([sys.executable, *c], check=True, capture_output=True)  # type: ignore[misc]
            for name, command in commands.items()
        }
        for call in calls.values():
            call()
        times = take_turns(calls, arguments.runs)
    rows = [{"what": name, "seconds": round(time, 2)} for name, time in times.items()]
    torch_alone, ours, loaded, upscaled = times.values()
    notes = [
        f"srgan_hub takes {ours - torch_alone:.2f} s in addition to torch",
        f"the command line takes {upscaled / loaded:.2f} times as long as importing torch and loading the weights",
    ]
    return {"size": [height, width], "rows": rows, "notes": notes}


def line(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Time images of one shape in several sizes, and fit a straight line."""
    upscaler = SRGAN.from_pretrained(MODEL).upscaler(device="cpu", dtype="fp32", backend=arguments.backend)
    sides = [(height // part, width // part) for part in (16, 8, 4, 3, 2, 1) if height // part >= 64]
    calls = {side: functools.partial(upscaler.upscale, make_image(*side)) for side in sides}
    for call in [*calls.values()][:3]:
        call()
    times = take_turns(calls, arguments.runs)  # type: ignore[arg-type]
    pixels = np.array([h * w / 1e6 for h, w in sides])
    seconds = np.array([*times.values()])
    weights = 1 / seconds  # a second counts as much in a small image's time as its part of it
    slope, start = np.polyfit(pixels, seconds, 1, w=weights)
    rows = [
        {"LR": f"{w}x{h}", "seconds": round(time, 3), "a megapixel of LR": round(time / pixel, 2),
         "of the line": round(time / (slope * pixel + start), 3)}
        for (h, w), time, pixel in zip(sides, seconds.tolist(), pixels.tolist(), strict=True)
    ]  # fmt: skip
    notes = [f"the line: {start:.3f} s and {slope:.2f} s for a megapixel of LR; backend {arguments.backend}"]
    return {"size": [height, width], "rows": rows, "notes": notes}


def quality(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Score UpscalerJS's models as `evaluate` scores ours."""
    scorers, _ = make_scorers(
        ["psnr_y", "ssim_y", "lr_consistency", "high_freq_ratio"], crop_border=4, scale=4, device="cpu"
    )
    ours = ("srgan-x4-photo", "srresnet-x4-photo", MODEL, "srresnet-x4")
    upscalers = {name: SRGAN.from_pretrained(name).upscaler(device="cpu", dtype="fp32") for name in ours}
    theirs = {f"UpscalerJS, esrgan-{kind}": UpscalerJS(kind) for kind in ("slim", "thick")}
    scores = defaultdict(list)
    for pair in PairedDataset(arguments.data, scale=4):
        outputs = {name: upscaler.upscale(pair.lr) for name, upscaler in upscalers.items()}
        outputs |= {name: np.rint(model(pair.lr) * 255).astype(np.uint8) for name, model in theirs.items()}
        for name, by_name in score_pair(pair, outputs, scorers).items():
            scores[name].append(by_name)
    rows = [
        {"model": name, **{score: round(np.mean([each[score] for each in all_]), 3) for score in scorers}}  # type: ignore[arg-type]
        for name, all_ in scores.items()
        if len(all_[0]) == len(scorers)
    ]
    return {"size": [0, 0], "rows": rows, "notes": [f"{arguments.data.name}, LR by MATLAB's bicubic"]}


def processes(height: int, width: int, arguments: argparse.Namespace) -> Report:
    """Time a folder by one process and by two that share it out, each on one thread, and on a core of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "in")
        sources.mkdir()
        for number in range(16):
            Image.fromarray(make_image(height, width)).save(sources / f"{number}.png")
        command = ["-m", "srgan_hub", "upscale", str(sources), "--threads", "1", "--backend", "torch", "--overwrite"]
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
        calls = {
            "one process": lambda: subprocess.run(
                ["taskset", "-c", "0", sys.executable, *command, "--output", folder + "/one"], check=True, stdout=-3
            ),
            "two processes": lambda: subprocess.run(
                [sys.executable, *launch, *command, "--output", folder + "/two"], check=True, stdout=-3, stderr=-3
            ),
        }
        times = take_turns(calls, arguments.runs)
    first = next(iter(times.values()))
    rows = [{"what": name, "s": round(time, 2), "of one": round(time / first, 3)} for name, time in times.items()]
    return {"size": [height, width], "rows": rows, "notes": ["16 images, from start to end of the command"]}


def run(name: str, dtype: str, height: int, width: int, threads: int, onnx_file: str) -> dict[str, Any]:
    """Run a contender in a process of its own."""
    command = [sys.executable, str(FOLDER / "contenders.py"), name, dtype, str(height), str(width), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*command, onnx_file], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} {dtype} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Give the median seconds of each call."""
    times = defaultdict(list)
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def count_flop(network: nn.Module, pixels: int) -> int:
    """Count the convolutions' multiplications and additions, for so many LR pixels."""
    flop = 0
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            flop += 2 * layer.weight.numel() * pixels
        elif isinstance(layer, nn.PixelShuffle):
            pixels *= layer.upscale_factor**2
    return flop


def machine(threads: int) -> str:
    """Name the CPU and the versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = []
    for package in ("torch", "onnxruntime", "openvino"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{model} ({torch.backends.cpu.get_cpu_capability()}), {threads} threads; {', '.join(versions)}"


def to_markdown(report: Report) -> str:
    height, width = report["size"]
    columns = list(report["rows"][0])
    table = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in report["rows"])]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    head = f"{height}x{width} LR, median of {report['runs']}. {report['machine']}."
    return "\n".join([head, "", *lines, "", *(f"* {note}" for note in report["notes"])])


if __name__ == "__main__":
    main()
