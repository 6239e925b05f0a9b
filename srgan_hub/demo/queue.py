"""FIFO job queue with a per-client limit and turns between the images of a batch.

Gradio's queue has neither, and cannot tell a component how many jobs are ahead.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")
ABANDONED_SECONDS = 30.0  # without a message read, after which a job ends
UPDATE_SECONDS = 1.0  # between reports of a waiting job, each of which costs the running job some milliseconds
# States of jobs, and of the items of a batch.
JobState = Literal["idle", "ready", "queued", "running", "done", "failed", "cancelled"]


class QueueFullError(ValueError):
    """The queue or the client's share of it is full."""


class JobCancelledError(Exception):
    """The job was cancelled; its argument is the reason given to `JobQueue.cancel`."""


@dataclass(frozen=True)
class Client:
    """A session, whose jobs can be cancelled together, and an address, whose jobs are limited in number.

    `unread` returns the number of messages that the client has not read.
    """

    session: str
    address: str
    unread: Callable[[], int] = field(default=int, compare=False)


@dataclass(eq=False)
class Job:
    """A client's place in the queue, and the reason for which it was cancelled, if it was."""

    client: Client
    cancel_reason: Any = None
    read_at: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raise `JobCancelledError` if the job was cancelled, or its client has gone."""
        if self.client.unread() <= 1:
            self.read_at = time.monotonic()
        elif time.monotonic() - self.read_at > ABANDONED_SECONDS:
            self.cancel_reason = "Cancelled: nobody waits for the result."
        if self.cancel_reason is not None:
            raise JobCancelledError(self.cancel_reason)


class JobQueue:
    """Thread-safe FIFO queue of up to `size` jobs, `per_client` per address; the first `concurrency` of them run."""

    def __init__(self, *, concurrency: int = 1, size: int = 20, per_client: int = 3) -> None:
        self.concurrency, self.size, self.per_client = concurrency, size, per_client
        self.jobs: list[Job] = []
        self._changed = threading.Condition()
        # Jobs share these threads: PyTorch would keep memory for each of the server's many.
        self._threads = ThreadPoolExecutor(concurrency)

    @contextmanager
    def enqueue(self, client: Client) -> Iterator[Job]:
        """Add a job for the duration of the context. Raises `QueueFullError`."""
        job = Job(client)
        with self._changed:
            if len(self.jobs) >= self.size:
                raise QueueFullError("The queue is full. Please try again in a minute.")
            if sum(other.client.address == client.address for other in self.jobs) >= self.per_client:
                raise QueueFullError(f"You already have {count(self.per_client, 'job')} in the queue.")
            self.jobs.append(job)
        try:
            yield job
        finally:
            with self._changed:
                self.jobs.remove(job)
                self._changed.notify_all()

    def requeue(self, job: Job) -> None:
        """Move a job to the end, which lets others run between the images of a batch."""
        with self._changed:
            self.jobs.remove(job)
            self.jobs.append(job)
            self._changed.notify_all()

    def wait_turn(self, job: Job) -> Iterator[int]:
        """Wait until a job may run, yielding the number of jobs ahead meanwhile. Raises `JobCancelledError`."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: job in self.jobs[: self.concurrency] or job.cancel_reason is not None, UPDATE_SECONDS
                )
                job.check()
                ahead = self.jobs.index(job) - self.concurrency + 1
            if ahead <= 0:
                return
            yield ahead

    def run(self, job: Job, steps: Iterator[T]) -> Iterator[T]:
        """Iterate over the steps of a job in the queue's threads. Raises `JobCancelledError`."""
        context = contextvars.copy_context()  # ZeroGPU identifies the client by it
        end: Any = object()
        with closing(steps):  # type: ignore[type-var]
            while (step := self._threads.submit(context.run, lambda: next(steps, end)).result()) is not end:
                job.check()
                yield step

    def cancel(self, client: Client, reason: Any) -> bool:
        """Cancel a session's jobs, wait until they have left the queue, and return whether there were any."""
        with self._changed:
            jobs = [job for job in self.jobs if job.client.session == client.session]
            for job in jobs:
                job.cancel_reason = reason
            self._changed.notify_all()
            self._changed.wait_for(lambda: not set(jobs) & set(self.jobs), timeout=30)
        return bool(jobs)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where needed."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
