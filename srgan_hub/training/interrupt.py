"""Graceful shutdown on SIGTERM and Ctrl-C."""

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def ignore_signals(worker: int = 0) -> None:
    """Ignore SIGTERM and Ctrl-C, which reach the whole process group, in a data loading process (`worker_init_fn`)."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Collect the names of SIGTERM and SIGINT instead of stopping; a second Ctrl-C exits at once, with code 130.

    The training loop checks the list after each step. Outside the main thread, where Python handles no signals, the
    list stays empty.
    """
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)

    # A thread watches for the second Ctrl-C: the main thread may be in a long computation, or wait for a dead rank.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(target=_exit_on_second_interrupt, args=(reader,), daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        writer.send(b"\0")  # closing it does not end the thread: data loading processes have inherited it
        watcher.join()
        reader.close()
        writer.close()


def _exit_on_second_interrupt(wakeups: socket.socket) -> None:
    """Read the number of each signal that arrives, until 0; exit at a Ctrl-C that follows another signal."""
    # torchrun forwards the Ctrl-C that a terminal has sent to all processes already.
    repeated = 1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.05
    first = math.inf
    while number := wakeups.recv(1)[0]:
        if number in SIGNALS:
            now = time.monotonic()
            if number == signal.SIGINT and now - first > repeated:
                for process in multiprocessing.active_children():
                    process.kill()
                os._exit(128 + signal.SIGINT)
            first = min(first, now)
