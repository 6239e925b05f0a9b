"""FIFO job queue with a per-client limit and turns between the images of a batch.

Gradio's queue has neither, and cannot tell a component how many jobs are ahead.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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


@dataclass(frozen=True)
class Queued:
    """The job waits for `ahead` others, for an estimated number of seconds if known."""

    ahead: int
    seconds: float | None = None


@dataclass(eq=False)
class Job:
    """A client's place in the queue, its estimated duration, and the reason for which it was cancelled, if it was.

    An `urgent` job does not wait for others.
    """

    client: Client
    seconds: float | None = None
    urgent: bool = False
    cancel_reason: Any = None
    ended: bool = False  # nobody waits for it, but its last step may still run
    last_step: Future[Any] | None = None
    ends_at: float | None = None  # estimated, while it runs
    read_at: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raise `JobCancelledError` if the job was cancelled, or its client has gone."""
        if self.client.unread() <= 1:
            self.read_at = time.monotonic()
        elif time.monotonic() - self.read_at > ABANDONED_SECONDS:
            self.cancel_reason = "Cancelled: nobody waits for the result."
        if self.cancel_reason is not None:
            raise JobCancelledError(self.cancel_reason)

    def expect(self, seconds: float | None) -> None:
        """Set the estimated time that the running job still takes."""
        self.ends_at = None if seconds is None else time.monotonic() + seconds

    @property
    def seconds_left(self) -> float | None:
        """Estimated time that the job still takes once it runs; None if unknown."""
        return self.seconds if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())


class JobQueue:
    """Thread-safe FIFO queue of up to `size` jobs, `per_client` per address; the first `concurrency` of them run."""

    def __init__(self, *, concurrency: int = 1, size: int = 20, per_client: int = 3) -> None:
        self.concurrency, self.size, self.per_client = concurrency, size, per_client
        self.jobs: list[Job] = []
        self._changed = threading.Condition()
        # Jobs share these threads: PyTorch would keep memory for each of the server's many.
        self._threads, self._urgent_thread = ThreadPoolExecutor(concurrency), ThreadPoolExecutor(1)

    @contextmanager
    def enqueue(self, client: Client, seconds: float | None = None, *, urgent: bool = False) -> Iterator[Job]:
        """Add a job for the duration of the context, and of a step that still runs. Raises `QueueFullError`.

        `seconds` is its estimated duration. `urgent` jobs must be short: they run beside the others, one at a time.
        """
        job = Job(client, seconds, urgent)
        with self._changed:
            jobs = [other for other in self.jobs if other.cancel_reason is None]
            if len(jobs) >= self.size:
                raise QueueFullError("The queue is full. Please try again in a minute.")
            if sum(other.client.address == client.address for other in jobs) >= self.per_client:
                raise QueueFullError(f"You already have {count(self.per_client, 'job')} in the queue.")
            self.jobs.append(job)
        try:
            yield job
        finally:
            job.ended = True
            if job.last_step:
                job.last_step.add_done_callback(lambda _: self._remove(job))
            else:
                self._remove(job)

    def requeue(self, job: Job, seconds: float | None = None) -> None:
        """Move a job to the end, which lets others run between the images of a batch."""
        with self._changed:
            self.jobs.remove(job)
            self.jobs.append(job)
            job.seconds, job.ends_at = seconds, None
            self._changed.notify_all()

    def wait_turn(self, job: Job) -> Iterator[Queued]:
        """Wait until a job may run, yielding its place in the queue meanwhile. Raises `JobCancelledError`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._may_run(job) or job.cancel_reason is not None, UPDATE_SECONDS)
                job.check()
                if self._may_run(job):
                    return
                place = self._find_place(job)
            yield place

    def run(self, job: Job, steps: Iterator[T]) -> Iterator[T]:
        """Iterate over the steps of a job in the queue's threads.

        Raises `JobCancelledError` at once; the current step ends behind it.
        """
        context = contextvars.copy_context()  # ZeroGPU identifies the client by it
        end: Any = object()
        job.expect(job.seconds)
        try:
            while (step := self._run_step(job, lambda: context.run(next, steps, end))) is not end:
                yield step
        finally:
            if job.last_step:
                job.last_step.add_done_callback(lambda _: steps.close())  # type: ignore[attr-defined]

    def cancel(self, client: Client, reason: Any, *, override: bool = True) -> bool:
        """Cancel a session's jobs, and return whether there were any. Its next job starts after their current steps.

        The reason takes the place of one that was given before only if it should `override` it.
        """
        with self._changed:
            jobs = [job for job in self.jobs if job.client.session == client.session and not job.ended]
            for job in jobs:
                if override or job.cancel_reason is None:
                    job.cancel_reason = reason
            self._changed.notify_all()
        return bool(jobs)

    def _run_step(self, job: Job, function: Callable[[], T]) -> T:
        job.check()
        step = job.last_step = (self._urgent_thread if job.urgent else self._threads).submit(function)
        step.add_done_callback(self._notify)
        with self._changed:
            self._changed.wait_for(lambda: step.done() or job.cancel_reason is not None)
        job.check()
        return step.result()

    def _may_run(self, job: Job) -> bool:
        cancelled = (other for other in self.jobs if other.cancel_reason is not None)
        return (job.urgent or job in self.jobs[: self.concurrency]) and all(
            other.client.session != job.client.session for other in cancelled
        )

    def _find_place(self, job: Job) -> Queued:
        ahead = [other for other in self.jobs[: self.jobs.index(job)] if other.cancel_reason is None]
        seconds = [other.seconds_left for other in ahead]
        known = [each for each in seconds if each is not None]
        total = sum(known) / self.concurrency if len(known) == len(seconds) else None
        return Queued(max(0, len(ahead) - self.concurrency + 1), total)

    def _remove(self, job: Job) -> None:
        with self._changed:
            self.jobs.remove(job)
            self._changed.notify_all()

    def _notify(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()


def count(number: float, noun: str) -> str:
    """Return a number with its noun, in the plural where needed."""
    shown = f"{number:.3g}" if isinstance(number, float) else number
    return f"{shown} {noun}{'' if number == 1 else 's'}"
