"""What a log says of long work, against a clock that is set by hand."""

import logging

import pytest

from nrmap import progress
from nrmap.progress import LINE_EVERY_SECONDS, LINES_OF_SPEED, Progress


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def work(clock, caplog, monkeypatch):
    """Report that much is done of 1,000 at a time; gives the line, "" when there is none."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    shown = Progress("work", unit="steps", initial=100)

    def report(seconds, done, note=""):
        caplog.clear()
        clock[0] = seconds
        shown.update(done, 1000, note)
        return caplog.messages[0] if caplog.messages else ""

    return report


def test_lines_come_now_and_then_and_do_not_count_what_was_done_before(work):
    assert work(1, 110) == ""
    assert work(LINE_EVERY_SECONDS - 1, 120) == ""
    assert work(LINE_EVERY_SECONDS, 400, "return 20") == "work: 400 of 1,000 steps, 10/s, return 20, 1.0 min left"
    assert work(LINE_EVERY_SECONDS + 1, 420) == ""


def test_a_pause_is_forgotten(work):
    assert "0/s" in work(3000, 130)
    for line in range(1, LINES_OF_SPEED):
        work(3000 + 30 * line, 130 + 60 * line)
    assert work(3120, 370) == "work: 370 of 1,000 steps, 2/s, 5.2 min left"


def test_another_part_of_the_work_has_a_speed_of_its_own(work):
    work(30, 900)
    assert work(40, 0) == ""
    assert work(60, 200) == "work: 200 of 1,000 steps, 10/s, 1.3 min left"


def test_work_that_stands_still_has_no_end(work):
    assert work(30, 100) == "work: 100 of 1,000 steps, 0/s"
