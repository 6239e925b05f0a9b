"""The data of a run: where its pictures lie, and batches whose position is the step."""

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

from ..pictures import files
from .dataset import INDEX, Crops, prepare
from .distributed import on_first_process
from .div2k import VALID, download, prepare_div2k
from .run import Run

logger = logging.getLogger(__name__)


def prepare_data(args: argparse.Namespace, accelerator: Accelerator) -> tuple[Path, list[Path]]:
    """Return the folder of prepared training pictures, made on first use by rank 0, and the validation pictures."""
    div2k = args.data_dir / "div2k"
    archives = div2k.with_name("div2k-pictures")  # as prepare_div2k calls them
    prepared = div2k if args.train_data == "div2k" else args.output_dir / "data"

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
        raise ValueError(
            f"Expected --val-data with pictures of at least {16 * args.scale} pixels a side, got none in {folder}."
        )
    return prepared, [path for path in pictures if path not in small]


def make_batches(run: Run, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (lr, hr) of each backward pass from a step on: NCHW in [0, 1], on the device.

    They are decoded and cropped ahead by workers, and degraded here.
    """
    args, accelerator = run.args, run.accelerator
    workers = args.workers if args.workers is not None else 2 * (accelerator.device.type != "cpu")
    loader = DataLoader(
        _Samples(run.crops),
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


class Positions(Sampler[list[int]]):
    """The sample indices of each backward pass of one rank, from a step on: all ranks' passes tile the integers."""

    def __init__(self, args: argparse.Namespace, start: int, rank: int, ranks: int) -> None:
        self.size, self.first = args.batch_size, start * args.accumulate
        self.passes, self.rank, self.ranks = args.steps * args.accumulate, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.first, self.passes):
            begin = (number * self.ranks + self.rank) * self.size
            yield list(range(begin, begin + self.size))


class _Samples(Dataset[tuple[int, Tensor]]):
    """Crops beside their sample index, which the degradation draws from."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.crops[index]


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
