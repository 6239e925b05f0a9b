"""Who waits for whom: the users' runs in the order in which they came."""

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class JobCancelledError(Exception):
    """The user stopped the run; the message says how."""


@dataclass(eq=False)
class Job:
    """A user's run, and why it shall stop, if it shall."""

    session: str
    client: str
    stopped: str = ""

    def check(self) -> None:
        """Raise `JobCancelledError` if this run shall stop."""
        if self.stopped:
            raise JobCancelledError(self.stopped)


class JobQueue:
    """The runs of all users; the first `concurrency` of them are at work. Threads may share it.

    Args:
        concurrency: how many are at work at once.
        length: how many may be in the line, those at work included.
        each: how many places of them one user may hold.
    """

    def __init__(self, *, concurrency: int = 1, length: int = 20, each: int = 3) -> None:
        self.concurrency, self.length, self.each = concurrency, length, each
        self._jobs: list[Job] = []
        self._moved = threading.Condition()
        # Where the server's many threads each took steps, each would keep memory for them.
        self._threads = ThreadPoolExecutor(concurrency)

    @contextmanager
    def enqueue(self, session: str, client: str = "") -> Iterator[Job]:
        """Queue up a run. ValueError if the line is full or this user has places enough."""
        job = Job(session, client or session)
        with self._moved:
            if len(self._jobs) >= self.length:
                raise ValueError("Busy: the line is full. Try again in a minute.")
            if sum(other.client == job.client for other in self._jobs) >= self.each:
                raise ValueError(f"You have {self.each} images in the line already. Wait until one is done.")
            self._jobs.append(job)
        try:
            yield job
        finally:
            with self._moved:
                self._jobs.remove(job)
                self._moved.notify_all()

    def wait_turn(self, job: Job) -> Iterator[int]:
        """Wait for a run's turn, and yield each second how many must end before. Raises `JobCancelledError`.

        More often would cost the run that is at work: Gradio takes some milliseconds for what it sends.
        """
        while True:
            with self._moved:
                self._moved.wait_for(lambda: job in self._jobs[: self.concurrency] or job.stopped, timeout=1)
                job.check()
                ahead = self._jobs.index(job) - self.concurrency + 1
            if ahead <= 0:
                return
            yield ahead

    def run(self, job: Job, steps: Iterator[T]) -> Iterator[T]:
        """Pass on the steps of a run whose turn it is, taken in the line's own threads. Raises `JobCancelledError`."""
        context = contextvars.copy_context()  # ZeroGPU finds the user there
        end: Any = object()
        with closing(steps):  # type: ignore[type-var]
            while (step := self._threads.submit(context.run, lambda: next(steps, end)).result()) is not end:
                job.check()
                yield step

    def requeue(self, job: Job) -> None:
        """Go to the end of the line, for a run of several images: between two of them others have their turn."""
        with self._moved:
            self._jobs.remove(job)
            self._jobs.append(job)
            self._moved.notify_all()

    def cancel(self, session: str, why: str) -> bool:
        """Stop a user's runs, wait until they have ended, and return whether there were any."""
        with self._moved:
            jobs = [job for job in self._jobs if job.session == session]
            for job in jobs:
                job.stopped = why
            self._moved.notify_all()
            self._moved.wait_for(lambda: not set(jobs) & set(self._jobs), timeout=30)
        return bool(jobs)
