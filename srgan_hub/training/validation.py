"""Validation: whole pictures through the streamed upscaler with the averaged weights, scored as `evaluate` scores."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..evaluate.data import to_tensor
from ..evaluate.judges import OF_HR, make_judges
from ..evaluate.report import BICUBIC, HR, Protocol, Report, Row
from ..evaluate.run import describe_lr, score_pair
from ..evaluate.sheet import ContactSheet
from .metrics_log import show
from .run import Run, State, averaged_model

SR = "SR"
# What is scored of bicubic, output and truth: evaluate's scores, and the content loss of the run itself.
NAMES = ("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb", "lr_consistency", "top_octave", "lattice_db")
COLUMNS = [*((SR, name) for name in (*NAMES, "content")), *((BICUBIC, name) for name in NAMES)]
COLUMNS += [(HR, name) for name in NAMES if name in OF_HR]
SHOWN = 4  # pictures on the contact sheet
CONTENT_CROP = 192  # the middle of a picture that the content loss judges


@torch.no_grad()
def validate(run: Run, state: State) -> dict[str, dict[str, float]]:
    """Score the averaged generator on the validation pictures and write a contact sheet to pictures/step-N.png.

    The pictures are divided among the ranks.

    Returns:
        Means over all pictures, by output (bicubic, SR, HR) and name of the score.
    """
    args, accelerator = run.args, run.accelerator
    assert run.validation is not None
    upscaler = averaged_model(run, state).upscaler(device=accelerator.device, precision="fp32", engine="torch")
    judges, _ = make_judges(NAMES, shave=args.scale, scale=args.scale, device=accelerator.device)
    sheet = ContactSheet(args.output_dir / "pictures", f"step-{state.step}") if accelerator.is_main_process else None
    sums = torch.zeros(2, len(COLUMNS), dtype=torch.float64)
    for count, number in enumerate(range(accelerator.process_index, len(run.validation), accelerator.num_processes)):
        pair = run.validation[number]
        sr = upscaler.upscale(pair.lr)
        scores = score_pair(pair, {SR: sr}, judges, scale=args.scale, sheet=sheet if count < SHOWN else None)
        middle = (_middle(picture).to(accelerator.device) for picture in (sr, pair.hr))
        scores[SR]["content"] = run.content.total(run.content(*middle)).item()
        for column, (label, name) in enumerate(COLUMNS):
            if (score := scores[label][name]) is not None:
                sums[:, column] += torch.tensor([score, 1.0], dtype=torch.float64)
    total, counts = accelerator.reduce(sums.float().to(accelerator.device), "sum").tolist()
    if sheet:
        for path in sheet.write():
            show(run, state.step, path)
    means: dict[str, dict[str, float]] = {BICUBIC: {}, SR: {}, HR: {}}
    for (label, name), value, seen in zip(COLUMNS, total, counts, strict=True):
        if seen:
            means[label][name] = value / seen
    return means


def flatten(means: dict[str, dict[str, float]]) -> dict[str, float]:
    """Name the means as metrics.jsonl does: val_psnr_y, val_bicubic_psnr_y, val_hr_lattice_db and so on."""
    prefix = {SR: "", BICUBIC: "bicubic_", HR: "hr_"}
    return {f"val_{prefix[label]}{name}": value for label, scores in means.items() for name, value in scores.items()}


def report(run: Run, means: dict[str, dict[str, float]], name: str) -> Report:
    """Return the means as `evaluate` reports them, for a card of the model called `name`."""
    args, rows = run.args, {BICUBIC: BICUBIC, name: SR, HR: HR}
    assert run.validation is not None
    protocol = Protocol(
        data="DIV2K validation" if args.val_data == "div2k" else Path(args.val_data).resolve().name,
        pictures=len(run.validation),
        scale=args.scale,
        shave=args.scale,
        lr=describe_lr(None, "matlab", args.degradation.replace("bicubic", "") or None, seed=args.seed),
        jpeg="",
        data_sha256="",
    )
    return Report(protocol, tuple(Row(title, {"mean": dict(means[label])}) for title, label in rows.items()))


def _middle(picture: np.ndarray) -> Tensor:
    top, left = (max(0, (side - CONTENT_CROP) // 2) for side in picture.shape[:2])
    return to_tensor(picture[top : top + CONTENT_CROP, left : left + CONTENT_CROP]).float()
