"""Progress in a log and on a terminal, against a clock that is set by hand."""

import io
import logging
import time
from contextlib import redirect_stderr

import pytest
import tqdm

from nrmap.support import progress
from nrmap.support.clock import Clock, Part
from nrmap.support.progress import Progress


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
        return "".join(caplog.messages)

    return report


# Each: the reports (seconds, units done) after the first 100 units, and the line of the last report.
@pytest.mark.parametrize(
    ("reports", "line"),
    [
        ([(29, 120), (30, 400)], "work: 400 of 1,000 steps, 10/s, 60 s left"),
        ([(30, 400), (31, 420)], ""),
        # Old pauses drop out.
        ([(3000 + 30 * n, 130 + 60 * n) for n in range(5)], "work: 370 of 1,000 steps, 2/s, 5.2 min left"),
        # Another part of the work has a speed of its own.
        ([(30, 900), (40, 0), (60, 200)], "work: 200 of 1,000 steps, 10/s, 80 s left"),
        # An estimate that was passed grows.
        ([(30, 1001)], "work: 1,001 of 1,001 steps, 30/s, 0 s left"),
        ([(30, 100)], "work: 100 of 1,000 steps, 0/s"),
    ],
)
def test_the_time_left_follows_from_the_speed_of_the_last_lines(work, reports, line):
    assert [work(*report) for report in reports][-1] == line


def test_the_speed_of_a_warm_up_promises_nothing(work):
    assert work(60, 700, "return 20", steady=False) == "work: 700 of 1,000 steps, 10/s, return 20"
    assert work(70, 710) == ""
    assert work(100, 740) == "work: 740 of 1,000 steps, 1/s, 4.3 min left"


def test_a_terminal_has_a_bar_that_goes_when_the_work_is_done(clock, caplog, monkeypatch):
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # no thread that looks at the real clock
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with redirect_stderr(terminal), Progress("work", unit="steps", initial=100) as shown:
        for clock[0], done, total, left in ((2, 120, 1000, "88 s"), (4, 140, 2140, "3.3 min")):
            shown.update(done, total, "return 20")
            assert f"10.0 steps/s, return 20, {left} left]" in terminal.getvalue().rpartition("\r")[2]
    assert terminal.getvalue().rpartition("\r")[2].strip() == ""
    assert "\n" not in terminal.getvalue()
    assert not caplog.messages  # lines are for where there is no terminal


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
def test_without_an_open_stderr_there_are_log_lines(clock, monkeypatch, caplog, stderr):
    caplog.set_level(logging.INFO)
    if stderr is not None:
        stderr.close()
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress("work", unit="steps") as shown:
        clock[0] = 100
        shown.update(1, 2)
    assert caplog.messages == ["work", "work: 1 of 2 steps, 0/s, 100 s left"]


PARTS = [Part("roll-out", "Pong/roll-out"), Part("evaluation, pgd", "Pong/pgd", 3), Part("maps", "maps", units=100)]


def run_through(kept, clock, caplog, seconds):
    """A command of three parts; the lines that it logs, one in the middle of each part."""
    caplog.clear()
    one = Clock(kept)
    one.plan("Pong", PARTS)
    for part, length in zip(PARTS, (200, 600, 100), strict=True):
        label, _, note = part.name.partition(", ")
        with Progress(label, unit="steps", clock=one) as shown:
            for done in (length // 2, length):
                clock[0] += seconds * length / 2
                shown.update(done, length if part.units else None, part=note)
    return [line for line in caplog.messages if line not in ("roll-out", "evaluation", "maps")]


def test_a_command_learns_from_earlier_ones_how_long_it_takes_in_all(tmp_path, clock, caplog, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    first, again, third = (run_through(tmp_path / "kept.json", clock, caplog, seconds) for seconds in (1.0, 0.5, 0.5))
    assert first[0] == "Pong: time of roll-out, pgd, maps not known yet"
    assert first[1] == "roll-out: 100 steps, 1/s, part 1 of 3, time of roll-out, pgd, maps not known yet"
    assert first[-1] == "maps: 100 of 100 steps, 1/s, part 3 of 3, 0 s left"
    assert again[0] == "Pong: 15 min expected"  # 200 + 600 + 100 units of a second
    assert again[1] == "roll-out: 100 of 200 steps, 2/s, part 1 of 3, 12 min left"  # 50 s and 700 units
    assert third[0] == "Pong: 7.5 min expected"


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"maps": ["a", 2]}', '{"maps": [1, 2, 3]}', '{"maps": [1, -2]}', '{"maps": [NaN, Infinity]}'],
)
def test_damaged_notes_of_durations_are_forgotten(tmp_path, content):
    path = tmp_path / "durations.json"
    path.write_text(content)
    assert Clock(path).seconds_per_unit("maps") is None
