"""Scores that can be compared: one protocol, stated beside every number."""

from .report import Report, combine
from .run import evaluate
from .scorecard import score_cards, write_to_card

__all__ = ["Report", "combine", "evaluate", "score_cards", "write_to_card"]
