"""Job queue."""

import threading
import time

import pytest

from srgan_hub.demo import queue
from srgan_hub.demo.queue import Client, Job, JobCancelledError, JobQueue, Queued, QueueFullError

A, B, C, D = (Client(name, name) for name in "abcd")


@pytest.fixture(autouse=True)
def _fast_updates(monkeypatch) -> None:
    monkeypatch.setattr(queue, "UPDATE_SECONDS", 0.01)


def ahead(queue: JobQueue, job: Job) -> int:
    return next(queue.wait_turn(job), Queued(0)).ahead


def test_first_jobs_run_and_others_wait_in_order():
    queue = JobQueue(concurrency=2)
    with queue.enqueue(A) as a, queue.enqueue(B) as b, queue.enqueue(C) as c, queue.enqueue(D) as d:
        assert [ahead(queue, job) for job in (a, b, c, d)] == [0, 0, 1, 2]
    with queue.enqueue(A) as a:
        assert ahead(queue, a) == 0


def test_full_queue_refuses_jobs():
    queue = JobQueue(size=2)
    with (
        queue.enqueue(A),
        queue.enqueue(B),
        pytest.raises(QueueFullError, match="queue is full"),
        queue.enqueue(C),
    ):
        pass
    with queue.enqueue(C):
        pass


def test_jobs_per_client_are_limited_by_address():
    queue = JobQueue(per_client=2)
    with queue.enqueue(Client("a", "1.2.3.4")), queue.enqueue(Client("b", "1.2.3.4")):
        with pytest.raises(QueueFullError, match="already have 2 jobs"), queue.enqueue(Client("c", "1.2.3.4")):
            pass
        with queue.enqueue(Client("d", "5.6.7.8")):
            pass


def test_urgent_job_runs_beside_a_step_of_another():
    queue, may_finish = JobQueue(), threading.Event()

    def steps():
        yield may_finish.wait(20)

    with queue.enqueue(A) as slow, queue.enqueue(B) as waiting, queue.enqueue(C, urgent=True) as urgent:
        thread = threading.Thread(target=lambda: [*queue.run(slow, steps())])
        thread.start()
        assert ahead(queue, waiting) == 1
        assert ahead(queue, urgent) == 0
        assert [*queue.run(urgent, (number for number in (1, 2)))] == [1, 2]
        assert not slow.last_step.done()
        may_finish.set()
        thread.join()


def test_requeue_lets_others_run():
    queue = JobQueue()
    with queue.enqueue(A) as batch, queue.enqueue(B) as single:
        assert (ahead(queue, batch), ahead(queue, single)) == (0, 1)
        queue.requeue(batch)
        assert (ahead(queue, batch), ahead(queue, single)) == (1, 0)


def test_cancel_ends_jobs_of_the_session_and_leaves_others():
    queue = JobQueue()
    with queue.enqueue(B) as other:
        assert not queue.cancel(C, "reason")
        with queue.enqueue(A) as job:
            assert queue.cancel(A, "reason")
            with pytest.raises(JobCancelledError) as cancelled:
                next(queue.wait_turn(job))
            assert cancelled.value.args == ("reason",)
            queue.cancel(A, "late", override=False)
            assert job.cancel_reason == "reason"
            queue.cancel(A, "newer")
            assert job.cancel_reason == "newer"
        assert other.cancel_reason is None and queue.jobs == [other] and not queue.cancel(A, "reason")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_cancelled_job_answers_at_once_and_the_next_one_starts_behind_its_step(concurrency):
    queue = JobQueue(concurrency=concurrency, size=1, per_client=1)
    step_ends, closed, running = threading.Event(), threading.Event(), threading.Event()

    def steps():
        try:
            yield 1
            running.set()
            step_ends.wait(30)
            yield 2
        finally:
            closed.set()

    def cancel() -> None:
        running.wait(30)
        queue.cancel(A, "reason")

    threading.Thread(target=cancel).start()
    start = time.monotonic()
    with queue.enqueue(A) as job, pytest.raises(JobCancelledError):
        for step in queue.run(job, steps()):
            assert step == 1
    assert time.monotonic() - start < 10 and not closed.is_set()
    with queue.enqueue(A) as following:  # in the place of the cancelled one
        assert ahead(queue, following) == 0 and next(queue.wait_turn(following), None) == Queued(0, 0)
        step_ends.set()
        assert closed.wait(30)
        assert not [*queue.wait_turn(following)][1:] and queue.jobs == [following]


def test_estimates_of_the_jobs_ahead_are_added():
    queue = JobQueue(concurrency=2)
    with queue.enqueue(A, 10) as a, queue.enqueue(B, 20), queue.enqueue(C, 30) as c, queue.enqueue(D) as d:
        assert next(queue.wait_turn(c)) == Queued(1, 15)
        assert next(queue.wait_turn(d)) == Queued(2, 30)
        a.expect(4)
        assert next(queue.wait_turn(c)).seconds == pytest.approx(12, abs=0.5)
        a.expect(None)
        a.seconds = None
        assert next(queue.wait_turn(c)) == Queued(1)
