"""Seconds a training step, side by side: the plain float32 NCHW loop that other projects run, and this project's.

    python tests/benchmarks/training.py [ROUNDS]

One step of each in turn, ROUNDS times; the medians and their ratios are printed. VGG19 gets random weights, which cost
as much as trained ones. bfloat16 is used where the processor has it in hardware. Results depend on the machine: only
the ratios of one run say something.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import vgg19

import train_accelerate
from srgan_hub import SRGAN
from srgan_hub.devices import fast_dtype
from srgan_hub.network.discriminator import Discriminator

PRECISION = "bf16" if fast_dtype(torch.device("cpu")) == torch.bfloat16 else "no"


def random_vgg() -> nn.Sequential:
    """VGG19 up to 5_4 and its activation, with random weights."""
    with torch.device("meta"):  # the classifier's 120 million weights are not drawn
        features = vgg19(weights=None).features[:36]
    for parameter in features.to_empty(device="cpu").parameters():
        nn.init.normal_(parameter, std=0.02)
    return features.eval().requires_grad_(False)


def plain_pretrain(batch: int = 16) -> Callable[[], None]:
    """SRResNet as it is written everywhere: NCHW, float32."""
    generator = SRGAN().generator.train()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4)
    lr, hr = torch.rand(batch, 3, 24, 24), torch.rand(batch, 3, 96, 96)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(generator(lr), hr).backward()
        optimizer.step()

    return step


def plain_gan(batch: int = 16) -> Callable[[], None]:
    """SRGAN with VGG54 as it is written everywhere: the generator's gradients run into the discriminator too."""
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


def ours(folder: Path, name: str, *argv: str) -> tuple[Callable[[], None], list[float]]:
    """A step of train_accelerate.py, with its data, average and metrics; and the list of its waits for data."""
    AcceleratorState._reset_state(reset_partial_state=True)
    args = train_accelerate.parse_args(
        ["--train-data", str(folder / "pictures"), "--output-dir", str(folder / name), "--tracker", "none", *argv]
    )
    args.command = name
    model = SRGAN.from_pretrained(args.init_from) if args.init_from else None
    train_accelerate.complete_args(args, model.config if model else None)
    run = train_accelerate.start(args, model)
    batches, waits = train_accelerate.make_batches(run, 0), []
    return lambda: waits.append(train_accelerate.train_step(run, batches)["wait"]), waits


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pictures").mkdir()
        for i in range(8):
            levels = np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8)
            Image.fromarray(levels).save(folder / "pictures" / f"{i}.png")
        save_file(
            {f"features.{name}": value for name, value in random_vgg().state_dict().items()},
            folder / "vgg.safetensors",
        )
        vgg = ["--vgg-weights", str(folder / "vgg.safetensors")]
        recipe = ["--stage", "gan", "--init-from", "srresnet-x4", "--batch-size", "8", "--freeze-bn"]
        recipe += ["--content-loss", "lite=0.1 l1=0.2", "--lr-consistency", "1", "--lattice-weight", "2"]
        recipe += ["--adversarial-weight", "0.01", "--discriminator", "patch", "--beta2", "0.99"]
        precision = ["--mixed-precision", PRECISION]
        ours_pretrain, _ = ours(folder, "pretrain", *precision)
        ours_gan, _ = ours(folder, "gan", "--stage", "gan", *vgg, *precision)
        ours_recipe, waits = ours(folder, "recipe", *recipe, *precision)
        steps = {
            "plain pretrain, batch 16": plain_pretrain(),
            "ours": ours_pretrain,
            "plain GAN with VGG54, batch 16": plain_gan(),
            "ours, the same": ours_gan,
            "ours, laptop recipe, batch 8": ours_recipe,
        }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(rounds + 1):
            for name, step in steps.items():
                begin = time.perf_counter()
                step()
                if number:  # the first one warms up
                    seconds[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        print(f"{torch.get_num_threads()} threads, --mixed-precision {PRECISION}, median of {rounds}")
        baselines = dict(zip(steps, [None, *list(steps)[:1], None, *[list(steps)[2]] * 2], strict=True))
        for name, median in medians.items():
            baseline = baselines[name]
            ratio = f"{medians[baseline] / median:6.2f} times as fast" if baseline else ""
            print(f"{name:32} {median:7.3f} s {ratio}")
        share = statistics.median(waits[1:]) / medians["ours, laptop recipe, batch 8"]
        print(f"waiting for data and degrading it, of a laptop-recipe step: {100 * share:.2f} %")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
