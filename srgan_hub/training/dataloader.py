"""Resumable data loading."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from huggingface_hub.utils import WeakFileLock
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from ..images.decode import find_images, open_image
from ..images.formats import WRITE_SUFFIXES
from .arguments import TrainConfig
from .dataset import INDEX, build_shards
from .div2k import VALID, download, prepare_div2k
from .interrupt import ignore_signals
from .state import TrainContext

logger = logging.getLogger(__name__)


def prepare_data(config: TrainConfig, accelerator: Accelerator) -> tuple[Path, list[Path]]:
    """Return the directory of training shards and the validation images; download and decode them on first use.

    Call it on the main process first: the other ranks find everything prepared.
    Raise ValueError or OSError if images are missing, unusable or too small, or DIV2K cannot be downloaded.
    """
    shards, val_data = Path(config.train_data), config.val_data and Path(config.val_data)
    bar = tqdm(desc="preparing images", unit="image", delay=1, disable=not accelerator.is_main_process)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        if "div2k" in (config.train_data, config.val_data):
            config.data_dir.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(config.data_dir / ".lock"):  # another run may be downloading
                if config.train_data == "div2k":
                    shards = prepare_div2k(config.data_dir / "div2k", progress=progress)
                if config.val_data == "div2k":
                    val_data = download(config.data_dir / "div2k-images", VALID)
        if config.train_data != "div2k" and not (shards / INDEX).is_file():
            shards = build_shards(shards, config.output_dir / "data", min_size=config.hr_crop, progress=progress)
    paths = find_images(val_data, None, WRITE_SUFFIXES) if val_data and val_data.is_dir() else []
    min_size = 16 * config.scale
    val_images = []
    for path in paths:
        with open_image(path) as opened:
            if min(opened.width, opened.height) >= min_size:
                val_images.append(path)
            else:
                logger.warning("'%s' is not used for validation: smaller than %dx%d pixels", path, min_size, min_size)
    if val_data and not val_images:
        raise ValueError(f"--val-data '{val_data}' has no images of at least {min_size}x{min_size} pixels.")
    return shards, val_images


def make_batches(run: TrainContext, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (lr, hr) for each backward pass from step `start` on: NCHW in [0, 1], on the device."""
    config, accelerator, device = run.config, run.accelerator, run.accelerator.device
    workers = config.dataloader_num_workers
    workers = 2 * (device.type != "cpu") if workers is None else workers
    sampler = StepBatchSampler(config, start, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(
        run.crops,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_signals,
    )
    for indices, crops in zip(sampler, loader, strict=True):
        crops = crops.to(device, non_blocking=True)
        lr = run.degrade(crops, indices, config.seed)
        hr = crops.float() / 255
        yield lr.to(memory_format=torch.channels_last), hr.to(memory_format=torch.channels_last)


class StepBatchSampler(Sampler[list[int]]):
    """Sample indices of the backward passes of one rank from step `start` on. The ranks share every index once."""

    def __init__(self, config: TrainConfig, start: int, rank: int, ranks: int) -> None:
        passes = config.gradient_accumulation_steps
        self.passes = range(start * passes, config.max_train_steps * passes)
        self.size, self.rank, self.ranks = config.batch_size, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for number in self.passes:
            first = (number * self.ranks + self.rank) * self.size
            yield list(range(first, first + self.size))
