"""Train SRResNet and SRGAN: from DIV2K to published weights, or overnight on a laptop.

    accelerate launch train_accelerate.py --stage pretrain --train-data div2k --val-data div2k --output-dir srresnet
    accelerate launch train_accelerate.py --stage gan --init-from srresnet/final --train-data div2k --output-dir srgan

The same command runs on one processor, one GPU, several GPUs and several machines. Everything random is a function of
(seed, sample index), and the sample index follows from the step: a run that was killed goes on with --resume as if
nothing had happened, on a processor to the last bit.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

# Each step takes and frees gigabytes: in huge pages, which Linux hands out far faster than small ones. torch asks for
# them if it finds this when it is loaded.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from huggingface_hub.constants import HF_HOME
from huggingface_hub.utils import WeakFileLock
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from srgan_hub import SRGAN, metrics
from srgan_hub.card import inherit, make_eval_results
from srgan_hub.degrade import make_degradation
from srgan_hub.hub import PublishError, push, resolve
from srgan_hub.network.discriminator import Discriminator, build_patch_discriminator
from srgan_hub.network.fuse import PolyphaseTail
from srgan_hub.pictures import files
from srgan_hub.pictures.resize import bicubic
from srgan_hub.training import checkpoint, losses
from srgan_hub.training.average import EMA
from srgan_hub.training.dataset import INDEX, Crops, prepare, read_index
from srgan_hub.training.div2k import VALID, download, prepare_div2k

logger = logging.getLogger("train_accelerate")

# What builds a model, and what its config.json holds.
MODEL_OPTIONS = ("scale", "channels", "num_blocks", "upsampler", "trunk_end", "output")
ADVERSARIAL_STEPS_AT_FULL_RATE = 100_000  # the paper's schedule: then a tenth
WON_LOSS, WON_STEPS = 0.01, 50  # when the discriminator has won
GRID_PICTURES, GRID_SIZE, GRID_NAME = 4, 192, "lr | bicubic | sr | hr"
EXPORTED = ("final", "last", "best")  # the models in a run's folder
BEST_CROP = 192  # the middle of a validation picture that the content loss judges
# Arguments that a resumed run may change, since the weights do not depend on them. --steps is looked at by itself, and
# pictures and VGG weights are compared by what they hold.
FREE = {
    *(
        "output_dir",
        "data_dir",
        "train_data",
        "val_data",
        "vgg_weights",
        "workers",
        "threads",
        "tracker",
        "log_every",
        "steps",
    ),
    *("checkpoint_every", "validate_every", "keep", "resume", "dry_run", "license", "data_license", "command"),
    *("push_to_hub", "push_every", "private"),
}


class NonFiniteError(ArithmeticError):
    """A loss is infinite or not a number."""


# ---------------------------------------------------------------------------------------------------------------------
# The command line. The defaults are the paper's.


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line. Defaults that depend on other arguments are filled in by :func:`complete_args`."""
    parser = argparse.ArgumentParser(
        description="Train SRResNet (--stage pretrain) or SRGAN (--stage gan). The defaults are those of Ledig et al.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, flag = parser.add_argument, argparse.BooleanOptionalAction
    # fmt: off
    add("--stage", choices=("pretrain", "gan"), default="pretrain", help="SRResNet alone, or against a discriminator")
    add("--init-from", metavar="FOLDER_OR_NAME_OR_HUB_ID", help="start from this model's weights and architecture")
    add("--train-data", required=True, metavar="FOLDER", help="pictures, a prepared folder, or div2k to download it")
    add("--val-data", metavar="FOLDER", help="pictures to validate on, or div2k; without it nothing is validated")
    add("--output-dir", required=True, type=Path, metavar="FOLDER", help="gets checkpoints, metrics and models")
    add("--data-dir", type=Path, default=Path(HF_HOME) / "srgan-hub", metavar="FOLDER", help="keeps div2k for all runs")
    add("--steps", type=_positive, help="updates of each network (1,000,000 for pretrain, 200,000 for gan)")
    add("--batch-size", type=_positive, default=16, help="crops per process and backward pass")
    add("--accumulate", type=_positive, default=1, help="backward passes per step")
    add("--hr-crop", type=_positive, default=96, help="side of the HR crops: 96 in the paper, 384 in the thesis")
    add("--shrunk", type=_share, default=0.0, help="share of the crops that are shrunk from up to twice the size")
    add("--scale", type=int, help="2, 3 or 4 (4, or that of --init-from)")
    add("--channels", type=_positive, help="feature maps of the generator (64, or those of --init-from)")
    add("--num-blocks", type=_positive, help="residual blocks of the generator (16, or those of --init-from)")
    add("--degradation", choices=("bicubic", "gaussian", "camera"), default="bicubic", help="how LR is made from HR")
    add("--sigma", type=float, nargs=2, metavar=("LOW", "HIGH"), help="blur of gaussian and camera, in HR pixels")
    add("--content-loss", metavar="TERMS",
        help="mse, l1, vgg22, vgg54, lite with weights: 'vgg54=1 mse=0.1' (mse for pretrain, vgg54 for gan)")
    add("--vgg-weights", metavar="FILE", help="VGG19 as .safetensors or .pth, instead of torchvision's download")
    add("--lr-consistency", type=_weight, default=0.0, metavar="W", help="L1 of output to truth, both downscaled")
    add("--artifact-weight", type=_weight, default=0.0, metavar="W", help="L1 where the output has artifacts (LDL)")
    add("--lattice-weight", type=_weight, default=0.0, metavar="W", help="against patterns of the scale's period")
    add("--adversarial-weight", type=_weight, default=1e-3, metavar="W", help="of -log D(G(lr)), for gan")
    add("--discriminator", choices=("paper", "patch"), default="paper", help="patch trains steadily in short runs")
    add("--freeze-bn", action=flag, default=False, help="leave the generator's batch norms as they are")
    add("--learning-rate", type=_weight, default=1e-4, help="of Adam, for the generator")
    add("--discriminator-learning-rate", type=_weight, help="of Adam, for the discriminator (the generator's)")
    add("--beta2", type=_decay, default=0.999, help="of Adam, for both; beta1 is 0.9")
    add("--schedule", choices=("constant", "cosine", "paper"), default="paper",
        help="paper: constant, for gan a tenth after 100,000 steps")
    add("--clip-grad", type=_weight, default=0.0, metavar="NORM", help="largest norm of a gradient; 0 leaves it alone")
    add("--ema", type=_decay, default=0.999, help="decay of the weights' average, which is what is exported")
    add("--workers", type=int, help="processes that read crops (0 on a processor, 2 on a GPU)")
    add("--threads", type=_positive, help="threads of the processor per process (all cores); results depend on them")
    add("--mixed-precision", choices=("no", "bf16", "fp16"), default="no", help="fp16 for GPUs without bf16 only")
    add("--seed", type=int, default=0, help="of weights and samples")
    add("--tracker", choices=("auto", "tensorboard", "trackio", "wandb", "none"), default="auto",
        help="beside metrics.jsonl and pictures/; auto is tensorboard if it is installed")
    add("--log-every", type=_positive, default=50, metavar="N", help="steps between two lines of metrics")
    add("--checkpoint-every", type=_positive, default=1000, metavar="N", help="steps between two checkpoints")
    add("--validate-every", type=_positive, default=5000, metavar="N", help="steps between two validations")
    add("--keep", type=_positive, default=2, metavar="N", help="newest checkpoints to keep")
    add("--resume", nargs="?", const="latest", metavar="PATH", help="go on from the latest checkpoint, or from PATH")
    add("--push-to-hub", metavar="ORG/NAME", help="publish final/ as this model at the end")
    add("--push-every", type=_positive, metavar="N", help="publish last/ every N steps too")
    add("--private", action=flag, default=False, help="create the model on the Hub as a private one")
    add("--license", help="of the weights, for the model card (that of --init-from, or apache-2.0)")
    add("--data-license", metavar="TEXT", help="licence of the training pictures, for the model card")
    add("--dry-run", action=flag, default=False, help="print the plan, train nothing")
    # fmt: on
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text}")
    return value


def _weight(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def _decay(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text}")
    return value


def complete_args(args: argparse.Namespace, config: dict[str, Any] | None) -> None:
    """Fill in the defaults that depend on the stage or on the model to start from, and refuse what does not fit."""
    gan = args.stage == "gan"
    for name, value in (("scale", 4), ("channels", 64), ("num_blocks", 16)):
        given = getattr(args, name)
        if config and given is not None and given != config[name]:
            option = f"--{name.replace('_', '-')} {given}"
            raise ValueError(f"{option}, but {args.init_from} has {config[name]}; leave it out")
        setattr(args, name, config[name] if config else given or value)
    for name, choice in (("upsampler", "pixelshuffle"), ("trunk_end", "batchnorm"), ("output", "sigmoid")):
        setattr(args, name, config[name] if config else choice)
    args.steps = args.steps or (200_000 if gan else 1_000_000)
    args.content_loss = args.content_loss or ("vgg54" if gan else "mse")
    if args.discriminator_learning_rate is None:
        args.discriminator_learning_rate = args.learning_rate
    losses.parse_content_loss(args.content_loss)
    if args.hr_crop % args.scale:
        raise ValueError(f"--hr-crop {args.hr_crop} is not divisible by the scale, {args.scale}")
    if gan and args.discriminator == "paper" and args.hr_crop % 16:
        raise ValueError(f"--hr-crop {args.hr_crop}: the paper's discriminator needs a multiple of 16; patch takes any")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2**63 - 1, got {args.seed}")
    if args.push_to_hub and not re.fullmatch(r"[\w.-]+/[\w.-]+", args.push_to_hub):
        raise ValueError(f"--push-to-hub: expected a Hub id such as org/name, got {args.push_to_hub!r}")
    if args.push_every and not args.push_to_hub:
        raise ValueError("--push-every needs --push-to-hub org/name")
    if args.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("--mixed-precision fp16 needs a GPU; on a processor use bf16 or no")
    if args.sigma and args.degradation == "bicubic":
        raise ValueError("--sigma is for --degradation gaussian or camera; bicubic has no blur of its own")


# ---------------------------------------------------------------------------------------------------------------------
# Data: the position in it is the step.


def prepare_data(args: argparse.Namespace, accelerator: Accelerator) -> tuple[Path, list[Path]]:
    """Give the folder of prepared training pictures, made on first use by rank 0, and the validation pictures."""
    div2k = args.data_dir / "div2k"
    prepared = div2k if args.train_data == "div2k" else args.output_dir / "data"
    archives = div2k.with_name("div2k-pictures")  # as prepare_div2k calls them

    def work() -> None:
        with _Bar() as progress:
            if args.train_data != "div2k":
                prepare(Path(args.train_data), prepared, minimum_size=args.hr_crop, progress=progress)
            if "div2k" not in (args.train_data, args.val_data):
                return
            args.data_dir.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(args.data_dir / ".lock"):  # another run may be fetching it
                if args.train_data == "div2k":
                    prepare_div2k(div2k, progress=progress)
                if args.val_data == "div2k":
                    download(archives, archives=(VALID,), progress=progress)

    if args.train_data != "div2k" and (Path(args.train_data) / INDEX).is_file():
        prepared = Path(args.train_data)
    else:
        on_first_process(accelerator, work)
    folder = archives / VALID.name if args.val_data == "div2k" else args.val_data
    pictures = (
        sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in files.SUFFIXES) if folder else []
    )
    small = [path for path in pictures if min(files.open_header(path).size) < 16 * args.scale]
    for path in small:
        logger.warning("%s is left out of validation: it has less than %d pixels a side", path, 16 * args.scale)
    if folder and len(small) == len(pictures):
        raise ValueError(f"--val-data: there are no pictures of at least {16 * args.scale} pixels a side in {folder}")
    return prepared, [path for path in pictures if path not in small]


def on_first_process(accelerator: Accelerator, work: Callable[[], None]) -> None:
    """Do something on rank 0 while the others wait, however long.

    A barrier would time out under a download or an upload of hours. Here the ranks keep in touch meanwhile.
    """
    if accelerator.num_processes == 1:
        work()
        return
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work) if accelerator.is_main_process else None
        while True:
            running = torch.tensor(float(future is not None and not future.done()), device=accelerator.device)
            if not accelerator.reduce(running, "sum").item():
                break
            time.sleep(0.1)
        if future:
            future.result()


class _Bar:
    """Shows progress(what, done, total) as one bar after another."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.what = ""

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self.update

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.close()

    def update(self, what: str, done: int, total: int) -> None:
        if what != self.what or self.bar is None:
            self.__exit__()
            self.what, self.bar = what, tqdm(total=total, desc=what, unit_scale=total > 1e6)
        self.bar.update(done - self.bar.n)


class Samples(Dataset[tuple[int, Tensor]]):
    """Crops beside their sample index, which the degradation draws from."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.crops[index]


class Positions(Sampler[list[int]]):
    """The sample indices of each backward pass of one rank, from a step on: all ranks' passes tile the integers."""

    def __init__(self, args: argparse.Namespace, start: int, rank: int, ranks: int) -> None:
        self.size, self.first = args.batch_size, start * args.accumulate
        self.passes, self.rank, self.ranks = args.steps * args.accumulate, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.first, self.passes):
            begin = (number * self.ranks + self.rank) * self.size
            yield list(range(begin, begin + self.size))


def make_batches(run: "Run", start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (lr, hr) of each backward pass: NCHW in [0, 1], on the device. Decoded and cropped ahead, degraded here."""
    args, accelerator = run.args, run.accelerator
    workers = args.workers if args.workers is not None else 2 * (accelerator.device.type != "cpu")
    loader = DataLoader(
        Samples(run.crops),
        batch_sampler=Positions(args, start, accelerator.process_index, accelerator.num_processes),
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    for indices, levels in loader:
        levels = levels.to(accelerator.device, non_blocking=True)
        lr = run.degrade(levels, indices.tolist(), args.seed)
        hr = levels.float() / 255
        yield lr.to(memory_format=torch.channels_last), hr.to(memory_format=torch.channels_last)


# ---------------------------------------------------------------------------------------------------------------------
# The networks, and what belongs to them.


@dataclasses.dataclass
class Run:
    """Everything that is being trained or trains, on one rank."""

    args: argparse.Namespace
    accelerator: Accelerator
    config: dict[str, Any]
    crops: Crops
    pictures: list[Path]
    degrade: Callable[..., Tensor]
    content: losses.ContentLoss
    generator: nn.Module
    discriminator: nn.Module | None
    optimizers: dict[str, Any]
    ema: EMA
    step: int = 0
    won: int = 0  # steps in a row at which the discriminator's loss was near 0
    best: float | None = None  # the lowest content loss on the validation pictures
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    signal: str = ""
    unpublished: str = ""  # why the last push failed

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that are being trained, as Accelerate wraps them."""
        return [self.generator] + ([self.discriminator] if self.discriminator else [])


def build_run(args: argparse.Namespace, accelerator: Accelerator, model: SRGAN | None) -> Run:
    """Build networks, optimizers, losses and data. Raises ValueError for whatever does not fit."""
    config = {name: getattr(args, name) for name in MODEL_OPTIONS}
    prepared, pictures = prepare_data(args, accelerator)
    torch.manual_seed(args.seed)
    generator = (model or SRGAN(**config)).generator
    # bfloat16 has steps of a whole level near 1: the last layer runs in float32.
    generator[-1].register_forward_pre_hook(lambda layer, inputs: (inputs[0].float(),))
    generator.to(accelerator.device).to(memory_format=torch.channels_last)
    ema = EMA(generator, args.ema)
    generator.train()
    if args.freeze_bn:
        freeze_batch_norm(generator)
    networks: dict[str, nn.Module] = {"generator": PolyphaseTail(OrderedDict(generator.named_children()))}
    rates = {"generator": args.learning_rate, "discriminator": args.discriminator_learning_rate}
    if args.stage == "gan":
        discriminator = build_discriminator(args).train()
        networks["discriminator"] = discriminator.to(accelerator.device).to(memory_format=torch.channels_last)
    content = build_content(args, accelerator)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in networks.items()}
    optimizers = {
        name: torch.optim.Adam(
            [p for p in network.parameters() if p.requires_grad], lr=rates[name], betas=(0.9, args.beta2)
        )
        for name, network in networks.items()
    }
    prepared_all = accelerator.prepare(*networks.values(), *optimizers.values())
    wrapped = dict(zip(networks, prepared_all, strict=False))
    return Run(
        args=args,
        accelerator=accelerator,
        config=config,
        crops=Crops(prepared, size=args.hr_crop, seed=args.seed, shrunk=args.shrunk),
        pictures=pictures,
        degrade=make_degradation(
            args.degradation, scale=args.scale, **({"sigma": tuple(args.sigma)} if args.sigma else {})
        ),
        content=content,
        generator=wrapped["generator"],
        discriminator=wrapped.get("discriminator"),
        optimizers=dict(zip(networks, prepared_all[len(networks) :], strict=True)),
        ema=ema,
    )


def build_discriminator(args: argparse.Namespace) -> nn.Module:
    """The paper's for these crops, or the patch one."""
    return Discriminator(hr_size=args.hr_crop) if args.discriminator == "paper" else build_patch_discriminator()


def build_content(args: argparse.Namespace, accelerator: Accelerator) -> losses.ContentLoss:
    """The content loss, on the device, neither prepared nor trained. Weights are downloaded by one rank per machine."""
    with accelerator.local_main_process_first():
        content = losses.ContentLoss(losses.parse_content_loss(args.content_loss), vgg_weights=args.vgg_weights)
    return content.to(accelerator.device)


def freeze_batch_norm(network: nn.Module) -> None:
    """Use the statistics as they are, and train neither them nor the scales: as if folded into the convolutions."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)


def average_batch_norm(run: Run) -> None:
    """Make the ranks' batch norm statistics equal to their mean, since Accelerate is told not to broadcast them."""
    if run.accelerator.num_processes == 1:
        return
    buffers = [
        buffer
        for network in run.networks
        for name, buffer in network.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    mean = run.accelerator.reduce(torch.cat([buffer.flatten() for buffer in buffers]), "mean") if buffers else None
    for buffer in buffers:
        assert mean is not None
        buffer.copy_(mean[: buffer.numel()])
        mean = mean[buffer.numel() :]


# ---------------------------------------------------------------------------------------------------------------------
# One step.


def train_step(run: Run, batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Update each network once, and return the step's losses, gradient norms and times, the means of all ranks."""
    for name, optimizer in run.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(run.args, name, run.step)
    passes, waited = [], 0.0
    for _ in range(run.args.accumulate):
        begin = time.perf_counter()
        lr, hr = next(batches)
        waited += time.perf_counter() - begin
        with run.accelerator.accumulate(*run.networks):
            sr = run.generator(lr)
            values = discriminator_step(run, sr.detach(), hr) if run.discriminator else {}
            passes.append(values | generator_step(run, lr, hr, sr))
    average_batch_norm(run)
    run.ema.update(run.accelerator.unwrap_model(run.generator), run.step)
    seen_in = {name: [each[name].detach().float() for each in passes if name in each] for name in passes[-1]}
    values = {name: torch.stack(each).mean() for name, each in seen_in.items()}
    values["wait"] = torch.tensor(waited, device=run.accelerator.device)
    # One exchange for all: the ranks agree on what they see, and on a signal that one of them got.
    values["signal"] = torch.tensor(float(bool(run.signal)), device=run.accelerator.device)
    mean = run.accelerator.reduce(torch.stack(list(values.values())), "mean").tolist()
    run.step += 1
    return dict(zip(values, mean, strict=True))


def discriminator_step(run: Run, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Teach the discriminator to tell truth from output; no gradient reaches the generator."""
    assert run.discriminator is not None
    real_logits, fake_logits = run.discriminator(hr), run.discriminator(sr)
    loss = losses.discriminator_loss(real_logits, fake_logits)
    run.accelerator.backward(loss)
    real, fake = real_logits.float().sigmoid().mean(), fake_logits.float().sigmoid().mean()
    return {"d_loss": loss, "d_real": real, "d_fake": fake} | update(run, "discriminator")


def generator_step(run: Run, lr: Tensor, hr: Tensor, sr: Tensor) -> dict[str, Tensor]:
    """Bring the output closer to the truth, and past the discriminator."""
    args = run.args
    with run.accelerator.autocast():
        terms = run.content(sr, hr)
    values = {f"g_{name}": term for name, term in terms.items()}
    loss = run.content.total(terms)
    if run.discriminator:
        # Through the bare network: the wrapper would wait for gradients that it does not get here.
        discriminator = run.accelerator.unwrap_model(run.discriminator).requires_grad_(False)
        values["g_adversarial"] = losses.adversarial_loss(discriminator(sr))
        discriminator.requires_grad_(True)
        loss = loss + args.adversarial_weight * values["g_adversarial"]
    if args.lr_consistency:
        values["g_lr_consistency"] = losses.consistency_loss(sr, hr, args.scale)
        loss = loss + args.lr_consistency * values["g_lr_consistency"]
    if args.artifact_weight:
        with torch.no_grad(), run.accelerator.autocast():
            ema_sr = run.ema.network(lr)
        values["g_artifact"] = losses.artifact_loss(sr, hr, ema_sr)
        loss = loss + args.artifact_weight * values["g_artifact"]
    if args.lattice_weight:
        values["g_lattice"] = losses.lattice_loss(sr, hr, args.scale)
        loss = loss + args.lattice_weight * values["g_lattice"]
    run.accelerator.backward(loss)
    return values | {"g_loss": loss} | update(run, "generator")


def update(run: Run, name: str) -> dict[str, Tensor]:
    """Step the optimizer after the last backward pass of a step; return the norm of the gradient then, else nothing."""
    norm, optimizer = {}, run.optimizers[name]
    if run.accelerator.sync_gradients:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm[f"{name[0]}_norm"] = run.accelerator.clip_grad_norm_(parameters, run.args.clip_grad or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def learning_rate_at(args: argparse.Namespace, network: str, step: int) -> float:
    """The learning rate of a step, counted from 0: a function of the step alone, and under cosine of --steps."""
    base = args.learning_rate if network == "generator" else args.discriminator_learning_rate
    if args.schedule == "cosine":
        return base * (1 + math.cos(math.pi * step / args.steps)) / 2
    if args.schedule == "paper" and args.stage == "gan" and step >= ADVERSARIAL_STEPS_AT_FULL_RATE:
        return base / 10
    return base


def check_health(run: Run, values: dict[str, float]) -> None:
    """Stop at a loss that is not finite, and warn when the discriminator has won."""
    for name, value in values.items():
        if name.startswith(("g_", "d_")) and not name.endswith("_norm") and not math.isfinite(value):
            found = checkpoint.find(run.args.output_dir)
            good = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
            raise NonFiniteError(f"{name} is {value} at step {run.step}: stopped, nothing was overwritten; {good}")
    run.won = run.won + 1 if values.get("d_loss", math.inf) < WON_LOSS else 0
    if run.won == WON_STEPS:
        logger.warning(
            "step %d: the discriminator has won: its loss was below %s for %d steps, so the generator learns nothing "
            "from it; try --discriminator patch or a lower --discriminator-learning-rate",
            run.step,
            WON_LOSS,
            WON_STEPS,
        )


# ---------------------------------------------------------------------------------------------------------------------
# Validation: whole pictures, by the streamed upscaler, with the averaged weights.


def averaged_model(run: Run) -> SRGAN:
    """The model as it is exported: the averaged weights, on the CPU."""
    model = SRGAN(**run.config)
    model.generator.load_state_dict(run.ema.network.state_dict())
    return model.eval()


SCORES = (
    *("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb", "bicubic_psnr_y", "lr_consistency", "top_octave"),
    *("lattice_db", "hr_lattice_db", "content"),
)


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Score the averaged generator on the validation pictures, the mean over all ranks, and save a grid of pictures.

    PSNR and SSIM are those of 8-bit pictures, shaved by the scale; "bicubic" is what plain resizing gets.
    """
    args, accelerator = run.args, run.accelerator
    upscaler = averaged_model(run).upscaler(device=accelerator.device, precision="fp32")
    sums: dict[str, Tensor] = {}
    rows, count = [], torch.zeros((), dtype=torch.float64)
    for number in range(accelerator.process_index, len(run.pictures), accelerator.num_processes):
        hr, levels = read_truth(run.pictures[number], args.scale)
        lr = run.degrade(levels, [number], args.seed)
        sr = upscaler.upscale(lr).mul(255).round().div(255)
        plain = bicubic(lr, (hr.shape[2], hr.shape[3])).clamp(0, 1).mul(255).round().div(255)
        scores = {f"{metric.__name__}_{channel}": metric(sr, hr, shave=args.scale, channel=channel)
                  for metric in (metrics.psnr, metrics.ssim) for channel in ("y", "rgb")}  # fmt: skip
        scores["bicubic_psnr_y"] = metrics.psnr(plain, hr, shave=args.scale)
        scores["lr_consistency"] = metrics.lr_consistency(sr, lr)
        scores["top_octave"] = metrics.top_octave_ratio(sr, hr)
        scores["lattice_db"] = metrics.lattice_peak_db(sr, args.scale)
        scores["hr_lattice_db"] = metrics.lattice_peak_db(hr, args.scale)
        middle = [_middle(picture, BEST_CROP).to(accelerator.device) for picture in (sr, hr)]
        scores["content"] = run.content.total(run.content(*middle))[None]
        for name, score in scores.items():
            sums[name] = sums.get(name, 0) + score[0].double().cpu()
        count += 1
        if number // accelerator.num_processes < GRID_PICTURES:
            rows.append(torch.cat([_middle(p, GRID_SIZE) for p in (_repeat(lr, args.scale), plain, sr, hr)], dim=3))
    # A rank without a picture of its own still takes part.
    total = torch.stack([sums.get(name, torch.zeros_like(count)) for name in SCORES] + [count])
    total = accelerator.reduce(total.float().to(accelerator.device), "sum")
    if accelerator.is_main_process and rows:
        save_grid(run, rows)
    return dict(zip(SCORES, (total[:-1] / total[-1]).tolist(), strict=True))


def read_truth(path: Path, scale: int) -> tuple[Tensor, Tensor]:
    """Read a picture, cut to a multiple of the scale: float64 in [0, 1] and uint8 levels, both (1, 3, H, W)."""
    array = np.array(files.read(path).convert("RGB"))
    height, width = (side // scale * scale for side in array.shape[:2])
    levels = torch.from_numpy(array[:height, :width]).permute(2, 0, 1)[None]
    return levels.double() / 255, levels


def save_grid(run: Run, rows: list[Tensor]) -> None:
    """Write rows of LR (enlarged as it is), bicubic, SR and HR to pictures/, and show them to the trackers."""
    width = max(row.shape[3] for row in rows)
    grid = torch.cat([F.pad(row, (0, width - row.shape[3])) for row in rows], dim=2)
    levels = grid[0].mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    folder = run.args.output_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(folder / f"step-{run.step}.png")
    for tracker in run.accelerator.trackers:
        if tracker.name == "trackio":  # Accelerate passes on its numbers alone
            from trackio import Image as TrackioImage

            tracker.log({GRID_NAME: TrackioImage(levels)}, step=run.step)
        elif hasattr(tracker, "log_images"):
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({GRID_NAME: levels[None]}, step=run.step, **layout)


def _middle(picture: Tensor, size: int) -> Tensor:
    top, left = (max(0, (side - size) // 2) for side in picture.shape[2:])
    return picture[:, :, top : top + size, left : left + size].float().cpu()


def _repeat(lr: Tensor, scale: int) -> Tensor:
    return F.interpolate(lr, scale_factor=scale, mode="nearest")


def validate_and_keep(run: Run) -> None:
    """Validate; keep the model in best/ if its content loss on the validation pictures is the lowest so far."""
    run.scores = validate(run)
    log(run, {f"val_{name}": value for name, value in run.scores.items()})
    if run.best is None or run.scores["content"] < run.best:
        run.best = run.scores["content"]
        export(run, "best")


# ---------------------------------------------------------------------------------------------------------------------
# What lies on the disk.


def log(run: Run, values: dict[str, float]) -> None:
    """Append a line to metrics.jsonl, and tell the trackers."""
    if run.accelerator.is_main_process:
        with (run.args.output_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": run.step, **values}) + "\n")
    run.accelerator.log(values, step=run.step)


def recorded(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments as JSON holds them."""
    return json.loads(json.dumps(vars(args), default=str))


def fingerprints(run: Run) -> dict[str, str]:
    """What the training pictures and the frozen networks hold, wherever they lie."""
    pictures = json.dumps(read_index(run.crops.folder)["pictures"], sort_keys=True)
    frozen = sum(float(p.double().sum()) for p in run.content.parameters())
    return {"train-data": hashlib.sha256(pictures.encode()).hexdigest(), "vgg-weights": f"{frozen:.6g}"}


def save(run: Run) -> None:
    """Write the checkpoint step-N/, and last/, the model that it would export; drop old checkpoints."""
    accelerator = run.accelerator
    export(run, "last")
    if accelerator.is_main_process:
        networks = {"generator": run.generator, "discriminator": run.discriminator}
        parts = {name: accelerator.unwrap_model(net).state_dict() for name, net in networks.items() if net is not None}
        parts["ema"] = run.ema.network.state_dict()
        parts |= {
            f"{name}_optimizer": checkpoint.optimizer_tensors(optimizer.optimizer)
            for name, optimizer in run.optimizers.items()
        }
        state = {
            "arguments": recorded(run.args),
            "fingerprints": fingerprints(run),
            "processes": accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
            "won": run.won,
            "best": run.best,
            "scores": run.scores,
        }
        checkpoint.save(run.args.output_dir, run.step, parts, state)
        checkpoint.prune(run.args.output_dir, run.args.keep)
    accelerator.wait_for_everyone()


def resume(run: Run) -> None:
    """Go on from a checkpoint, if asked; refuse what would give another result than the run that made it."""
    args = run.args
    found = checkpoint.find(args.output_dir)
    if args.resume is None:
        if found:
            raise ValueError(f"{args.output_dir} holds {found[-1].name} already: add --resume, or use another folder")
        return
    if args.resume == "latest":
        if not found:
            logger.warning("there is no whole checkpoint in %s: starting at step 0", args.output_dir)
            return
        path = found[-1]
    else:
        path = Path(args.resume)
        newer = [other.name for other in found if other.resolve() != path.resolve()]
        if found and (found[-1].resolve() != path.resolve()):
            raise ValueError(f"{args.output_dir} holds {', '.join(newer)} beside {path}: use another --output-dir")
    parts, state = checkpoint.load(path)
    check_same(run, path, state)
    accelerator = run.accelerator
    checkpoint.restore(accelerator.unwrap_model(run.generator), parts["generator"])
    checkpoint.restore(run.ema.network, parts["ema"])
    if run.discriminator:
        checkpoint.restore(accelerator.unwrap_model(run.discriminator), parts["discriminator"])
    for name, optimizer in run.optimizers.items():
        checkpoint.restore_optimizer(optimizer.optimizer, parts[f"{name}_optimizer"])
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    run.step, run.won, run.best, run.scores = state["step"], state["won"], state["best"], state["scores"]
    if accelerator.is_main_process:
        forget_metrics(args.output_dir / "metrics.jsonl", run.step)
    accelerator.print(f"going on from {path}")


def check_same(run: Run, path: Path, state: dict[str, Any]) -> None:
    """Refuse arguments, pictures or VGG weights that change the result; say what else is different."""
    args, before, now = run.args, state["arguments"], recorded(run.args)
    names = sorted(before.keys() | now.keys())
    changed = [name for name in names if before.get(name) != now.get(name)]
    refused = [name for name in changed if name not in FREE or (name == "steps" and args.schedule == "cosine")]
    described = [f"--{name.replace('_', '-')} was {before.get(name)}, is {now.get(name)}" for name in refused]
    old, new = state["fingerprints"], fingerprints(run)
    described += [f"--{name} holds something else than before" for name in new if old.get(name) != new[name]]
    if described:
        raise ValueError(f"{path} is of another run, which this one cannot continue: {'; '.join(described)}")
    said = [f"--{name.replace('_', '-')}" for name in changed if name not in ("resume", "command")]
    if said:
        run.accelerator.print(f"changed since {path} was made, without changing the result so far: {', '.join(said)}")
    if state["step"] > args.steps:
        raise ValueError(f"{path} is beyond --steps {args.steps} already")
    here = {
        "processes": run.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for name, value in here.items():
        if state[name] != value:
            text = "%s was made with %s %s, this run has %s: the result will not be the same to the last bit"
            logger.warning(text, path, name, state[name], value)


def forget_metrics(file: Path, step: int) -> None:
    """Drop the lines of steps that will be done again, and one that was cut short."""
    if not file.exists():
        return
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line + "\n")
        except ValueError:
            break
    file.write_text("".join(lines), encoding="utf-8")


def export(run: Run, name: str) -> None:
    """Write the averaged model to OUTPUT_DIR/name: config.json, model.safetensors and its card."""
    if run.accelerator.is_main_process:
        folder = run.args.output_dir / name
        partial = folder.with_name(f".{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            averaged_model(run).save_pretrained(partial, model_card_kwargs=card_fields(run, name))
            checkpoint.replace(partial, folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise checkpoint.CheckpointError(f"cannot write {folder}: {error}") from error
    run.accelerator.wait_for_everyone()


def card_fields(run: Run, name: str) -> dict[str, Any]:
    """What the run knows for the model card: data, recipe as the command, scores, and where it started."""
    args, scores = run.args, run.scores
    pictures = "DIV2K's training pictures, a data set for academic research" if args.train_data == "div2k" else (
        f"{len(run.crops.pictures)} pictures of {Path(args.train_data).name}"
    )  # fmt: skip
    fields: dict[str, Any] = {}
    if args.init_from:
        base = args.init_from
        fields = inherit(resolve(base), shown_name(Path(base)) if Path(base).is_dir() else base)
    fields |= {"license": args.license} if args.license else {}
    folder = args.output_dir.resolve().name
    fields |= {
        "name": args.push_to_hub or (folder if name == "final" else f"{folder}/{name}"),
        "data": f"{pictures}{f' ({args.data_license})' if args.data_license else ''}. "
        f"LR made by the degradation `{args.degradation}`.",
        "command": shown_command(args),
        "training": f"{run.step} of {args.steps} steps on {run.accelerator.num_processes} process(es), torch "
        f"{torch.__version__}. The weights are the run's exponential moving average.",
    }
    if scores:
        where = "DIV2K validation" if args.val_data == "div2k" else Path(args.val_data).name
        protocol = f"shave {args.scale}, {args.degradation} LR"
        table = {
            f"PSNR (Y, {protocol})": scores["psnr_y"],
            f"PSNR of bicubic (Y, {protocol})": scores["bicubic_psnr_y"],
            f"SSIM (Y, {protocol})": scores["ssim_y"],
            f"PSNR (RGB, {protocol})": scores["psnr_rgb"],
            f"SSIM (RGB, {protocol})": scores["ssim_rgb"],
            "LR-consistency, levels": scores["lr_consistency"],
            "energy in the top octave over HR's": scores["top_octave"],
            f"lattice peak of period {args.scale}, dB": scores["lattice_db"],
            "the same of HR, dB": scores["hr_lattice_db"],
        }
        rows = "\n".join(f"| {key} | {value:.4g} |" for key, value in table.items())
        fields["scores"] = f"Means over {len(run.pictures)} pictures of {where}, 8-bit:\n\n| | |\n|---|---|\n{rows}"
        luma = {"psnr": scores["psnr_y"], "ssim": scores["ssim_y"]}
        fields["eval_results"] = make_eval_results(where, luma, f"Y, {protocol}")
    return fields


def shown_command(args: argparse.Namespace) -> str:
    """Return the command with folders and files by their last names: the rest of a path is the trainer's own."""
    paths = (
        args.train_data,
        args.val_data,
        args.init_from,
        args.vgg_weights,
        args.output_dir,
        args.data_dir,
        args.resume,
    )
    mine = {Path(path) for path in paths if path and (Path(path).exists() or Path(path).is_absolute())}

    def shorten(word: str) -> str:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        return f"{option}{equals}{shown_name(Path(value))}" if value and Path(value) in mine else word

    return shlex.join(map(shorten, shlex.split(args.command)))


def shown_name(path: Path) -> str:
    """Return a folder's last name; of a model that a run wrote, the run's too."""
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in EXPORTED else path.name


def publish(run: Run, name: str) -> None:
    """Push OUTPUT_DIR/name to the Hub, with the card of these very steps.

    A Hub that is down or refuses is said, and costs nothing but the time.
    """
    folder, repo_id = run.args.output_dir / name, run.args.push_to_hub

    def work() -> None:
        try:
            url = push(folder, repo_id, private=run.args.private, overwrite_card=True)
            run.accelerator.print(f"published as {url}")
            run.unpublished = ""
        except PublishError as error:
            command = shlex.join(["python", "-m", "srgan_hub", "push", str(folder), repo_id, "--overwrite-card"])
            run.unpublished = f"{error}. To push later: {command}"
            logger.warning("step %d: %s", run.step, run.unpublished)

    on_first_process(run.accelerator, work)


# ---------------------------------------------------------------------------------------------------------------------
# The plan.


def describe_plan(args: argparse.Namespace, state: PartialState) -> str:
    """What --dry-run prints. Nothing is computed: the networks live on the meta device."""
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, nn.Parameter) else tensor.numel() * tensor.element_size()
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        generator = SRGAN(**{name: getattr(args, name) for name in MODEL_OPTIONS})
        discriminator = build_discriminator(args) if args.stage == "gan" else None
        lr_size = args.hr_crop // args.scale
        generator(torch.zeros(args.batch_size, 3, lr_size, lr_size)).mean()
        if discriminator is not None:
            for _ in range(3):  # truth, output, and the generator's turn
                discriminator(torch.zeros(args.batch_size, 3, args.hr_crop, args.hr_crop)).mean()
    count_g = sum(p.numel() for p in generator.parameters())
    count_d = sum(p.numel() for p in discriminator.parameters()) if discriminator is not None else 0
    activations = saved / (2 if args.mixed_precision != "no" else 1)
    # Weights, gradients and Adam's two moments; the generator's average beside.
    memory = 4 * (5 * count_g + 4 * count_d) + activations
    samples = args.steps * args.batch_size * args.accumulate * state.num_processes
    rate = learning_rate_at(args, "generator", args.steps - 1)
    return "\n".join(
        [
            f"stage:          {args.stage}, {args.steps:,} steps, {state.num_processes} process(es)",
            f"generator:      {count_g:,} parameters",
            f"discriminator:  {count_d:,} parameters" + (f" ({args.discriminator})" if count_d else ""),
            f"samples:        {samples:,} crops of {args.hr_crop} px, "
            f"{args.batch_size * args.accumulate * state.num_processes} a step",
            f"content loss:   {args.content_loss}",
            f"learning rate:  {args.learning_rate:g} at first, {rate:g} at the end ({args.schedule})",
            f"memory:         about {memory / 1e9:.2f} GB a process, without the content loss's network",
            f"checkpoint:     about {4 * (4 * count_g + 3 * count_d) / 1e6:.0f} MB, {args.keep} kept",
        ]
    )


# ---------------------------------------------------------------------------------------------------------------------
# The run.


def start(args: argparse.Namespace, model: SRGAN | None) -> Run:
    """Set everything up, or raise ValueError or OSError with a sentence that says what does not fit."""
    trackers = choose_trackers(args)
    accelerator = Accelerator(
        gradient_accumulation_steps=args.accumulate,
        mixed_precision=args.mixed_precision,
        log_with=trackers,
        project_dir=args.output_dir,
        kwargs_handlers=[
            # The discriminator runs twice before its backward pass, which broadcasting buffers would break.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),  # a validation may be long
        ],
    )
    torch.set_num_threads(choose_threads(args, accelerator.device))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if accelerator.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if args.stage == "gan" and not args.init_from:
        logger.warning("--stage gan without --init-from starts from noise; the paper starts from its SRResNet")
    run = build_run(args, accelerator, model)
    resume(run)
    if trackers:
        settings = {key: value for key, value in recorded(args).items() if isinstance(value, (int, float, str))}
        accelerator.init_trackers("srgan", config=settings)
    return run


def choose_threads(args: argparse.Namespace, device: torch.device) -> int:
    """How many threads compute in this process. Accelerate's and torch's launchers leave one to each by default."""
    launched = {"ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"} & os.environ.keys()
    if args.threads or device.type != "cpu" or not launched or os.environ.get("OMP_NUM_THREADS") != "1":
        return args.threads or torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def choose_trackers(args: argparse.Namespace) -> str | None:
    """The tracker's name, if any. metrics.jsonl and pictures/ are written in any case."""
    name = "tensorboard" if args.tracker == "auto" else args.tracker
    if name == "none" or importlib.util.find_spec(name):
        return None if name == "none" else name
    if args.tracker != "auto":
        raise ValueError(f"--tracker {name} is not installed: pip install {name}, or use --tracker none")
    logger.warning("tensorboard is not installed (pip install 'srgan-hub[tracker]'): metrics go to metrics.jsonl alone")
    return None


def train(run: Run) -> None:
    """The loop: step, look, log, validate, save, until the last step or a signal."""
    args, accelerator = run.args, run.accelerator
    if run.step == 0 and run.pictures and args.init_from:
        validate_and_keep(run)  # what there is to win
    batches = make_batches(run, run.step)
    bar = tqdm(initial=run.step, total=args.steps, unit="step", disable=not accelerator.is_main_process, smoothing=0.05)
    stopped, steps, waited, elapsed = False, 0, 0.0, 0.0
    while run.step < args.steps and not stopped:
        begin = time.perf_counter()
        values = train_step(run, batches)
        check_health(run, values)
        stopped, last = values.pop("signal") > 0, run.step == args.steps
        steps, waited, elapsed = steps + 1, waited + values.pop("wait"), elapsed + time.perf_counter() - begin
        bar.update()
        if run.step % args.log_every == 0 or last or stopped:
            crops = steps * args.batch_size * args.accumulate * accelerator.num_processes
            values |= {"samples_per_second": crops / elapsed, "data_wait": waited / elapsed}
            values["learning_rate"] = learning_rate_at(args, "generator", run.step - 1)
            log(run, values)
            bar.set_postfix({name: f"{values[name]:.4g}" for name in ("g_loss", "d_loss") if name in values})
            steps, waited, elapsed = 0, 0.0, 0.0
        if run.pictures and (last or (run.step % args.validate_every == 0 and not stopped)):
            validate_and_keep(run)
        if run.step % args.checkpoint_every == 0 or last or stopped:
            save(run)
        if args.push_every and run.step % args.push_every == 0 and not last:
            export(run, "last")
            publish(run, "last")
    bar.close()
    if run.step < args.steps:
        accelerator.print(f"stopped by a signal at step {run.step}, which is saved; --resume goes on")
        return
    export(run, "final")
    if args.push_to_hub:
        publish(run, "final")
    accelerator.print(f"{args.output_dir / 'final'} holds the model; {scores_line(run)}")


def scores_line(run: Run) -> str:
    """The last validation in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in run.scores.items()) or "it was not validated"


@contextlib.contextmanager
def signals_noted(run: Run) -> Iterator[None]:
    """On SIGTERM or Ctrl-C let the step end; then all ranks save and stop. A second Ctrl-C stops at once."""

    def note(number: int, _: object) -> None:
        run.signal = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when all is done, or saved after a signal; 1 for a loss that is not finite or a push that failed; 2 for bad
        input or a full disk.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    # Newer versions of torch want another name, which older ones do not know.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    args = parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    args.command = shlex.join(["accelerate", "launch", "train_accelerate.py", *words])
    try:
        model = SRGAN.from_pretrained(args.init_from) if args.init_from else None
        complete_args(args, model.config if model else None)
        if args.dry_run:
            state = PartialState()
            state.print(describe_plan(args, state))
            return 0
        run = start(args, model)
    except (ValueError, OSError) as error:
        print(f"train_accelerate.py: {error}", file=sys.stderr)
        return 2
    try:
        with signals_noted(run):
            train(run)
    except NonFiniteError as error:
        print(f"train_accelerate.py: {error}", file=sys.stderr)
        return 1
    except (checkpoint.CheckpointError, files.PictureError) as error:
        print(f"train_accelerate.py: {error}", file=sys.stderr)
        return 2
    finally:
        run.accelerator.end_training()
    return 1 if run.unpublished else 0


if __name__ == "__main__":
    sys.exit(main())
