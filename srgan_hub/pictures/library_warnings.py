"""What libraries say while they work on one picture, as one line that names it."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

logger = logging.getLogger(__name__)

# For programmers; and too many pixels are refused by our own limit.
_UNHEARD = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning, Image.DecompressionBombWarning)


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Gather Python's warnings, Pillow's log and what C libraries write to stderr, and log it as one warning.

    It changes what all threads share, so it is for programs that read and write pictures in one.
    """
    ours: list[logging.LogRecord] = []
    pillows: list[logging.LogRecord] = []
    printed: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        # Ours waits until stderr is back, or it would be taken for what a C library writes.
        with (
            _diverted(__package__, ours),
            _diverted("PIL", pillows),
            _stderr_of_c(printed),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            yield
    finally:
        for record in ours:
            logging.getLogger(record.name).handle(record)
        said = [str(each.message) for each in caught if not issubclass(each.category, _UNHEARD)]
        said += [record.getMessage() for record in pillows] + printed
        # The same words come once for each strip of a broken file.
        lines = list(dict.fromkeys(" ".join(line.split()) for line in said))
        if lines:
            more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
            logger.warning("%s: %s%s", path, "; ".join(lines[:3]), more)


class _Keep(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _diverted(name: str, records: list[logging.LogRecord]) -> Iterator[None]:
    """Keep a logger's warnings in a list instead of handling them."""
    diverted, handler = logging.getLogger(name), _Keep(records)
    propagate, diverted.propagate = diverted.propagate, False
    diverted.addHandler(handler)
    try:
        yield
    finally:
        diverted.removeHandler(handler)
        diverted.propagate = propagate


@contextmanager
def _stderr_of_c(lines: list[str]) -> Iterator[None]:
    """Catch what is written to the process's stderr, libtiff's errors above all."""
    try:
        saved = os.dup(2)
    except OSError:  # a program without stderr
        yield
        return
    with tempfile.TemporaryFile() as file:
        if sys.stderr:
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr:
                sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
