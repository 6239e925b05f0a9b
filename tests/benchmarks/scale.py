"""CPU seconds of an image, and images a second of the Ray recipe in docs/scale.md, with one and with two workers.

Usage: python tests/benchmarks/scale.py [images] [side] [rounds]. Requires the extra [ray]. The start of Ray and the
loading of the model are not counted: the time is that from the first output to the last one.
"""

import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import ray
import torch
from PIL import Image

from srgan_hub import SRGAN

ROOT = Path(__file__).parent.parent.parent


def print_cpu_seconds(image: Image.Image) -> None:
    """Upscale an image with one thread and encode it as PNG. CPU seconds depend little on what else is running."""
    torch.set_num_threads(1)
    for dtype in ("float32", "auto"):
        upscaler = SRGAN.from_pretrained("srgan-x4-photo").upscaler(dtype=dtype)
        upscaler.upscale(image)
        file, start = io.BytesIO(), time.process_time()
        upscaler.upscale(image).save(file, "PNG")
        seconds, size = time.process_time() - start, len(file.getvalue())
        print(f"{dtype}: {seconds:.2f} CPU seconds for {image.width}x{image.height} pixels, {size:,} bytes of PNG")


def measure(code: str, workers: int) -> float:
    """Upscale the images in album/ to album-x4/, and return images a second."""
    exec(code.replace("size=2", f"size={workers}"), {})
    times = sorted(path.stat().st_mtime for path in Path("album-x4").glob("*.png"))
    for path in Path("album-x4").glob("*.png"):
        path.unlink()
    return (len(times) - workers) / (times[-1] - times[workers - 1])


def main(images: int = 16, side: int = 256, rounds: int = 2) -> None:
    page = (ROOT / "srgan_hub" / "docs" / "scale.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0].split("for shard")[0]
    with tempfile.TemporaryDirectory() as directory, Image.open(ROOT / "srgan_hub" / "examples" / "cat.png") as cat:
        print_cpu_seconds(cat.convert("RGB").resize((side, side)))
        os.chdir(directory)
        ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
        Path("album").mkdir()
        for number in range(images):
            cat.convert("RGB").resize((side, side), box=(number, number, cat.width, cat.height)).save(
                f"album/{number:03d}.jpg"
            )
        for _ in range(rounds):
            for workers in (1, 2):
                # Small batches keep both workers busy to the end.
                rate = measure(code.replace("batch_size=8", f"batch_size={max(1, images // 8)}"), workers)
                print(f"{workers} worker(s): {rate:.3f} images of {side}x{side} pixels a second", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
