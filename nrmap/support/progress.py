"""Progress of long work: a bar on stderr if that is a terminal, otherwise a log line every 30 seconds."""

import contextlib
import logging
import sys
import time
from collections import deque

from tqdm import tqdm

from nrmap.support.clock import Clock

log = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 30.0
# Speed over the last few log lines, so that old pauses drop out.
LINES_OF_SPEED = 4
BAR_EVERY_SECONDS = 0.5


class Progress:
    """A context manager that shows the progress and speed of some work, and the time left."""

    def __init__(self, label: str, *, unit: str, initial: int = 0, clock: Clock | None = None) -> None:
        """`unit` names what is counted. An earlier process did `initial` units, which do not count for the speed.

        `clock` estimates the time left; None uses the speed of this work alone. The clock's name for the work is
        `label`, or "LABEL, PART" where `update` gets a `part`.
        """
        self._label, self._unit, self._initial = label, unit, initial
        self._clock = clock or Clock()
        self._terminal = False
        with contextlib.suppress(AttributeError, ValueError):  # of a stderr that is None or closed
            self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=label, unit=f" {unit}", unit_scale=True, initial=initial, disable=not self._terminal, leave=False,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]",
        )  # fmt: skip
        self._last_shown = time.monotonic()
        self._restart(initial)

    def _restart(self, done: int) -> None:
        """Forget the speed so far. Marks are past times, with the units done by then, to compute the speed from."""
        self._done = done
        self._marks = deque([(time.monotonic(), done)], maxlen=LINES_OF_SPEED)
        self._steady = True

    def update(self, done: int, total: int | None, note: str = "", *, part: str = "", steady: bool = True) -> None:
        """Show `done` of `total` units and a `note`, at most every 0.5 s on a terminal and every 30 s in a log.

        `total` may be an estimate; None takes the clock's estimate, if it has one. `part` names a part of the work
        whose units count from 0. `steady` is False while the speed so far does not predict the time left, e.g. in a
        warm-up.
        """
        name = f"{self._label}, {part}" if part else self._label
        self._clock.at(name, done, initial=self._initial)
        if done < self._done or (steady and not self._steady):
            self._restart(done)
        self._done, self._steady = done, steady
        now = time.monotonic()
        if now - self._last_shown < (BAR_EVERY_SECONDS if self._terminal else LINE_EVERY_SECONDS):
            return
        self._last_shown = now
        then, done_then = self._marks[0]
        if not self._terminal or now - self._marks[-1][0] >= LINE_EVERY_SECONDS:
            self._marks.append((now, done))
        speed = (done - done_then) / max(now - then, 1e-9)
        estimate = total or self._clock.expected_units(name)
        most = None if estimate is None else max(round(estimate), done)  # the estimate may be too low
        notes = [each for each in (part, note, self._left(name, done, most, speed)) if each]
        if self._terminal:
            self._bar.total = most
            self._bar.set_postfix_str(", ".join(notes), refresh=False)
            self._bar.update(done - self._bar.n)
            return
        of = "" if most is None else f" of {most:,}"
        log.info("%s: %s", self._label, ", ".join([f"{done:,}{of} {self._unit}", f"{speed:,.0f}/s", *notes]))

    def _left(self, name: str, done: int, total: int | None, speed: float) -> str:
        earlier = self._clock.seconds_per_unit(name)
        cost = 1 / speed if self._steady and speed > 0 else earlier
        return self._clock.left(name, None if total is None or cost is None else (total - done) * cost)

    def __enter__(self) -> "Progress":
        log.info("%s", self._label)
        self._clock.end()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._bar.close()
        if error is None:
            self._clock.end()
