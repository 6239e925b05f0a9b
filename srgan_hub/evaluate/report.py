"""Evaluation reports as JSON, Markdown and model-index entries."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from huggingface_hub import EvalResult
from huggingface_hub.constants import REPOCARD_NAME

from ..hub import ModelLoadError
from ..model_card import load_card_text, update_scores
from .scorers import METRICS

BICUBIC, HR = "bicubic", "HR"
RESAMPLES, SEED = 10_000, 0


@dataclass(frozen=True)
class Protocol:
    """Everything except the model that scores depend on. Scores of different protocols cannot be compared."""

    data: str
    images: int
    scale: int
    crop_border: int
    lr: str  # how the LR images were generated, or their directory
    jpeg: str = ""  # compression of the LR images
    data_sha256: str = ""  # of all LR and HR pixels
    rounding: str = "8 bits"
    luma: str = "BT.601, 16 to 235"

    @property
    def degradation(self) -> str:
        return f"x{self.scale}, {self.lr}" + (f", saved as {self.jpeg}" if self.jpeg else "")

    @property
    def title(self) -> str:
        how = f"saved as {self.jpeg}" if self.jpeg else self.lr if "degradation" in self.lr else ""
        return self.data + (f", LR {how}" if how else "")

    def __str__(self) -> str:
        images = f"{self.data}: {self.images} images. LR: {self.degradation}. Outputs are rounded to {self.rounding}."
        crop = f"{self.crop_border} pixels cropped from each side; other metrics on full images"
        return f"{images} PSNR and SSIM on Y ({self.luma}) and RGB, {crop}."


Scores = dict[str, float | None]


@dataclass(frozen=True)
class ModelResult:
    """Scores of one model: image -> metric -> score."""

    name: str
    images: dict[str, Scores]
    seconds: float | None = None  # for all images
    weights_sha256: str | None = None

    def values(self, metric: str) -> list[float]:
        """Return the scores of all images that have one."""
        return [value for scores in self.images.values() if (value := scores.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return float(np.mean(values)) if values else None


class Difference(NamedTuple):
    """Mean paired difference to the baseline, with a 95 % bootstrap interval over images."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """Scores of bicubic, the models (the first is the baseline) and the ground truth, under one protocol."""

    protocol: Protocol
    rows: tuple[ModelResult, ...]
    notes: tuple[str, ...] = ()
    environment: dict[str, str | int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ModelResult:
        return {row.name: row for row in self.rows}[name]

    @property
    def models(self) -> list[str]:
        return [row.name for row in self.rows if row.name not in (BICUBIC, HR)]

    @property
    def metrics(self) -> list[str]:
        return [metric for metric in METRICS if any(row.values(metric) for row in self.rows)]

    def with_baseline(self, model: str) -> "Report":
        """Return the report with another model as the baseline, in first place. Raise ValueError if it is unknown."""
        if model not in self.models:
            raise ValueError(f"The report has no model '{model}', only {', '.join(self.models)}.")
        return replace(self, rows=tuple(sorted(self.rows, key=lambda row: (row.name != BICUBIC, row.name != model))))

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Return paired differences to the baseline: row -> metric -> difference. A single image has none."""
        found: dict[str, dict[str, Difference]] = {}
        for row in self.rows:
            if self.models and row.name not in (self.models[0], HR):
                paired = {metric: _bootstrap(row, self[self.models[0]], metric) for metric in self.metrics}
                found[row.name] = {metric: difference for metric, difference in paired.items() if difference}
        return found

    def to_json(self) -> str:
        """Return everything as JSON, including the scores of each image."""
        content = {
            "protocol": asdict(self.protocol),
            "environment": self.environment,
            "rows": [{**asdict(row), "mean": {m: row.mean(m) for m in self.metrics}} for row in self.rows],
            "differences_to": self.models[0] if self.models else None,
            "differences": {n: {m: d._asdict() for m, d in row.items()} for n, row in self.differences().items()},
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self, *, cost: bool = True) -> str:
        """Return the tables of means and differences as Markdown; `cost` adds the time and the notes."""
        titles = [str(METRICS[metric]) for metric in self.metrics]
        means = [[row.name, *(_number(row.mean(m), METRICS[m].digits) for m in self.metrics)] for row in self.rows]
        if cost:
            means = [[*cells, _number(row.seconds, 2)] for cells, row in zip(means, self.rows, strict=True)]
        lines = [str(self.protocol), "", *_table([*titles, *(["time, s"] if cost else [])], means)]
        if differences := {name: row for name, row in self.differences().items() if row}:
            caption = f"Difference to {self.models[0]}, with the 95 % interval of a paired bootstrap over images:"
            cells = [
                [n, *(_interval(d.get(m), METRICS[m].digits) for m in self.metrics)] for n, d in differences.items()
            ]
            lines += ["", caption, "", *_table(titles, cells)]
        lines += [line for note in self.notes if cost for line in ("", note)]
        return "\n".join(lines) + "\n"

    def eval_results(self) -> list[EvalResult]:
        """Return the means of the baseline as entries of the Hub's model-index, each with its protocol."""
        row = self[self.models[0]]
        return [
            EvalResult(
                task_type="image-to-image",
                dataset_type=re.sub(r"[^\w.-]+", "-", self.protocol.data).lower(),
                dataset_name=self.protocol.data,
                dataset_config=self.protocol.degradation,
                metric_type=metric.removesuffix("_y") if metric in ("psnr_y", "ssim_y") else metric,
                metric_name=METRICS[metric].text
                + (f", crop border {self.protocol.crop_border}" if metric.startswith(("psnr", "ssim")) else ""),
                metric_value=round(mean, METRICS[metric].digits + 1),
            )
            for metric in self.metrics
            if (mean := row.mean(metric)) is not None
        ]


def write_to_card(directory: Path, reports: Sequence[Report]) -> None:
    """Replace the scores in the card of a model directory by a table per report; the rest of the card is kept.

    Raises:
        ModelLoadError: The directory has no card.
        ValueError: A report has no row with the name of the directory, or `reports` is empty.
    """
    card = load_card_text(directory)
    if not card:
        raise ModelLoadError(f"'{directory}' has no {REPOCARD_NAME}; `SRGAN.save_pretrained` writes one.")
    if not reports:
        raise ValueError("`reports` must not be empty.")
    reports = [report.with_baseline(directory.resolve().name) for report in reports]
    sections = [f"### {report.protocol.title}\n\n{report.to_markdown(cost=False)}" for report in reports]
    text = update_scores(card, "\n".join(sections), [result for report in reports for result in report.eval_results()])
    (directory / REPOCARD_NAME).write_text(text, encoding="utf-8", newline="\n")


def _bootstrap(row: ModelResult, baseline: ModelResult, metric: str) -> Difference | None:
    pairs = [(row.images[name].get(metric), baseline.images[name].get(metric)) for name in row.images]
    values = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if len(values) < 2:
        return None
    samples = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[samples].mean(axis=1), [2.5, 97.5])
    return Difference(float(values.mean()), float(low), float(high))


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    cells = [["", *titles], [":--", *["--:"] * len(titles)], *rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(difference: Difference | None, digits: int) -> str:
    if difference is None:
        return "-"
    return f"{difference.mean:+.{digits}f} ({difference.low:+.{digits}f} to {difference.high:+.{digits}f})"
