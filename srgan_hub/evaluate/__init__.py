"""Scores that can be compared: one protocol, stated beside every number."""

from .report import Report
from .run import evaluate
from .scorecard import write_to_card

__all__ = ["Report", "evaluate", "write_to_card"]
