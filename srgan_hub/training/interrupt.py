"""Graceful shutdown on SIGTERM and Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Collect the names of SIGTERM and SIGINT instead of stopping; a second Ctrl-C stops at once.

    The training loop checks the list after each step. Outside the main thread, where Python handles no signals, the
    list stays empty.
    """
    received: list[str] = []

    def handle(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
