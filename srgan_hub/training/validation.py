"""Validation loop."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import metrics
from ..evaluate.contact_sheet import ContactSheet
from ..evaluate.datasets import ImagePair, PairedDataset, to_tensor, to_uint8
from ..evaluate.evaluate import describe_lr
from ..evaluate.report import BICUBIC, HR, ModelResult, Protocol, Report
from ..resize import resize
from ..upscaler import Upscaler
from .arguments import TrainConfig
from .distributed import any_rank, shared_errors
from .logging import log_image
from .state import TrainContext, TrainState, ema_model

SR = "SR"
NAMES = ("psnr_y", "ssim_y", "content")  # "content" is the content loss of the run
COLUMNS = [(label, name) for label in (BICUBIC, SR) for name in NAMES]
SHOWN = 4  # images on the contact sheet
CONTENT_CROP = 192  # side of the center crop for the content loss
CACHED = 64  # images that each rank keeps decoded, about 9 MB each for DIV2K


@dataclass(frozen=True)
class ValidationImage:
    """An image pair, its bicubic upscaling, and the scores of the latter."""

    pair: ImagePair
    bicubic: np.ndarray
    bicubic_scores: dict[str, float]


class ValidationImages:
    """A fixed choice of image pairs, evenly spaced in the list. What does not depend on the model is computed once."""

    def __init__(self, pairs: PairedDataset, count: int) -> None:
        count = min(count, len(pairs))
        self.pairs = pairs
        self.indices = [i * len(pairs) // count for i in range(count)]
        self._cache: dict[int, ValidationImage] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def get(self, run: TrainContext, number: int) -> ValidationImage:
        """Return an image, scored on the run's device. Raise ImageError or ValueError if it cannot be read."""
        if number in self._cache:
            return self._cache[number]
        pair = self.pairs[self.indices[number]]
        bicubic = to_uint8(resize(to_tensor(pair.lr), pair.hr.shape[:2], round_to_uint8=True))
        image = ValidationImage(pair, bicubic, _score(run, *_to_device(run, bicubic, pair.hr)))
        if len(self._cache) < CACHED:
            self._cache[number] = image
        return image


def validation_due(config: TrainConfig, step: int) -> bool:
    """Return whether the model of this step is validated: at intervals, the last one, and one to be fine-tuned."""
    if step == 0:
        return config.pretrained_model_name_or_path is not None
    return step % config.validation_steps == 0 or step == config.max_train_steps


@torch.no_grad()
def validate(run: TrainContext, state: TrainState, signals: Sequence[str] = ()) -> dict[str, dict[str, float]] | None:
    """Score the averaged generator on the validation images, and write a contact sheet to images/step-N.png.

    The images are divided among the ranks, and upscaled and scored in float32 on the device. Return means over all
    images: image (bicubic, SR) -> metric -> mean; None if a rank received a signal, which is checked for each image.
    """
    config, accelerator, images = run.config, run.accelerator, run.validation
    assert images is not None
    rank, ranks, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    upscaler = ema_model(run, state).upscaler(device=accelerator.device, dtype="float32", backend="torch")
    sheet = ContactSheet(config.output_dir / "images", f"step-{state.step}") if main else None
    sums = torch.zeros(len(COLUMNS), dtype=torch.float64)
    bar = tqdm(desc="validating", total=len(images), unit="image", leave=False, disable=not main)
    with bar, _without_cudnn_benchmark():
        for first in range(0, len(images), ranks):
            if any_rank(accelerator, bool(signals)):
                return None
            with shared_errors(accelerator):
                if first + rank < len(images):
                    sums += _validate_image(run, upscaler, first + rank, sheet if first // ranks < SHOWN else None)
            bar.update(min(ranks, len(images) - first))
    totals = accelerator.reduce(sums.float().to(accelerator.device), "sum").tolist()
    with shared_errors(accelerator):
        for path in sheet.write() if sheet else ():
            log_image(run, state.step, path)
    means: dict[str, dict[str, float]] = {BICUBIC: {}, SR: {}}
    for (label, name), total in zip(COLUMNS, totals, strict=True):
        means[label][name] = total / len(images)
    return means


def flatten(means: dict[str, dict[str, float]]) -> dict[str, float]:
    """Name the means for metrics.jsonl: val_psnr_y, val_bicubic_psnr_y and so on."""
    prefix = {SR: "", BICUBIC: "bicubic_"}
    return {f"val_{prefix[label]}{name}": value for label, scores in means.items() for name, value in scores.items()}


def make_report(run: TrainContext, means: dict[str, dict[str, float]], name: str) -> Report:
    """Return the means as a report of `evaluate`, for the card of the model `name`."""
    config, rows = run.config, {BICUBIC: BICUBIC, name: SR}
    assert run.validation is not None and config.val_data is not None
    lr = Path(config.val_lr_data) if config.val_lr_data else None
    degradation = None if lr or config.degradation == "bicubic" else config.degradation
    clean = {} if config.clean_prob is None else {"clean_prob": config.clean_prob}
    protocol = Protocol(
        data="DIV2K validation" if config.val_data == "div2k" else Path(config.val_data).resolve().name,
        images=len(run.validation),
        scale=config.scale,
        crop_border=config.scale,
        lr=describe_lr(lr, "matlab", degradation, seed=config.seed, **clean),
    )
    return Report(protocol, tuple(ModelResult(title, {"mean": dict(means[label])}) for title, label in rows.items()))


def _validate_image(run: TrainContext, upscaler: Upscaler, number: int, sheet: ContactSheet | None) -> Tensor:
    """Return the scores in the order of `COLUMNS`; add the image to the contact sheet."""
    assert run.validation is not None
    image = run.validation.get(run, number)
    lr, hr = _to_device(run, image.pair.lr, image.pair.hr)
    sr = upscaler.upscale(lr).mul(255).round().clamp(0, 255) / 255
    scores = {BICUBIC: image.bicubic_scores, SR: _score(run, sr, hr)}
    if sheet:
        sheet.add(image.pair.name, image.pair.lr, {BICUBIC: image.bicubic, SR: to_uint8(sr), HR: image.pair.hr})
    return torch.tensor([scores[label][name] for label, name in COLUMNS], dtype=torch.float64)


def _score(run: TrainContext, sr: Tensor, hr: Tensor) -> dict[str, float]:
    top, left = (max(0, (side - CONTENT_CROP) // 2) for side in hr.shape[2:])
    crops = (image[..., top : top + CONTENT_CROP, left : left + CONTENT_CROP] for image in (sr, hr))
    border = run.config.scale
    values = (
        metrics.psnr(sr, hr, crop_border=border),
        metrics.ssim(sr, hr, crop_border=border),
        run.content.total(run.content(*crops)),
    )
    return dict(zip(NAMES, (value.item() for value in values), strict=True))


def _to_device(run: TrainContext, *images: np.ndarray) -> list[Tensor]:
    """Convert (H, W, 3) uint8 to (1, 3, H, W) float32 in [0, 1] on the device; only the bytes are transferred."""
    tensors = (torch.from_numpy(image.copy()).to(run.accelerator.device) for image in images)
    return [tensor.permute(2, 0, 1)[None].float() / 255 for tensor in tensors]


@contextlib.contextmanager
def _without_cudnn_benchmark() -> Iterator[None]:
    """Keep cuDNN from timing all its algorithms for each image, since each has another shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
