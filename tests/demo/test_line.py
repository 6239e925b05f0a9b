"""Who waits for whom."""

import threading

import pytest

from srgan_hub.demo.line import Line, StoppedError


def ahead(line: Line, job) -> int:
    return next(line.wait(job), 0)


def test_the_first_are_at_work_and_the_others_wait_in_their_order():
    line = Line(concurrency=2)
    with line.place("a") as a, line.place("b") as b, line.place("c") as c, line.place("d") as d:
        assert [ahead(line, job) for job in (a, b, c, d)] == [0, 0, 1, 2]
    with line.place("a") as a:
        assert ahead(line, a) == 0


def test_a_full_line_says_so():
    line = Line(length=2)
    busy = pytest.raises(ValueError, match=r"Busy: the line is full\. Try again in a minute")
    with line.place("a"), line.place("b"), busy, line.place("c"):
        pass
    with line.place("c"):
        pass


def test_one_visitor_cannot_take_the_whole_line():
    line = Line(each=2)
    with line.place("a", "1.2.3.4"), line.place("b", "1.2.3.4"):
        with pytest.raises(ValueError, match="You have 2 pictures in the line"), line.place("c", "1.2.3.4"):
            pass
        with line.place("d", "5.6.7.8"):
            pass


def test_others_have_their_turn_between_the_pictures_of_one():
    line = Line()
    with line.place("many") as many, line.place("one") as one:
        assert (ahead(line, many), ahead(line, one)) == (0, 1)
        line.again(many)
        assert (ahead(line, many), ahead(line, one)) == (1, 0)


def test_stopping_waits_until_the_run_is_out_of_the_line_and_touches_no_other():
    line = Line()
    with line.place("b") as other:
        assert not line.stop("c", "Cancelled.")
        with line.place("a") as job:
            stop = threading.Thread(target=line.stop, args=("a", "Cancelled."))
            stop.start()
            with pytest.raises(StoppedError, match="Cancelled"):
                for _ in line.wait(job):
                    pass
            assert stop.is_alive()
        stop.join(30)
        assert not stop.is_alive() and not other.stopped
