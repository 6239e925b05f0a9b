"""The data of a run: where its images lie, and batches whose position is the step."""

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from huggingface_hub.utils import WeakFileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from ..images.decode import open_image
from ..images.formats import WRITE_SUFFIXES
from .dataset import INDEX, RandomCropDataset, build_shards
from .distributed import run_on_main_process
from .div2k import VALID, download, prepare_div2k
from .state import TrainContext

logger = logging.getLogger(__name__)


def prepare_data(args: argparse.Namespace, accelerator: Accelerator) -> tuple[Path, list[Path]]:
    """Return the folder of prepared training images, made on first use by rank 0, and the validation images."""
    div2k = args.data_dir / "div2k"
    archives = div2k.with_name("div2k-images")  # as prepare_div2k calls them
    prepared = div2k if args.train_data == "div2k" else args.output_dir / "data"

    def work() -> None:
        with TqdmProgress() as progress:
            if args.train_data != "div2k":
                build_shards(Path(args.train_data), prepared, minimum_size=args.hr_crop, progress=progress)
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
        run_on_main_process(accelerator, work)
    folder = archives / VALID.name if args.val_data == "div2k" else args.val_data
    images = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in WRITE_SUFFIXES) if folder else []
    small = []
    for path in images:
        with open_image(path) as opened:
            if min(opened.width, opened.height) < 16 * args.scale:
                small.append(path)
    for path in small:
        logger.warning("%s is left out of validation: it has less than %d pixels a side", path, 16 * args.scale)
    if folder and len(small) == len(images):
        raise ValueError(
            f"Expected --val-data with images of at least {16 * args.scale} pixels a side, got none in {folder}."
        )
    return prepared, [path for path in images if path not in small]


def make_batches(run: TrainContext, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (lr, hr) of each backward pass from a step on: NCHW in [0, 1], on the device.

    They are decoded and cropped ahead by workers, and degraded here.
    """
    args, accelerator = run.args, run.accelerator
    workers = (
        args.dataloader_num_workers
        if args.dataloader_num_workers is not None
        else 2 * (accelerator.device.type != "cpu")
    )
    loader = DataLoader(
        _IndexedDataset(run.crops),
        batch_sampler=StepBatchSampler(args, start, accelerator.process_index, accelerator.num_processes),
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    for indices, levels in loader:
        levels = levels.to(accelerator.device, non_blocking=True)
        lr = run.degrade(levels, indices.tolist(), args.seed)
        hr = levels.float() / 255
        yield lr.to(memory_format=torch.channels_last), hr.to(memory_format=torch.channels_last)


class StepBatchSampler(Sampler[list[int]]):
    """The sample indices of each backward pass of one rank, from a step on: all ranks' passes tile the integers."""

    def __init__(self, args: argparse.Namespace, start: int, rank: int, ranks: int) -> None:
        self.size, self.first = args.batch_size, start * args.gradient_accumulation_steps
        self.passes, self.rank, self.ranks = args.max_train_steps * args.gradient_accumulation_steps, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.first, self.passes):
            begin = (number * self.ranks + self.rank) * self.size
            yield list(range(begin, begin + self.size))


class _IndexedDataset(Dataset[tuple[int, Tensor]]):
    """Crops beside their sample index, which the degradation draws from."""

    def __init__(self, crops: RandomCropDataset) -> None:
        self.crops = crops

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.crops[index]


class TqdmProgress:
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
