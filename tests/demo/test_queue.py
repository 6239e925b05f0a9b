"""Who waits for whom."""

import threading

import pytest

from srgan_hub.demo.queue import JobCancelledError, JobQueue


def ahead(line: JobQueue, job) -> int:
    return next(line.wait_turn(job), 0)


def test_the_first_are_at_work_and_the_others_wait_in_their_order():
    line = JobQueue(concurrency=2)
    with line.enqueue("a") as a, line.enqueue("b") as b, line.enqueue("c") as c, line.enqueue("d") as d:
        assert [ahead(line, job) for job in (a, b, c, d)] == [0, 0, 1, 2]
    with line.enqueue("a") as a:
        assert ahead(line, a) == 0


def test_a_full_line_says_so():
    line = JobQueue(length=2)
    busy = pytest.raises(ValueError, match=r"Busy: the line is full\. Try again in a minute")
    with line.enqueue("a"), line.enqueue("b"), busy, line.enqueue("c"):
        pass
    with line.enqueue("c"):
        pass


def test_one_user_cannot_take_the_whole_line():
    line = JobQueue(each=2)
    with line.enqueue("a", "1.2.3.4"), line.enqueue("b", "1.2.3.4"):
        with pytest.raises(ValueError, match="You have 2 images in the line"), line.enqueue("c", "1.2.3.4"):
            pass
        with line.enqueue("d", "5.6.7.8"):
            pass


def test_others_have_their_turn_between_the_images_of_one():
    line = JobQueue()
    with line.enqueue("many") as many, line.enqueue("one") as one:
        assert (ahead(line, many), ahead(line, one)) == (0, 1)
        line.requeue(many)
        assert (ahead(line, many), ahead(line, one)) == (1, 0)


def test_stopping_waits_until_the_run_is_out_of_the_line_and_touches_no_other():
    line = JobQueue()
    with line.enqueue("b") as other:
        assert not line.cancel("c", "Cancelled.")
        with line.enqueue("a") as job:
            stop = threading.Thread(target=line.cancel, args=("a", "Cancelled."))
            stop.start()
            with pytest.raises(JobCancelledError, match="Cancelled"):
                for _ in line.wait_turn(job):
                    pass
            assert stop.is_alive()
        stop.join(30)
        assert not stop.is_alive() and not other.stopped
