"""Scores into a model's card: the tables that people read and the model-index that the Hub reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.constants import REPOCARD_NAME

from ..card import read_card, write_scores
from ..names import ModelError
from .report import Report
from .run import evaluate


def write_to_card(folder: Path, reports: Sequence[Report], *, model: str | None = None) -> None:
    """Put reports into the card of a model's folder, in place of the scores that it has; the rest of it stays.

    Reports of different protocols stand in tables of their own. Writing the same reports again changes nothing.

    Args:
        folder: the model's folder, with its README.md.
        reports: from ``evaluate``, all with a row of this model.
        model: the name of its row; by default the folder's.

    Raises:
        ModelError: the folder has no card.
        ValueError: a report has no such model, or there is no report.
    """
    card = read_card(folder)
    if not card:
        raise ModelError(f"{folder} has no {REPOCARD_NAME}; save the model with this package, which writes one")
    if not reports:
        raise ValueError("expected at least one report")
    reports = [report.led_by(model or folder.resolve().name) for report in reports]
    sections = [f"### {_title(report)}\n\n{report.to_markdown(cost=False, notes=False)}" for report in reports]
    results = [result for report in reports for result in report.eval_results()]
    text = write_scores(card, "\n".join(sections), results)
    (folder / REPOCARD_NAME).write_text(text, encoding="utf-8", newline="\n")


def score_cards(
    folders: Sequence[Path],
    data: Sequence[Path],
    *,
    lr: str | None = None,
    jpeg: Sequence[int | None] = (None, 75),
    **options: Any,
) -> list[Report]:
    """Evaluate models on several data sets, clean and compressed, and write the scores into the card of each.

    Args:
        folders: the models' folders.
        data: folders of ground truth.
        lr: the name of the folder of LR files in each of these; None makes them.
        jpeg: qualities with which LR is saved first; None is not at all.
        options: of ``evaluate``.

    Raises:
        As ``evaluate`` and ``write_to_card``.
    """
    reports = [
        evaluate(folders, data=path, lr=path / lr if lr else None, jpeg=quality, **options)
        for quality in jpeg
        for path in data
    ]
    for folder in folders:
        write_to_card(folder, reports)
    return reports


def _title(report: Report) -> str:
    protocol = report.protocol
    how = f"saved as {protocol.jpeg}" if protocol.jpeg else protocol.lr if "degradation" in protocol.lr else ""
    return protocol.data + (f", LR {how}" if how else "")
