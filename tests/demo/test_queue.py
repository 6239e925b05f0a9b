"""Job queue."""

import threading

import pytest

from srgan_hub.demo import queue
from srgan_hub.demo.queue import Client, Job, JobCancelledError, JobQueue, QueueFullError

A, B, C, D = (Client(name, name) for name in "abcd")


@pytest.fixture(autouse=True)
def _fast_updates(monkeypatch) -> None:
    monkeypatch.setattr(queue, "UPDATE_SECONDS", 0.01)


def ahead(queue: JobQueue, job: Job) -> int:
    return next(queue.wait_turn(job), 0)


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


def test_requeue_lets_others_run():
    queue = JobQueue()
    with queue.enqueue(A) as batch, queue.enqueue(B) as single:
        assert (ahead(queue, batch), ahead(queue, single)) == (0, 1)
        queue.requeue(batch)
        assert (ahead(queue, batch), ahead(queue, single)) == (1, 0)


def test_cancel_waits_for_the_session_and_leaves_others():
    queue = JobQueue()
    with queue.enqueue(B) as other:
        assert not queue.cancel(C, "reason")
        with queue.enqueue(A) as job:
            thread = threading.Thread(target=queue.cancel, args=(A, "reason"))
            thread.start()
            with pytest.raises(JobCancelledError) as cancelled:
                for _ in queue.wait_turn(job):
                    pass
            assert cancelled.value.args == ("reason",) and thread.is_alive()
        thread.join(30)
        assert not thread.is_alive() and other.cancel_reason is None
