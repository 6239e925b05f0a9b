"""Estimate parameters, memory, disk space and time without training."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ..images.decode import find_images
from ..images.formats import WRITE_SUFFIXES
from ..model import SRGAN
from ..network.discriminator import build_discriminator
from .arguments import TrainConfig, split_weight
from .dataset import INDEX, read_index
from .div2k import TRAIN, VALID

DIV2K_PIXELS = 2040**2  # of an image, at most
MODELS = 3  # final/, last/ and best/


def estimate_run(config: TrainConfig, *, processes: int, last_rate: float) -> str:
    """Return what `--dry-run` prints. The networks are on the meta device, and images are only listed.

    Raise OSError if a directory of images cannot be read, ValueError if it holds invalid shards.
    """
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if isinstance(tensor, nn.Parameter) else tensor.numel() * tensor.element_size()
        return tensor

    gan, batch, hr_size = config.stage == "gan", config.batch_size, config.hr_crop
    lr_size = hr_size // config.scale
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        generator = SRGAN(**config.model_kwargs)
        discriminator = build_discriminator(config.discriminator, hr_size=hr_size) if gan else nn.Identity()
        generator(torch.zeros(batch, 3, lr_size, lr_size)).mean()
        for _ in range(3 if gan else 0):  # HR and SR in the discriminator's step, SR in the generator's
            discriminator(torch.zeros(batch, 3, hr_size, hr_size)).mean()
    count_g, count_d = (sum(p.numel() for p in network.parameters()) for network in (generator, discriminator))
    activations = saved / (2 if config.mixed_precision != "no" else 1)
    # Weights, gradients and Adam's two moments, and the generator's moving average, in float32.
    memory = 4 * (5 * count_g + 4 * count_d) + activations
    crops = batch * config.gradient_accumulation_steps * processes
    checkpoint, model = 4 * (4 * count_g + 3 * count_d), 4 * count_g
    train_data, new_bytes = describe_train_data(config)
    # A new checkpoint is complete before the oldest one is removed.
    disk = new_bytes + (config.checkpoints_total_limit + 1) * checkpoint + MODELS * model
    return "\n".join(
        (
            f"stage:          {config.stage}, {config.max_train_steps:,} steps, {processes} process(es)",
            f"generator:      {count_g:,} parameters",
            f"discriminator:  {count_d:,} parameters" + (f" ({config.discriminator})" if gan else ""),
            f"training data:  {train_data}",
            f"validation:     {describe_val_data(config)}",
            f"samples:        {config.max_train_steps * crops:,} crops of {hr_size} px, {crops} per step",
            f"content loss:   {config.content_loss}",
            f"learning rate:  {config.learning_rate:g} to {last_rate:g} ({config.lr_scheduler})",
            f"memory:         about {_gigabytes(memory)} per process, without the content loss's network",
            f"checkpoints:    {config.checkpoints_total_limit} of about {checkpoint / 1e6:.0f} MB",
            f"disk:           about {_gigabytes(disk)} in all; {_describe_free_space(config.output_dir)}",
            f"time:           {describe_time(config, crops)}",
        )
    )


def describe_train_data(config: TrainConfig) -> tuple[str, int]:
    """Return a description of the training images, and the bytes that a run writes before its first step."""
    words = [split_weight(word)[0] for word in config.train_data or ()]
    sources = [_describe_source(config, word) for word in (*words, *(config.train_lr_data or ()))]
    if config.dataset_name:
        sources.append((f"'{config.dataset_name}', whose size is unknown", 0))
    return "; ".join(text for text, _ in sources), sum(size for _, size in sources)


def _describe_source(config: TrainConfig, word: str) -> tuple[str, int]:
    if word == "div2k":
        if (config.data_dir / "div2k" / INDEX).is_file():
            return f"DIV2K, {TRAIN.images} images, prepared in '{config.data_dir}'", 0
        archives, shards = TRAIN.size + VALID.size, 3 * DIV2K_PIXELS * TRAIN.images
        steps = f"{_gigabytes(archives)} to download, at most {_gigabytes(shards)} of shards"
        return f"DIV2K, {TRAIN.images} images, {steps}, in '{config.data_dir}'", 2 * archives + shards
    path = Path(word)
    if (path / INDEX).is_file():
        images = read_index(path)["images"]
        size = sum(3 * image["height"] * image["width"] for image in images)
        return f"'{path}', {len(images):,} images, {_gigabytes(size)} of shards", 0
    if not path.is_dir():
        return f"'{path}' does not exist yet", 0
    paths = find_images(path, None, WRITE_SUFFIXES)
    if not config.shards:
        return _describe_images(path, paths), 0
    shards = 0
    for each in paths:
        with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), Image.open(each) as image:
            shards += 3 * image.width * image.height
    return f"{_describe_images(path, paths)}, {_gigabytes(shards)} of shards", shards


def describe_val_data(config: TrainConfig) -> str:
    """Return a description of the validation images."""
    if config.val_data is None:
        return "none"
    if config.val_data == "div2k":
        return f"DIV2K, {VALID.images} images"
    path = Path(config.val_data)
    return (
        _describe_images(path, find_images(path, None, WRITE_SUFFIXES))
        if path.is_dir()
        else f"'{path}' does not exist yet"
    )


def describe_time(config: TrainConfig, crops_per_step: int) -> str:
    """Return the time of the remaining steps at the throughput that an earlier part of the run logged."""
    log, steps, rate = config.output_dir / "metrics.jsonl", 0, 0.0
    with suppress(OSError):
        for line in log.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the line that was being written when a run was killed
                values = json.loads(line)
                steps, rate = values["step"], values.get("samples_per_second", rate)
    if not rate:
        return f"unknown, before '{log}' has the throughput of some steps"
    seconds = crops_per_step / rate
    left = max(0, config.max_train_steps - (steps if config.resume_from_checkpoint else 0))
    return f"about {_hours(left * seconds)} for {left:,} steps of {seconds:.3g} s, as in '{log}', without validation"


def _describe_images(path: Path, images: list[Path]) -> str:
    size = sum(image.stat().st_size for image in images)
    return f"'{path}', {len(images):,} images, {_gigabytes(size)}"


def _describe_free_space(path: Path) -> str:
    existing = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    return f"{_gigabytes(shutil.disk_usage(existing).free)} are free"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
