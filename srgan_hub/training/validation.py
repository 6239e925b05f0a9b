"""Validation loop."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..evaluate.contact_sheet import ContactSheet
from ..evaluate.datasets import to_tensor
from ..evaluate.evaluate import describe_lr, score_pair
from ..evaluate.report import BICUBIC, HR, ModelResult, Protocol, Report
from ..evaluate.scorers import NO_REFERENCE, make_scorers
from .logging import log_image
from .state import TrainContext, TrainState, ema_model

SR = "SR"
NAMES = ("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb", "lr_consistency", "high_freq_ratio", "checkerboard_db")
# (image, metric). "content" is the content loss of the run.
COLUMNS = [*((SR, name) for name in (*NAMES, "content")), *((BICUBIC, name) for name in NAMES)]
COLUMNS += [(HR, name) for name in NAMES if name in NO_REFERENCE]
SHOWN = 4  # images on the contact sheet
CONTENT_CROP = 192  # side of the center crop for the content loss


@torch.no_grad()
def validate(run: TrainContext, state: TrainState) -> dict[str, dict[str, float]]:
    """Score the averaged generator on full validation images, and write a contact sheet to images/step-N.png.

    The images are divided among the ranks and upscaled in float32; the metrics are those of `evaluate`. Return means
    over all images: image (bicubic, SR, HR) -> metric -> mean.
    """
    config, accelerator, dataset = run.config, run.accelerator, run.validation
    assert dataset is not None
    upscaler = ema_model(run, state).upscaler(device=accelerator.device, dtype="float32", backend="torch")
    scorers, _ = make_scorers(NAMES, crop_border=config.scale, scale=config.scale, device=accelerator.device)
    sheet = ContactSheet(config.output_dir / "images", f"step-{state.step}") if accelerator.is_main_process else None
    sums = torch.zeros(2, len(COLUMNS), dtype=torch.float64)
    for count, index in enumerate(range(accelerator.process_index, len(dataset), accelerator.num_processes)):
        pair = dataset[index]
        sr = upscaler.upscale(pair.lr)
        scores = score_pair(pair, {SR: sr}, scorers, sheet if count < SHOWN else None)
        crops = (_center_crop(image).to(accelerator.device) for image in (sr, pair.hr))
        scores[SR]["content"] = run.content.total(run.content(*crops)).item()
        for column, (label, name) in enumerate(COLUMNS):
            if (score := scores[label][name]) is not None:
                sums[:, column] += torch.tensor([score, 1.0], dtype=torch.float64)
    totals, counts = accelerator.reduce(sums.float().to(accelerator.device), "sum").tolist()
    if sheet:
        for path in sheet.write():
            log_image(run, state.step, path)
    means: dict[str, dict[str, float]] = {BICUBIC: {}, SR: {}, HR: {}}
    for (label, name), total, count in zip(COLUMNS, totals, counts, strict=True):
        if count:
            means[label][name] = total / count
    return means


def flatten(means: dict[str, dict[str, float]]) -> dict[str, float]:
    """Name the means for metrics.jsonl: val_psnr_y, val_bicubic_psnr_y, val_hr_checkerboard_db and so on."""
    prefix = {SR: "", BICUBIC: "bicubic_", HR: "hr_"}
    return {f"val_{prefix[label]}{name}": value for label, scores in means.items() for name, value in scores.items()}


def make_report(run: TrainContext, means: dict[str, dict[str, float]], name: str) -> Report:
    """Return the means as a report of `evaluate`, for the card of the model `name`."""
    config, rows = run.config, {BICUBIC: BICUBIC, name: SR, HR: HR}
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


def _center_crop(image: np.ndarray) -> Tensor:
    top, left = (max(0, (side - CONTENT_CROP) // 2) for side in image.shape[:2])
    return to_tensor(image[top : top + CONTENT_CROP, left : left + CONTENT_CROP]).float()
