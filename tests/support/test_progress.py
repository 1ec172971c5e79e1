"""Progress in a log and on a terminal, against a clock that is set by hand."""

import io
import logging
import re
from contextlib import redirect_stderr

import pytest
import tqdm

from nrmap.support import progress
from nrmap.support.progress import LINE_EVERY_SECONDS, LINES_OF_SPEED, Progress


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


def test_an_estimate_that_was_passed_grows(work):
    assert work(30, 1001) == "work: 1,001 of 1,001 steps, 30/s, 0.0 min left"


def test_work_that_stands_still_has_no_end(work):
    assert work(30, 100) == "work: 100 of 1,000 steps, 0/s"


class Terminal(io.StringIO):
    """An stderr that says it is a terminal; a line that is drawn over ends with a carriage return."""

    def isatty(self):
        return True

    @property
    def line(self):
        """The text on the line now."""
        return self.getvalue().rpartition("\r")[2].strip()


@pytest.fixture
def terminal(clock, monkeypatch):
    """The stderr of a bar that goes by the same clock; a test has to redirect its own there."""
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # no thread that looks at the real clock
    return Terminal()


BAR = re.compile(
    r"work: +(?P<percent>\d+)%\|[# \d]+\| (?P<done>\S+)/(?P<total>\S+) "
    r"\[\d\d:\d\d<(?P<left>\d\d:\d\d), +(?P<speed>\S+) steps/s(, (?P<note>.*))?\]"
)


def bar_of(terminal):
    shown = BAR.fullmatch(terminal.line)
    assert shown, terminal.line
    return shown.groupdict()


def test_a_terminal_has_a_bar_which_does_not_count_what_was_done_before(terminal, clock, caplog):
    caplog.set_level(logging.INFO)
    with redirect_stderr(terminal), Progress("work", unit="steps", initial=100) as shown:
        clock[0] = 2
        shown.update(120, 1000, "return 20")
        first = {"percent": "12", "done": "120", "total": "1.00k", "left": "01:28", "speed": "10.0"}
        assert bar_of(terminal) == {**first, "note": "return 20"}
        clock[0] = 4
        shown.update(140, 2140)  # the total was an estimate, and there is nothing more to note
        second = {"percent": "7", "done": "140", "total": "2.14k", "left": "03:20", "speed": "10.0"}
        assert bar_of(terminal) == {**second, "note": None}
        clock[0] = 4 + 2 * LINE_EVERY_SECONDS
        shown.update(2140, 2140)
        assert bar_of(terminal)["percent"] == "100"
    # The bar goes when the work is done; lines are for where there is no terminal.
    assert terminal.line == ""
    assert caplog.messages == ["work"]
    assert "\n" not in terminal.getvalue()
