"""Progress in a log and on a terminal, against a clock that is set by hand."""

import io
import logging
import re
import time
from contextlib import redirect_stderr

import pytest
import tqdm

from nrmap.support import progress
from nrmap.support.clock import Clock, Part
from nrmap.support.progress import LINE_EVERY_SECONDS, LINES_OF_SPEED, Progress


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def work(clock, caplog, monkeypatch):
    """Report that much is done of 1,000 at a time; gives the line, "" when there is none."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    shown = Progress("work", unit="steps", initial=100)

    def report(seconds, done, note="", **known):
        caplog.clear()
        clock[0] = seconds
        shown.update(done, 1000, note, **known)
        return caplog.messages[0] if caplog.messages else ""

    return report


def test_lines_come_now_and_then_and_do_not_count_what_was_done_before(work):
    assert work(1, 110) == ""
    assert work(LINE_EVERY_SECONDS - 1, 120) == ""
    assert work(LINE_EVERY_SECONDS, 400, "return 20") == "work: 400 of 1,000 steps, 10/s, return 20, 60 s left"
    assert work(LINE_EVERY_SECONDS + 1, 420) == ""


def test_a_pause_is_forgotten(work):
    assert "0/s" in work(3000, 130)
    for line in range(1, LINES_OF_SPEED):
        work(3000 + 30 * line, 130 + 60 * line)
    assert work(3120, 370) == "work: 370 of 1,000 steps, 2/s, 5.2 min left"


def test_another_part_of_the_work_has_a_speed_of_its_own(work):
    work(30, 900)
    assert work(40, 0) == ""
    assert work(60, 200) == "work: 200 of 1,000 steps, 10/s, 80 s left"


def test_an_estimate_that_was_passed_grows(work):
    assert work(30, 1001) == "work: 1,001 of 1,001 steps, 30/s, 0 s left"


def test_the_speed_of_a_warm_up_promises_nothing(work):
    assert work(60, 700, steady=False) == "work: 700 of 1,000 steps, 10/s"
    assert work(70, 710) == ""
    assert work(100, 740) == "work: 740 of 1,000 steps, 1/s, 4.3 min left"


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
    r"\[\d\d:\d\d, +(?P<speed>\S+) steps/s(, (?P<note>.*))?\]"
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
        first = {"percent": "12", "done": "120", "total": "1.00k", "speed": "10.0"}
        assert bar_of(terminal) == {**first, "note": "return 20, 88 s left"}
        clock[0] = 4
        shown.update(140, 2140)  # the total was an estimate, and there is nothing more to note
        second = {"percent": "7", "done": "140", "total": "2.14k", "speed": "10.0"}
        assert bar_of(terminal) == {**second, "note": "3.3 min left"}
        clock[0] = 4 + 2 * LINE_EVERY_SECONDS
        shown.update(2140, 2140)
        assert bar_of(terminal)["percent"] == "100"
    # The bar goes when the work is done; lines are for where there is no terminal.
    assert terminal.line == ""
    assert caplog.messages == ["work"]
    assert "\n" not in terminal.getvalue()


PARTS = [Part("roll-out", "Pong/roll-out"), Part("evaluation, pgd", "Pong/pgd", 3), Part("maps", "maps", units=100)]


def run_through(kept, clock, caplog, lengths, seconds):
    """A command of three parts; the lines that it logs, one in the middle of each part."""
    caplog.clear()
    one = Clock(kept)
    one.plan("Pong", PARTS)
    for part, length in zip(PARTS, lengths, strict=True):
        label, _, note = part.name.partition(", ")
        with Progress(label, unit="steps", clock=one) as shown:
            for done in (length // 2, length):
                clock[0] += seconds * length / 2
                shown.update(done, length if part.units else None, part=note)
    return [line for line in caplog.messages if line not in ("roll-out", "evaluation", "maps")]


def test_a_command_learns_from_earlier_ones_how_long_it_takes_in_all(tmp_path, clock, caplog, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    kept = tmp_path / "durations.json"
    first = run_through(kept, clock, caplog, (200, 600, 100), 1.0)
    assert first[0] == "Pong: time of roll-out, pgd, maps not known yet"
    assert first[1] == "roll-out: 100 steps, 1/s, part 1 of 3, time of roll-out, pgd, maps not known yet"
    assert first[-1] == "maps: 100 of 100 steps, 1/s, part 3 of 3, 0 s left"
    again = run_through(kept, clock, caplog, (200, 600, 100), 0.5)
    assert again[0] == "Pong: 15 min expected"  # 200 + 600 + 100 units of a second
    assert again[1] == "roll-out: 100 of 200 steps, 2/s, part 1 of 3, 12 min left"  # 50 s and 700 units
    third = run_through(kept, clock, caplog, (200, 600, 100), 0.5)
    assert third[0] == "Pong: 7.5 min expected"


@pytest.mark.parametrize("content", ["", "[1]", '{"maps": 1}', '{"maps": ["a", 2]}', '{"maps": [1, 2, 3]}'])
def test_damaged_notes_of_durations_are_forgotten(tmp_path, content):
    path = tmp_path / "durations.json"
    path.write_text(content)
    assert Clock(path).seconds_per_unit("maps") is None
