"""Scores that can be compared: one protocol, stated beside every number."""

from .evaluate import evaluate
from .report import Report, write_to_card

__all__ = ["Report", "evaluate", "write_to_card"]
