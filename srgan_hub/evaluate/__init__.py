"""Evaluation of models on benchmarks, with the protocol in every report."""

from .evaluate import evaluate
from .report import Report, write_to_card

__all__ = ["Report", "evaluate", "write_to_card"]
