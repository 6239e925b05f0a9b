"""Resumable data loading."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from accelerate import Accelerator
from huggingface_hub.utils import WeakFileLock
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from ..degradations import Degradation, make_degradation
from ..evaluate.datasets import PairedDataset
from ..images.decode import find_images, load_rgb
from ..images.errors import ImageError
from ..images.formats import WRITE_SUFFIXES
from ..model_card import file_sha256
from .arguments import DEGRADATION_FLAGS, TrainConfig, split_weight
from .dataset import INDEX, PreparedImages, RandomCropDataset, Source, TrainingPairs, build_shards
from .div2k import VALID, download, find_split, prepare_div2k
from .interrupt import ignore_signals
from .sources import HubImages, ImageFolder, Images
from .state import TrainContext

logger = logging.getLogger(__name__)

# Workers per process. One reads and degrades 660 (real-world) to 3,600 crops (bicubic) of 96 pixels a second.
CPU_WORKERS, GPU_WORKERS = 0, 4


def prepare_data(config: TrainConfig, accelerator: Accelerator) -> tuple[list[Source], list[Path]]:
    """Return the training and the validation images; download and decode them on first use.

    Call it on the main process first: the other ranks find everything prepared.
    Raise ValueError or OSError if images are missing, unusable or too small, or DIV2K cannot be downloaded.
    """
    bar = tqdm(desc="preparing images", unit="image", delay=1, disable=not accelerator.is_main_process)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        sources = _prepare_sources(config, progress)
        val_data = config.val_data and find_split(Path(config.val_data), "valid")
        if config.val_data == "div2k":
            config.data_dir.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(config.data_dir / ".lock"):  # another run may be downloading
                val_data = download(config.data_dir / "div2k-images", VALID, url=config.div2k_url)
    val_images = _find_usable(val_data, 16 * config.scale) if val_data else []
    if val_data and not val_images:
        size = 16 * config.scale
        raise ValueError(f"--val-data '{val_data}' has no usable images of at least {size}x{size} pixels.")
    return sources, val_images


def check_overlap(crops: RandomCropDataset, val_images: Sequence[Path]) -> None:
    """Raise ValueError if files are used both for training and for validation."""
    hashes = {file_sha256(path): path for path in val_images}
    if shared := crops.find(hashes):
        others = f" and {len(shared) - 3} others" if len(shared) > 3 else ""
        names = ", ".join(f"'{name}'" for name in shared[:3])
        raise ValueError(f"--train-data and --val-data share images: {names}{others}; validate on other ones.")


def make_train_degradation(config: TrainConfig) -> Degradation:
    """Create the degradation that the flags describe. Raise ValueError for an invalid range."""
    options = {name: value for name in DEGRADATION_FLAGS if (value := getattr(config, name)) is not None}
    return make_degradation(config.degradation, scale=config.scale, **options)


def make_validation(config: TrainConfig, images: Sequence[Path], degrade: Degradation) -> PairedDataset:
    """Return pairs of the validation images and their LR images, given or degraded."""
    if config.val_lr_data:
        return PairedDataset(images, scale=config.scale, lr=Path(config.val_lr_data))
    return PairedDataset(images, scale=config.scale, degradation=degrade, seed=config.seed)


def make_batches(run: TrainContext, step: int, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (lr, hr) for each backward pass from `step` on, behind `samples`: NCHW in [0, 1], on the device."""
    config, accelerator, device = run.config, run.accelerator, run.accelerator.device
    workers = config.dataloader_num_workers
    workers = (CPU_WORKERS if device.type == "cpu" else GPU_WORKERS) if workers is None else workers
    pairs = TrainingPairs(run.crops, None if config.train_lr_data else run.degrade, config.seed)
    sampler = StepBatchSampler(config, step, samples, accelerator.process_index, accelerator.num_processes)
    # Each item of the sampler is a batch, which a worker reads and degrades.
    loader = DataLoader(
        pairs,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_signals,
    )
    for lr, levels in loader:
        lr, hr = lr.to(device, non_blocking=True), levels.to(device, non_blocking=True).float() / 255
        yield lr.to(memory_format=torch.channels_last), hr.to(memory_format=torch.channels_last)


class StepBatchSampler(Sampler[list[int]]):
    """Sample indices of the backward passes of one rank from `step` on. The ranks share every index once.

    The first index is the number of samples seen so far, by as many processes as there were.
    """

    def __init__(self, config: TrainConfig, step: int, samples: int, rank: int, ranks: int) -> None:
        self.passes = max(0, config.max_train_steps - step) * config.gradient_accumulation_steps
        self.samples, self.size, self.rank, self.ranks = samples, config.batch_size, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.passes):
            first = self.samples + (number * self.ranks + self.rank) * self.size
            yield list(range(first, first + self.size))


def _prepare_sources(config: TrainConfig, progress: Callable[[int, int], None]) -> list[Source]:
    """Prepare the images of all flags: the first directory to OUTPUT_DIR/data, others to data-1 and so on."""
    sources: list[Source] = []
    for word in config.train_data or ():
        path, weight = split_weight(word)
        sources.append(Source(_prepare(config, path, len(sources), progress), weight=weight))
    if config.dataset_name:
        images = HubImages(config.dataset_name, config.image_column)
        sources.append(Source(_build(config, images, f"data{_suffix(len(sources))}", config.hr_crop, progress)))
    for number, word in enumerate(config.train_lr_data or ()):
        lr = _prepare(config, word, number, progress, lr=True)
        sources[number] = sources[number]._replace(lr=lr)
    return sources


def _prepare(
    config: TrainConfig, word: str, number: int, progress: Callable[[int, int], None], lr: bool = False
) -> PreparedImages:
    """Prepare the images of a word of --train-data or --train-lr-data."""
    if word == "div2k" and not lr:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(config.data_dir / ".lock"):  # another run may be downloading
            return PreparedImages(prepare_div2k(config.data_dir / "div2k", url=config.div2k_url, progress=progress))
    directory = find_split(Path(word), f"X{config.scale}" if lr else "train")
    if (directory / INDEX).is_file():
        return PreparedImages(directory)
    name, size = ("data-lr", config.hr_crop // config.scale) if lr else ("data", config.hr_crop)
    return _build(config, ImageFolder(directory, config.output_dir), name + _suffix(number), size, progress)


def _build(
    config: TrainConfig, images: Images, name: str, min_size: int, progress: Callable[[int, int], None]
) -> PreparedImages:
    output = config.output_dir / name
    build_shards(images, output, min_size=min_size, store=config.shards, progress=progress)
    return PreparedImages(output, images)


def _suffix(number: int) -> str:
    return f"-{number}" if number else ""


def _find_usable(directory: Path, min_size: int) -> list[Path]:
    """List the images of a directory that can be decoded and are not too small; warn of the others."""
    paths = find_images(directory, None, WRITE_SUFFIXES) if directory.is_dir() else []

    def problem(path: Path) -> str:
        try:
            array, warnings = load_rgb(path, max_pixels=None)
        except ImageError as error:
            return str(error)
        for warning in warnings:
            logger.warning("'%s': %s", path, warning)
        return "" if min(array.shape[:2]) >= min_size else f"it is smaller than {min_size}x{min_size} pixels"

    with ThreadPoolExecutor(4) as pool:  # Pillow decodes without the GIL
        problems = dict(zip(paths, pool.map(problem, paths), strict=True))
    for path, reason in problems.items():
        if reason:
            logger.warning("'%s' is not used for validation: %s", path, reason)
    return [path for path, reason in problems.items() if not reason]
