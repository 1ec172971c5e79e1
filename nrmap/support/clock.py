"""Estimate the time left of a command from its parts and the speed of earlier parts and commands."""

import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json, write_json
from nrmap.support.schema import NotNegative

log = logging.getLogger(__name__)
_Cost = tuple[NotNegative, NotNegative]  # mean units per piece, mean seconds per unit


@dataclass(frozen=True)
class Part:
    """A part of a command: `count` pieces of work, e.g. episodes, each of some units, e.g. agent steps.

    `units` is the total of all pieces, None if unknown beforehand. Parts of one `kind` take about equal time per unit.
    """

    name: str
    kind: str
    count: int = 1
    units: int | None = None


class Clock:
    """Tracks the parts of a command and estimates how long the rest takes.

    The JSON file `path` stores the mean units per piece and the mean seconds per unit of each kind of part, for
    later commands; None stores nothing. An unreadable file counts as empty, and a failed write is ignored.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._costs: dict[str, list[float]] = {}
        with contextlib.suppress(NrmapError):
            found = {} if path is None else read_json(path, dict[str, _Cost])
            self._costs = {kind: [units, seconds] for kind, (units, seconds) in found.items()}
        self._parts: dict[str, Part] = {}
        self._sums: dict[str, list[float]] = {}  # of this command, by kind: pieces, units, units timed, seconds
        self._now: str | None = None
        self._since, self._from, self._done = time.monotonic(), 0, 0

    def plan(self, label: str, parts: Iterable[Part]) -> None:
        """Add `parts` to the command, in the order of the work.

        If there are any, log `label` and how long they should take.
        """
        added = {part.name: part for part in parts}
        self._parts |= added
        if added:
            log.info("%s: %s", label, self._left_of(0.0, list(added.values()), "expected"))

    def at(self, name: str, done: int, *, initial: int = 0) -> None:
        """Record that part `name` has finished `done` units. An earlier process finished `initial` of them.

        If another part is the current one, end it.
        """
        if name != self._now:
            if self._now is not None:
                self.end()
            self._now, self._from = name, initial
        self._done = done

    def end(self) -> None:
        """End the current part.

        If it was planned and made progress, update the means of its kind, and write them to the file.
        """
        now, part = time.monotonic(), self._parts.get(self._now or "")
        worked = self._done - self._from
        if part is not None and worked > 0:
            so_far = self._sums.get(part.kind, [0.0] * 4)
            took = (part.count, self._done, worked, now - self._since)
            sums = self._sums[part.kind] = [one + more for one, more in zip(so_far, took, strict=True)]
            self._costs[part.kind] = [sums[1] / sums[0], sums[3] / sums[2]]
            with contextlib.suppress(NrmapError, OSError):
                if self._path is not None:
                    write_json(self._path, self._costs)
        self._since, self._now, self._done = now, None, 0

    def expected_units(self, name: str) -> float | None:
        """The units of part `name`: as planned, else estimated from earlier parts of its kind.

        None for a part that is not planned, and where neither is known.
        """
        part = self._parts.get(name)
        if part is None or part.units is not None:
            return None if part is None else part.units
        return self._costs[part.kind][0] * part.count if part.kind in self._costs else None

    def seconds_per_unit(self, name: str) -> float | None:
        """The mean seconds per unit in earlier parts of the kind of part `name`; None without such parts."""
        part = self._parts.get(name)
        return self._costs[part.kind][1] if part is not None and part.kind in self._costs else None

    def left(self, name: str, seconds: float | None) -> str:
        """Return a text such as "part 2 of 5, 12 min left"; "" for an unplanned part whose time is unknown.

        `seconds` is the time left in part `name`. None means unknown; then earlier parts of its kind give an estimate.
        """
        names = list(self._parts)
        if name not in names:
            return "" if seconds is None else f"{in_words(seconds)} left"
        place = names.index(name)
        of = f"part {place + 1} of {len(names)}, " if len(names) > 1 else ""
        later = [self._parts[each] for each in names[place + 1 :]]
        if seconds is None:
            later.insert(0, self._parts[name])
        return of + self._left_of(seconds or 0.0, later, "left")

    def _left_of(self, seconds: float, parts: Iterable[Part], what: str) -> str:
        unknown: dict[str, None] = {}
        for part in parts:
            units, cost = self.expected_units(part.name), self.seconds_per_unit(part.name)
            if units is None or cost is None:
                unknown[part.kind.rpartition("/")[2]] = None
            else:
                seconds += units * cost
        if not unknown:
            return f"{in_words(seconds)} {what}"
        at_least = f"at least {in_words(seconds)} {what}, " if seconds else ""
        return f"{at_least}time of {', '.join(unknown)} not known yet"


def in_words(seconds: float) -> str:
    """Format a duration in `seconds`, as in `24 s`, `3.4 min` and `12 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
