"""Scores into a model's card: the tables that people read and the model-index that the Hub reads."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.constants import REPOCARD_NAME

from ..card import read_card, write_scores
from ..hub import ModelError
from .report import Report


def write_to_card(folder: Path, reports: Sequence[Report]) -> None:
    """Put reports into the card of a model's folder, in place of the scores that it has; the rest of it stays.

    Reports of different protocols stand in tables of their own. Writing the same reports again changes nothing.

    Args:
        folder: the model's folder, with its README.md.
        reports: from ``evaluate``, all with a row of this model, which has the folder's name.

    Raises:
        ModelError: the folder has no card.
        ValueError: a report has no such model, or there is no report.
    """
    card = read_card(folder)
    if not card:
        raise ModelError(f"{folder} has no {REPOCARD_NAME}; save the model with this package, which writes one")
    if not reports:
        raise ValueError("expected at least one report")
    reports = [report.led_by(folder.resolve().name) for report in reports]
    sections = [f"### {_title(report)}\n\n{report.to_markdown(cost=False, notes=False)}" for report in reports]
    results = [result for report in reports for result in report.eval_results()]
    text = write_scores(card, "\n".join(sections), results)
    (folder / REPOCARD_NAME).write_text(text, encoding="utf-8", newline="\n")


def _title(report: Report) -> str:
    protocol = report.protocol
    how = f"saved as {protocol.jpeg}" if protocol.jpeg else protocol.lr if "degradation" in protocol.lr else ""
    return protocol.data + (f", LR {how}" if how else "")
