"""What an evaluation found, and under which protocol."""

import json
import re
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from huggingface_hub import EvalResult

from .judges import TITLES

BICUBIC, HR = "bicubic", "HR"
RESAMPLES, SEED = 10_000, 0
TASK = "image-to-image"


@dataclass(frozen=True)
class Protocol:
    """All that scores depend on beside the model. Scores of different protocols cannot be compared."""

    data: str
    pictures: int
    scale: int
    shave: int
    lr: str  # how it was made, or where it was found
    jpeg: str  # how the LR was compressed, or ""
    data_sha256: str  # of every LR and HR pixel
    rounding: str = "8 bits"
    luma: str = "BT.601, 16 to 235"

    @property
    def degradation(self) -> str:
        return f"x{self.scale}, {self.lr}" + (f", saved as {self.jpeg}" if self.jpeg else "")

    def __str__(self) -> str:
        return (
            f"{self.data}: {self.pictures} pictures. LR: {self.degradation}. Outputs rounded to {self.rounding}. PSNR "
            f"and SSIM on Y ({self.luma}) and on RGB, {self.shave} pixels shaved off each side; other scores on whole "
            "pictures."
        )


Scores = dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """One model's scores: by picture, then by name."""

    name: str
    pictures: dict[str, Scores]
    seconds: float | None = None  # for all pictures
    weights_sha256: str | None = None

    def values(self, metric: str) -> list[float]:
        """List the score of every picture that has it."""
        return [value for scores in self.pictures.values() if (value := scores.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Difference:
    """Mean of a score's paired differences to the first model, with a 95 % bootstrap interval over pictures."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """Scores of bicubic, of models and of the ground truth itself, in this order, all of one protocol."""

    protocol: Protocol
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    environment: dict[str, str | int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def models(self) -> list[str]:
        return [row.name for row in self.rows if row.name not in (BICUBIC, HR)]

    @property
    def metrics(self) -> list[str]:
        return [metric for metric in TITLES if any(row.values(metric) for row in self.rows)]

    def led_by(self, model: str) -> "Report":
        """Put another model first, so that the others are compared to it. ValueError if there is none of that name."""
        if model not in self.models:
            raise ValueError(f"the report on {self.protocol.data} has no model {model!r}; it has {self.models}")
        order = [BICUBIC, model, *(name for name in self.models if name != model), HR]
        return replace(self, rows=tuple(row for name in order for row in self.rows if row.name == name))

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Give by row and score the paired differences to the first model; none if there is a single picture."""
        found: dict[str, dict[str, Difference]] = {}
        for row in self.rows:
            if self.models and row.name not in (self.models[0], HR):
                first = self[self.models[0]]
                paired = {metric: _pairs(row, first, metric) for metric in self.metrics}
                found[row.name] = {name: _bootstrap(values) for name, values in paired.items() if len(values) > 1}
        return found

    def to_json(self) -> str:
        """Write everything, per picture too."""
        rows = [{**asdict(row), "mean": {metric: row.mean(metric) for metric in self.metrics}} for row in self.rows]
        differences = {name: {m: asdict(d) for m, d in row.items()} for name, row in self.differences().items()}
        content = {
            "protocol": asdict(self.protocol),
            "environment": self.environment,
            "rows": rows,
            "differences_to": self.models[0] if self.models else None,
            "differences": differences,
            "notes": self.notes,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self, *, cost: bool = True, notes: bool = True) -> str:
        """Write the table of means, the differences and the notes.

        Args:
            cost: time too, which is of the machine and not of the model alone.
            notes: sentences on scores that could not be had.
        """
        titles = [str(TITLES[metric]) for metric in self.metrics]
        extra = ["time, s"] if cost else []
        lines = [str(self.protocol), "", _line(["", *titles, *extra]), _line([":--", *["--:"] * len(titles + extra)])]
        for row in self.rows:
            cells = [_number(row.mean(metric), TITLES[metric].digits) for metric in self.metrics]
            if cost:
                cells.append(_number(row.seconds, 2))
            lines.append(_line([row.name, *cells]))
        if differences := {name: row for name, row in self.differences().items() if row}:
            lines += [
                "",
                f"Difference to {self.models[0]}, with the 95 % interval of a paired bootstrap over pictures:",
                "",
            ]
            lines += [_line(["", *titles]), _line([":--", *["--:"] * len(titles)])]
            for name, by_metric in differences.items():
                lines.append(_line([name, *(_interval(by_metric.get(m), TITLES[m].digits) for m in self.metrics)]))
        lines += [line for note in self.notes if notes for line in ("", note)]
        return "\n".join(lines) + "\n"

    def eval_results(self) -> list[EvalResult]:
        """State the first model's means as entries of the Hub's model-index; the protocol is part of each."""
        row = self[self.models[0]]
        means = {metric: row.mean(metric) for metric in self.metrics}
        return [
            EvalResult(
                task_type=TASK,
                dataset_type=re.sub(r"[^\w.-]+", "-", self.protocol.data).lower(),
                dataset_name=self.protocol.data,
                dataset_config=self.protocol.degradation,
                metric_type=metric.removesuffix("_y") if metric in ("psnr_y", "ssim_y") else metric,
                metric_name=self._state(metric),
                metric_value=round(mean, TITLES[metric].digits + 1),
            )
            for metric, mean in means.items()
            if mean is not None
        ]

    def _state(self, metric: str) -> str:
        shaved = f", shave {self.protocol.shave}" if metric.startswith(("psnr", "ssim")) else ""
        return f"{TITLES[metric].text}{shaved}"


def _pairs(row: Row, first: Row, metric: str) -> list[float]:
    both: list[float] = []
    for picture, scores in row.pictures.items():
        a, b = scores.get(metric), first.pictures.get(picture, {}).get(metric)
        if a is not None and b is not None:
            both.append(a - b)
    return both


def _bootstrap(differences: list[float]) -> Difference:
    values = np.array(differences)
    chosen = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[chosen].mean(axis=1), [2.5, 97.5])
    return Difference(float(values.mean()), float(low), float(high))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(difference: Difference | None, digits: int) -> str:
    if difference is None:
        return "-"
    return f"{difference.mean:+.{digits}f} ({difference.low:+.{digits}f} to {difference.high:+.{digits}f})"
