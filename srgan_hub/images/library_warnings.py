"""Libraries' warnings on one image, gathered into one line that names it."""

import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path

from PIL import Image

logger = logging.getLogger(__name__)

# The first three are for programmers; the last is replaced by our own limit on pixels.
_IGNORED = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning, Image.DecompressionBombWarning)

_lock = threading.Lock()


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Gather Python's warnings, Pillow's log and what C libraries write to stderr, and log it as one warning.

    It changes stderr, loggers and filters for all threads: one block at a time, and the other threads had better be
    silent.
    """
    printed: list[str] = []
    caught: list[warnings.WarningMessage] = []
    ours, pillows = BufferingHandler(sys.maxsize), BufferingHandler(sys.maxsize)
    try:
        # Our own records wait until stderr is back, or they would be taken for what a C library writes.
        with (
            _lock,
            _diverted(__package__, ours),
            _diverted("PIL", pillows),
            _stderr_of_c(printed),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            yield
    finally:
        for record in ours.buffer:
            logging.getLogger(record.name).handle(record)
        said = [str(each.message) for each in caught if not issubclass(each.category, _IGNORED)]
        said += [record.getMessage() for record in pillows.buffer] + printed
        # The same words come once for each strip of a broken file.
        lines = list(dict.fromkeys(" ".join(line.split()) for line in said))
        if lines:
            more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
            logger.warning("%s: %s%s", path, "; ".join(lines[:3]), more)


@contextmanager
def _diverted(name: str, handler: logging.Handler) -> Iterator[None]:
    """Hand a logger's warnings to this handler alone."""
    diverted = logging.getLogger(name)
    handler.setLevel(logging.WARNING)
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
