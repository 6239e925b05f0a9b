"""Resumable data loading."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from huggingface_hub.utils import WeakFileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from ..images.decode import find_images, open_image
from ..images.formats import WRITE_SUFFIXES
from .arguments import TrainConfig
from .dataset import INDEX, RandomCropDataset, build_shards
from .div2k import VALID, download, prepare_div2k
from .state import TrainContext

logger = logging.getLogger(__name__)


def prepare_data(config: TrainConfig, accelerator: Accelerator) -> tuple[Path, list[Path]]:
    """Return the directory of training shards and the validation images; download and decode them on first use.

    Raises:
        ValueError, OSError: images are missing, unusable or too small, or DIV2K cannot be downloaded.
    """
    shards, val_data = Path(config.train_data), config.val_data and Path(config.val_data)
    bar = tqdm(desc="preparing images", unit="image", delay=1, disable=not accelerator.is_main_process)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with accelerator.main_process_first(), bar:  # the other ranks find everything prepared
        if "div2k" in (config.train_data, config.val_data):
            images = config.data_dir / "div2k-images"
            config.data_dir.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(config.data_dir / ".lock"):  # another run may be downloading
                if config.train_data == "div2k":
                    shards = prepare_div2k(config.data_dir / "div2k", images=images, progress=progress)
                if config.val_data == "div2k":
                    val_data = download(images, VALID)
        if config.train_data != "div2k" and not (shards / INDEX).is_file():
            shards = build_shards(shards, config.output_dir / "data", min_size=config.hr_crop, progress=progress)
    paths = find_images(val_data, None, WRITE_SUFFIXES) if val_data else []
    min_size = 16 * config.scale
    small = []
    for path in paths:
        with open_image(path) as opened:
            if min(opened.width, opened.height) < min_size:
                small.append(path)
    for path in small:
        logger.warning("'%s' is not used for validation: it is smaller than %dx%d pixels", path, min_size, min_size)
    if val_data and len(small) == len(paths):
        raise ValueError(f"--val-data '{val_data}' has no images of at least {min_size}x{min_size} pixels.")
    return shards, [path for path in paths if path not in small]


def make_batches(run: TrainContext, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (lr, hr) for each backward pass from step `start` on: NCHW in [0, 1], on the device.

    Worker processes prefetch crops; the degradation is applied here.
    """
    config, accelerator = run.config, run.accelerator
    workers = config.dataloader_num_workers
    workers = 2 * (accelerator.device.type != "cpu") if workers is None else workers
    loader = DataLoader(
        _IndexedDataset(run.crops),
        batch_sampler=StepBatchSampler(config, start, accelerator.process_index, accelerator.num_processes),
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    for indices, crops in loader:
        crops = crops.to(accelerator.device, non_blocking=True)
        lr = run.degrade(crops, indices.tolist(), config.seed)
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


class _IndexedDataset(Dataset[tuple[int, Tensor]]):
    """Crops with their sample index, the seed of their degradation."""

    def __init__(self, crops: RandomCropDataset) -> None:
        self.crops = crops

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.crops[index]
