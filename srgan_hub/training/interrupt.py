"""Signals that end a run, noted instead of obeyed at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Note SIGTERM and Ctrl-C, so that the step ends and all ranks save and stop. A second Ctrl-C stops at once."""
    noted: list[str] = []

    def note(number: int, _: object) -> None:
        noted.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
