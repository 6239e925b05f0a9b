"""Seconds per training step: this project against the plain float32 NCHW loop that other projects use.

    python tests/benchmarks/training.py [ROUNDS]
    python tests/benchmarks/training.py --launches
    python tests/benchmarks/training.py --loader  # only the throughput of the loader

Each runs in its own process, in turn, ROUNDS times; medians and their ratios are printed. VGG19 has random weights,
which are as fast as trained ones. bfloat16 is used where the CPU has it in hardware. Times depend on the machine:
compare only ratios of one run.

--launches counts the operations of a step that would start kernels on a GPU, with the optimizers as they run there.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import vgg19

import train_accelerate
from srgan_hub import SRGAN
from srgan_hub.degradations import make_degradation
from srgan_hub.devices import preferred_dtype
from srgan_hub.network.discriminator import Discriminator
from srgan_hub.training.arguments import parse_args, resolve_args
from srgan_hub.training.dataloader import make_batches
from srgan_hub.training.dataset import PreparedImages, RandomCropDataset, Source, TrainingPairs, build_shards
from srgan_hub.training.sources import ImageFolder
from srgan_hub.training.state import TrainContext, TrainState

DTYPE = "bf16" if preferred_dtype(torch.device("cpu")) == torch.bfloat16 else "no"
STEPS = 3
RECIPE = [
    *("--stage", "gan", "--pretrained-model-name-or-path", "srgan-x4-photo", "--batch-size", "8", "--freeze-bn"),
    *("--content-loss", "lite=0.1 l1=0.2", "--lr-consistency", "1", "--checkerboard-weight", "2"),
    *("--adversarial-weight", "0.05", "--discriminator", "patch", "--beta2", "0.99"),
]
# Runs and their baselines.
STEPS_OF = {
    "plain pretrain, batch 16": None,
    "ours, pretrain, batch 16": "plain pretrain, batch 16",
    "plain GAN with VGG54, batch 16": None,
    "ours, GAN with VGG54, batch 16": "plain GAN with VGG54, batch 16",
    "ours, laptop recipe, batch 8": "plain GAN with VGG54, batch 16",
}


class Launches(TorchDispatchMode):
    """Count operations, but for views and allocations, which start no kernel; a list of tensors counts once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = str(function.overloadpacket)
        if not function.is_view and not name.startswith(("aten.empty", "aten.new_empty", "aten.detach")):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def use_fused_adam(state: TrainState) -> None:
    """Replace the optimizers by fused ones, as on a GPU."""
    for name, optimizer in state.optimizers.items():
        state.optimizers[name] = torch.optim.Adam(optimizer.param_groups[0]["params"], betas=(0.9, 0.999), fused=True)


def random_vgg() -> nn.Sequential:
    """VGG19 up to 5_4 and its activation, with random weights."""
    with torch.device("meta"):  # does not initialize the classifier's 120 million weights
        features = vgg19(weights=None).features[:36]
    for parameter in features.to_empty(device="cpu").parameters():
        nn.init.normal_(parameter, std=0.02)
    return features.eval().requires_grad_(False)


def plain_pretrain(batch: int = 16) -> Callable[[], None]:
    """A common SRResNet training step: NCHW, float32."""
    generator = SRGAN().generator.train()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4)
    lr, hr = torch.rand(batch, 3, 24, 24), torch.rand(batch, 3, 96, 96)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(generator(lr), hr).backward()
        optimizer.step()

    return step


def plain_gan(batch: int = 16) -> Callable[[], None]:
    """A common SRGAN training step with VGG54, which also computes unused gradients of the discriminator."""
    generator, discriminator = SRGAN().generator.train(), Discriminator().train()
    vgg = random_vgg()
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4) for network in (generator, discriminator)]
    lr, hr = torch.rand(batch, 3, 24, 24), torch.rand(batch, 3, 96, 96)
    real, fake = torch.ones(batch, 1), torch.zeros(batch, 1)

    def step() -> None:
        sr = generator(lr)
        optimizers[1].zero_grad()
        loss = F.binary_cross_entropy_with_logits(discriminator(hr), real)
        loss = loss + F.binary_cross_entropy_with_logits(discriminator(sr.detach()), fake)
        loss.backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        adversarial = F.binary_cross_entropy_with_logits(discriminator(sr), real)
        (F.mse_loss(vgg(sr), vgg(hr)) + 1e-3 * adversarial).backward()
        optimizers[0].step()

    return step


def build(directory: Path, *argv: str) -> tuple[TrainContext, TrainState]:
    """Build a run on random images."""
    (directory / "images").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / "images" / f"{i}.png")
    vgg = {f"features.{key}": value for key, value in random_vgg().state_dict().items()}
    save_file(vgg, directory / "vgg.safetensors")
    data = ["--train-data", str(directory / "images"), "--output-dir", str(directory / "out"), "--report-to", "none"]
    data += ["--mixed-precision", DTYPE, "--vgg-weights", str(directory / "vgg.safetensors")]
    args = parse_args([*data, *argv])
    base = args.pretrained_model_name_or_path
    model = SRGAN.from_pretrained(base) if base else None
    return train_accelerate.build(resolve_args(args, model.config if model else None), model)


def ours(directory: Path, *argv: str) -> tuple[Callable[[], None], list[float]]:
    """A step of train_accelerate.py, including data, moving average and metrics, and its waiting times for data."""
    run, state = build(directory, *argv)
    batches, waits = make_batches(run, 0, 0), []

    def step() -> None:
        names, values = train_accelerate.train_step(run, state, batches)
        waits.append(values[names.index("wait")].item())

    return step, waits


def time_steps(name: str) -> dict[str, float]:
    """Return the median seconds of a step after a warm-up step, and of its waiting for data."""
    waits: list[float] = [0.0]
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        if name.startswith("plain"):
            step = plain_gan() if "GAN" in name else plain_pretrain()
        else:
            step, waits = ours(
                directory, *(RECIPE if "recipe" in name else ["--stage", "gan"] if "GAN" in name else [])
            )
        seconds = []
        for _ in range(STEPS + 1):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "wait": statistics.median(waits)}


def count_launches(*argv: str) -> Counter[str]:
    """Return the operations of the second step on two crops, without those of the data."""
    with tempfile.TemporaryDirectory() as temporary:
        run, state = build(Path(temporary), "--batch-size", "2", *argv)
        use_fused_adam(state)
        pairs = [*itertools.islice(make_batches(run, 0, 0), 2 * run.config.gradient_accumulation_steps)]
        batches = iter(pairs)
        train_accelerate.train_step(run, state, batches)
        with Launches() as launches:
            train_accelerate.train_step(run, state, batches)
    return launches.counts


def print_launches() -> None:
    for title, argv in (("pretrain", ()), ("GAN with VGG54", ("--stage", "gan"))):
        counts = count_launches("--mixed-precision", "no", *argv)
        frequent = ", ".join(f"{name.removeprefix('aten.')} {count}" for name, count in counts.most_common(8))
        print(f"{title}: {sum(counts.values())} launches a step: {frequent}")


def make_images(directory: Path, suffix: str) -> Path:
    """Write four images of gradients and noise, as large as DIV2K's and with files of about the same size."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:1356, :2040]
    directory.mkdir()
    for i in range(4):
        ramps = np.stack([rows // 8, columns // 8, (rows + columns) // 16], axis=2) % 224
        noisy = (ramps + random.integers(0, 16, ramps.shape)).astype(np.uint8)
        Image.fromarray(noisy).save(directory / f"{i}.{suffix}", **({"quality": 90} if suffix == "jpg" else {}))
    return directory


def crops_per_second(pairs: TrainingPairs, seconds: float = 1.0, batch: int = 16) -> float:
    """Return the best of three rounds, in crops per second of CPU time, after a warm-up batch."""
    pairs[range(batch)]
    best, first = 0.0, 0
    for _ in range(3):
        start, count = time.process_time(), 0
        while (passed := time.process_time() - start) < seconds:
            pairs[range(first, first + batch)]
            first, count = first + batch, count + batch
        best = max(best, count / passed)
    return best


def time_loader() -> None:
    """Print the throughput of one DataLoader worker."""
    torch.set_num_threads(1)
    print("HR crops of 96 pixels, read and degraded, a second and core:")
    print(f"{'':12}" + "".join(f"{name:>12}" for name in ("bicubic", "real-world")))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        pngs, jpegs = (make_images(directory / suffix, suffix) for suffix in ("png", "jpg"))
        images = {
            "shards": PreparedImages(build_shards(pngs, directory / "shards")),
            "JPEG files": PreparedImages(build_shards(jpegs, directory / "jpegs", store=False), ImageFolder(jpegs)),
            "PNG files": PreparedImages(build_shards(pngs, directory / "pngs", store=False), ImageFolder(pngs)),
        }
        for name, prepared in images.items():
            crops = RandomCropDataset([Source(prepared)], size=96, seed=0)
            degradations = (make_degradation(each, scale=4) for each in ("bicubic", "real-world"))
            rates = [crops_per_second(TrainingPairs(crops, degrade, 0)) for degrade in degradations]
            print(f"{name:12}" + "".join(f"{rate:12,.0f}" for rate in rates))


def main(rounds: int = 3) -> None:
    found = defaultdict(list)
    for _ in range(rounds):
        for name in STEPS_OF:
            command = [sys.executable, __file__, "--time", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {name: statistics.median(each["seconds"] for each in times) for name, times in found.items()}
    print(f"{torch.get_num_threads()} threads, --mixed-precision {DTYPE}, median of {rounds}")
    for name, baseline in STEPS_OF.items():
        ratio = f"{seconds[baseline] / seconds[name]:6.2f} times as fast" if baseline else ""
        print(f"{name:32} {seconds[name]:7.3f} s {ratio}")
    wait = statistics.median(each["wait"] for each in found["ours, laptop recipe, batch 8"])
    share = wait / seconds["ours, laptop recipe, batch 8"]
    print(f"loading and degrading data: {100 * share:.2f} % of a step of the laptop recipe")
    time_loader()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time"]:
        print(json.dumps(time_steps(sys.argv[2])))
    elif sys.argv[1:2] == ["--launches"]:
        print_launches()
    elif sys.argv[1:2] == ["--loader"]:
        time_loader()
    else:
        main(*map(int, sys.argv[1:]))
