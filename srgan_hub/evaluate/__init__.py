"""Scores that can be compared: one protocol, stated beside every number."""

from .report import Report, write_to_card
from .run import evaluate

__all__ = ["Report", "evaluate", "write_to_card"]
