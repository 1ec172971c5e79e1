"""Progress of long work: a bar on a terminal, otherwise a log line every 30 seconds."""

import logging
import sys
import time
from collections import deque
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 30.0
# Speed over the last few log lines, so that old pauses drop out.
LINES_OF_SPEED = 4


class Progress:
    """A context manager that shows the progress, speed and remaining time of some work."""

    def __init__(self, label: str, *, unit: str, initial: int = 0) -> None:
        """`initial` units were done by an earlier process and do not count for the speed."""
        self._label = label
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=label, unit=f" {unit}", unit_scale=True, initial=initial, disable=not self._terminal, leave=False
        )
        self._last_line = time.monotonic()
        self._done = initial
        # Times at which a line was shown or a part began, each with the units done by then.
        self._marks = deque([(self._last_line, initial)], maxlen=LINES_OF_SPEED)

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total` units, and `note` beside it. `total` may be an estimate.

        A smaller `done` than before starts another part of the work, with its own speed.
        """
        total = max(total, done)  # the estimate may be too low
        if self._terminal:
            self._bar.total = total
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if done < self._done:
            self._marks.clear()
            self._marks.append((now, done))
        self._done = done
        if now - self._last_line < LINE_EVERY_SECONDS:
            return
        self._last_line = now
        then, done_then = self._marks[0]
        self._marks.append((now, done))
        speed = (done - done_then) / max(now - then, 1e-9)
        left = "" if speed == 0 else f", {(total - done) / speed / 60:.1f} min left"
        log.info(
            "%s: %s of %s %s, %.0f/s%s%s",
            self._label, f"{done:,}", f"{total:,}", self._unit, speed, note and f", {note}", left,
        )  # fmt: skip

    def __enter__(self) -> "Progress":
        log.info("%s", self._label)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
