"""Validation: whole images through the streamed upscaler with the averaged weights, scored as `evaluate` scores."""

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
# What is scored of bicubic, output and truth: evaluate's scores, and the content loss of the run itself.
NAMES = ("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb", "lr_consistency", "high_freq_ratio", "checkerboard_db")
COLUMNS = [*((SR, name) for name in (*NAMES, "content")), *((BICUBIC, name) for name in NAMES)]
COLUMNS += [(HR, name) for name in NAMES if name in NO_REFERENCE]
SHOWN = 4  # images on the contact sheet
CONTENT_CROP = 192  # the middle of an image that the content loss judges


@torch.no_grad()
def validate(run: TrainContext, state: TrainState) -> dict[str, dict[str, float]]:
    """Score the averaged generator on the validation images and write a contact sheet to images/step-N.png.

    The images are divided among the ranks.

    Returns:
        Means over all images, by output (bicubic, SR, HR) and name of the score.
    """
    args, accelerator = run.args, run.accelerator
    assert run.validation is not None
    upscaler = ema_model(run, state).upscaler(device=accelerator.device, dtype="fp32", backend="torch")
    scorers, _ = make_scorers(NAMES, crop_border=args.scale, scale=args.scale, device=accelerator.device)
    sheet = ContactSheet(args.output_dir / "images", f"step-{state.step}") if accelerator.is_main_process else None
    sums = torch.zeros(2, len(COLUMNS), dtype=torch.float64)
    for count, number in enumerate(range(accelerator.process_index, len(run.validation), accelerator.num_processes)):
        pair = run.validation[number]
        sr = upscaler.upscale(pair.lr)
        scores = score_pair(pair, {SR: sr}, scorers, scale=args.scale, sheet=sheet if count < SHOWN else None)
        middle = (_middle(image).to(accelerator.device) for image in (sr, pair.hr))
        scores[SR]["content"] = run.content.total(run.content(*middle)).item()
        for column, (label, name) in enumerate(COLUMNS):
            if (score := scores[label][name]) is not None:
                sums[:, column] += torch.tensor([score, 1.0], dtype=torch.float64)
    total, counts = accelerator.reduce(sums.float().to(accelerator.device), "sum").tolist()
    if sheet:
        for path in sheet.write():
            log_image(run, state.step, path)
    means: dict[str, dict[str, float]] = {BICUBIC: {}, SR: {}, HR: {}}
    for (label, name), value, seen in zip(COLUMNS, total, counts, strict=True):
        if seen:
            means[label][name] = value / seen
    return means


def flatten(means: dict[str, dict[str, float]]) -> dict[str, float]:
    """Name the means as metrics.jsonl does: val_psnr_y, val_bicubic_psnr_y, val_hr_checkerboard_db and so on."""
    prefix = {SR: "", BICUBIC: "bicubic_", HR: "hr_"}
    return {f"val_{prefix[label]}{name}": value for label, scores in means.items() for name, value in scores.items()}


def report(run: TrainContext, means: dict[str, dict[str, float]], name: str) -> Report:
    """Return the means as `evaluate` reports them, for a card of the model called `name`."""
    args, rows = run.args, {BICUBIC: BICUBIC, name: SR, HR: HR}
    assert run.validation is not None
    protocol = Protocol(
        data="DIV2K validation" if args.val_data == "div2k" else Path(args.val_data).resolve().name,
        images=len(run.validation),
        scale=args.scale,
        crop_border=args.scale,
        lr=describe_lr(None, "matlab", args.degradation.replace("bicubic", "") or None, seed=args.seed),
        jpeg="",
        data_sha256="",
    )
    return Report(protocol, tuple(ModelResult(title, {"mean": dict(means[label])}) for title, label in rows.items()))


def _middle(image: np.ndarray) -> Tensor:
    top, left = (max(0, (side - CONTENT_CROP) // 2) for side in image.shape[:2])
    return to_tensor(image[top : top + CONTENT_CROP, left : left + CONTENT_CROP]).float()
