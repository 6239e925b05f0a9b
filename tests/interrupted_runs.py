"""Run by test_train.py in a process of its own, which forks a run for each attempt: torch is imported only once.

    python interrupted_runs.py OUTPUT PRECISION ARGUMENTS...

trains once without interruption into OUTPUT/whole, and once into OUTPUT/killed, where the runs are killed by SIGKILL at
random places, within steps and within saves, and resumed.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  # which the first optimizer would load, in each fork again

import train_accelerate
from srgan_hub import fileio
from srgan_hub.training import checkpoint


def attempt(argv: list[str], plan: Callable[[], None] | None = None) -> int:
    """Run in a fork; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        if plan:
            plan()
        os._exit(train_accelerate.main(argv))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_call(owner: Any, name: str, number: int, *, after: bool) -> Callable[[], None]:
    """Plan a SIGKILL before or after the numbered call of a function."""

    def plan() -> None:
        real, calls = getattr(owner, name), []

        def counted(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if len(calls) == number and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)

    return plan


def main(output: str, dtype: str, *arguments: str) -> None:
    def argv(name: str) -> list[str]:
        return [*arguments, "--mixed-precision", dtype, "--output-dir", str(Path(output) / name)]

    assert attempt(argv("whole")) == 0
    places = random.Random(dtype)
    killed = [
        attempt([*argv("killed"), "--resume-from-checkpoint"], die_at_call(*place, after=places.random() < 0.5))
        for place in (
            (train_accelerate, "train_step", 1),  # before any checkpoint
            (train_accelerate, "generator_step", places.randint(4, 7)),
            (checkpoint, "save_file", 1),  # half a checkpoint lies there
            (fileio, "_fsync", places.randint(1, 8)),
            (train_accelerate, "train_step", places.randint(1, 2)),
            (checkpoint, "prune", 1),
        )
    ]
    assert killed == [-signal.SIGKILL] * len(killed), killed
    assert attempt([*argv("killed"), "--resume-from-checkpoint"]) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
