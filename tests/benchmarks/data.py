"""Time random crops from shards, decoding a PNG for each crop, and the degradation of a batch.

    python tests/benchmarks/data.py [--data FOLDER]

One process. Without a folder, images of noise and gradients are made, as large as DIV2K's.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from srgan_hub.degradations import make_degradation
from srgan_hub.training.dataset import RandomCropDataset, build_shards

SIZE = 96
BATCH = 16


def make_images(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:1356, :2040]
    for i in range(count):
        ramps = np.stack([rows // 8, columns // 8, (rows + columns) // 16], axis=2) % 224
        noisy = ramps + random.integers(0, 32, ramps.shape)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i:04d}.png", compress_level=1)
    return folder


def copy_as_png(data: Path, shards: Path, folder: Path, count: int) -> list[Path]:
    paths = []
    for number, (_, name, _, _) in enumerate(RandomCropDataset(shards, size=SIZE, seed=0).images[:count]):
        paths.append(folder / f"{number:04d}.png")
        Image.open(data / name).convert("RGB").save(paths[-1])
    return paths


def per_second(call: Callable[[int], object], seconds: float) -> float:
    """Return the best time of three rounds of `seconds` each, after one warm-up call."""
    call(0)
    best, i = 0.0, 0
    for _ in range(3):
        start, first = time.perf_counter(), i
        while (passed := time.perf_counter() - start) < seconds:
            call(i)
            i += 1
        best = max(best, (i - first) / passed)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of images; made up if not given")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pngs").mkdir()
        data = arguments.data or make_images(folder / "pngs", 8)
        start = time.perf_counter()
        shards = build_shards(data, folder / "shards", min_size=SIZE)
        crops = RandomCropDataset(shards, size=SIZE, seed=0)
        print(f"prepared {len(crops.images)} images in {time.perf_counter() - start:.1f} s\n")
        pngs = sorted(data.glob("*.png")) if arguments.data is None else copy_as_png(data, shards, folder / "pngs", 16)
        random = np.random.default_rng(0)

        def decode_and_crop(i: int) -> np.ndarray:
            image = np.asarray(Image.open(pngs[i % len(pngs)]).convert("RGB"))
            y, x = (random.integers(side - SIZE + 1) for side in image.shape[:2])
            return image[y : y + SIZE, x : x + SIZE].copy()

        shrunk = RandomCropDataset(shards, size=SIZE, seed=0, downscale_prob=1.0)
        rates = {
            "from shards": per_second(crops.__getitem__, arguments.seconds),
            "from shards, shrunk from a larger window": per_second(shrunk.__getitem__, arguments.seconds),
            "decoding a PNG for each": per_second(decode_and_crop, arguments.seconds),
        }
        print(f"random {SIZE}x{SIZE} crops a second, one process, {torch.get_num_threads()} threads:")
        for name, rate in rates.items():
            print(f"  {name:42} {rate:9,.0f}   {rate / rates['decoding a PNG for each']:8,.1f} times")
        batch = torch.stack([crops[i] for i in range(BATCH)])
        print(f"\nms to degrade a batch of {BATCH}, scale 4:")
        for name in ("bicubic", "gaussian", "real-world"):
            degrade = make_degradation(name, scale=4)

            def call(i: int, degrade=degrade) -> torch.Tensor:
                return degrade(batch, range(i * BATCH, i * BATCH + BATCH), 0)

            print(f"  {name:42} {1000 / per_second(call, arguments.seconds):9.1f}")


if __name__ == "__main__":
    main()
