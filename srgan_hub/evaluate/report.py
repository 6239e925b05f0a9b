"""What an evaluation found, and under which protocol."""

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
TASK = "image-to-image"


@dataclass(frozen=True)
class Protocol:
    """All that scores depend on besides the model. Scores of different protocols cannot be compared."""

    data: str
    images: int
    scale: int
    crop_border: int
    lr: str  # how it was made, or where it was found
    jpeg: str  # how the LR was compressed, or ""
    data_sha256: str  # of every LR and HR pixel
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
        return (
            f"{self.data}: {self.images} images. LR: {self.degradation}. Outputs rounded to {self.rounding}. PSNR "
            f"and SSIM on Y ({self.luma}) and on RGB, {self.crop_border} pixels cropped off each side; other scores on "
            "whole images."
        )


Scores = dict[str, float | None]


@dataclass(frozen=True)
class ModelResult:
    """One model's scores: by image, then by name."""

    name: str
    images: dict[str, Scores]
    seconds: float | None = None  # for all images
    weights_sha256: str | None = None

    def values(self, metric: str) -> list[float]:
        """List the score of every image that has it."""
        return [value for scores in self.images.values() if (value := scores.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return float(np.mean(values)) if values else None


class Difference(NamedTuple):
    """Mean of a score's paired differences to the first model, with a 95 % bootstrap interval over images."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """Scores of bicubic, of models and of the ground truth itself, in this order, all of one protocol."""

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
        """Put another model first, so that the others are compared to it. ValueError if there is none of that name."""
        if model not in self.models:
            raise ValueError(f"The report on {self.protocol.data} has no model {model!r}; it has {self.models}.")
        return replace(self, rows=tuple(sorted(self.rows, key=lambda row: (row.name != BICUBIC, row.name != model))))

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Return by row and score the paired differences to the first model; none if there is a single image."""
        found: dict[str, dict[str, Difference]] = {}
        for row in self.rows:
            if self.models and row.name not in (self.models[0], HR):
                paired = {metric: _pairs(row, self[self.models[0]], metric) for metric in self.metrics}
                found[row.name] = {name: _bootstrap(values) for name, values in paired.items() if len(values) > 1}
        return found

    def to_json(self) -> str:
        """Write everything, per image too."""
        differences = {name: {m: d._asdict() for m, d in row.items()} for name, row in self.differences().items()}
        content = {
            "protocol": asdict(self.protocol),
            "environment": self.environment,
            "rows": [{**asdict(row), "mean": {m: row.mean(m) for m in self.metrics}} for row in self.rows],
            "differences_to": self.models[0] if self.models else None,
            "differences": differences,
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self, *, cost: bool = True) -> str:
        """Write the table of means and the differences.

        Args:
            cost: also the time and the notes, which depend on the machine and not on the model alone.
        """
        titles = [str(METRICS[metric]) for metric in self.metrics]
        means = [[row.name, *(_number(row.mean(m), METRICS[m].digits) for m in self.metrics)] for row in self.rows]
        if cost:
            means = [[*cells, _number(row.seconds, 2)] for cells, row in zip(means, self.rows, strict=True)]
        lines = [str(self.protocol), "", *_table([*titles, *(["time, s"] if cost else [])], means)]
        if differences := {name: row for name, row in self.differences().items() if row}:
            leader = f"Difference to {self.models[0]}, with the 95 % interval of a paired bootstrap over images:"
            cells = [
                [name, *(_interval(row.get(m), METRICS[m].digits) for m in self.metrics)]
                for name, row in differences.items()
            ]
            lines += ["", leader, "", *_table(titles, cells)]
        lines += [line for note in self.notes if cost for line in ("", note)]
        return "\n".join(lines) + "\n"

    def eval_results(self) -> list[EvalResult]:
        """State the first model's means as entries of the Hub's model-index; the protocol is part of each."""
        row = self[self.models[0]]
        return [
            EvalResult(
                task_type=TASK,
                dataset_type=re.sub(r"[^\w.-]+", "-", self.protocol.data).lower(),
                dataset_name=self.protocol.data,
                dataset_config=self.protocol.degradation,
                metric_type=metric.removesuffix("_y") if metric in ("psnr_y", "ssim_y") else metric,
                metric_name=METRICS[metric].text
                + (f", shave {self.protocol.crop_border}" if metric.startswith(("psnr", "ssim")) else ""),
                metric_value=round(mean, METRICS[metric].digits + 1),
            )
            for metric in self.metrics
            if (mean := row.mean(metric)) is not None
        ]


def write_to_card(folder: Path, reports: Sequence[Report]) -> None:
    """Put reports into the card of a model's folder, in place of the scores that it has; the rest of it stays.

    Reports of different protocols stand in tables of their own. Writing the same reports again changes nothing.

    Args:
        folder: the model's folder, with its README.md.
        reports: from `evaluate`, at least one, all with a row of this model, which has the folder's name.

    Raises:
        ModelLoadError: the folder has no card.
        ValueError: a report has no such model, or there is no report.
    """
    card = load_card_text(folder)
    if not card:
        raise ModelLoadError(f"{folder} has no {REPOCARD_NAME}; save the model with this package, which writes one.")
    if not reports:
        raise ValueError("Expected at least one report, got none.")
    reports = [report.with_baseline(folder.resolve().name) for report in reports]
    sections = [f"### {report.protocol.title}\n\n{report.to_markdown(cost=False)}" for report in reports]
    text = update_scores(card, "\n".join(sections), [result for report in reports for result in report.eval_results()])
    (folder / REPOCARD_NAME).write_text(text, encoding="utf-8", newline="\n")


def _pairs(row: ModelResult, first: ModelResult, metric: str) -> list[float]:
    pairs = [(row.images[name].get(metric), first.images[name].get(metric)) for name in row.images]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _bootstrap(differences: list[float]) -> Difference:
    values = np.array(differences)
    chosen = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[chosen].mean(axis=1), [2.5, 97.5])
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
