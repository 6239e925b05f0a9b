"""Runs in forked processes that are killed at a chosen call. Torch is imported once, by the server that forks them."""

import contextlib
import functools
import importlib
import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).parent.parent


class Kill(NamedTuple):
    """Signals before or after the numbered call of a function, to the process or to its group."""

    module: str
    function: str
    call: int
    after: bool = False
    signals: tuple[int, ...] = (signal.SIGKILL,)
    group: bool = False

    def send(self) -> None:
        for number in self.signals:
            if self.group:  # from another process: torch's data loading processes treat signals of their parent apart
                subprocess.run(["kill", f"-{int(number)}", "--", f"-{os.getpgrp()}"], start_new_session=True)
            else:
                os.kill(os.getpid(), number)
            time.sleep(0.2)  # two signals that arrive at the same moment are one


@functools.cache
def fork_context() -> Any:
    """Start the server that imports torch and the training script and forks a process for each call."""
    context: Any = multiprocessing.get_context("forkserver")
    # torch._dynamo is loaded by the first optimizer, pytest by each process that pytest starts.
    context.set_forkserver_preload(["pytest", "train_accelerate", "torch._dynamo"])
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")]), OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def run_forked(*calls: tuple[Any, ...]) -> list[int]:
    """Run calls, each a function and its arguments, side by side; return exit codes, negative for a signal."""
    processes = [fork_context().Process(target=function, args=arguments) for function, *arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        process.kill()
        process.join()
        _wait_for_group(process.pid)
    return [process.exitcode for process in processes]


def _wait_for_group(number: int) -> None:
    """Wait until all data loading processes have ended."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(number, 0)
            time.sleep(0.05)
        raise AssertionError("data loading processes outlived the run by 10 seconds")


def train(argv: list[str], kill: Kill | None = None) -> None:
    """Run the training script in a process group of its own."""
    import train_accelerate

    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # data loading processes need no server of their own
    if kill:
        plan(kill)
    raise SystemExit(train_accelerate.main(argv))


def plan(kill: Kill) -> None:
    """Replace the function by one that sends the signals."""
    module, calls = importlib.import_module(kill.module), []
    function = getattr(module, kill.function)

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(kill.function)
        if len(calls) == kill.call and not kill.after:
            kill.send()
        result = function(*args, **options)
        if len(calls) == kill.call and kill.after:
            kill.send()
        return result

    setattr(module, kill.function, counted)
