"""Rows of a table out of cells that come in any order: sorted, a row for each seed, and their spread."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from analyze.report.formats import Cell, Column, Table
from analyze.report.names import is_control, method_label, method_rank, metric_name
from nrmap.play.evaluation import BASELINE_METHOD
from nrmap.support.records import Record

HERE, REFERENCE, PUBLISHED = "trained here", "reference", "published"
SPREAD_NOTE = "Rows of several seeds: the mean over seeds and, in round brackets, the smallest and the largest."

# What the rows of a group share: the values of the index columns but the seed.
Key = tuple[float | int | str | None, ...]


class Rows:
    """Cells by group, seed and column. Every group starts with a game and has where its policies are from."""

    def __init__(self, *index: str) -> None:
        """`index` names the columns that a group's key fills: "game", "policies" and others, first ones sort first."""
        self._index = index
        self._cells: dict[Key, dict[int | str | None, dict[str, Cell]]] = defaultdict(lambda: defaultdict(dict))

    def put(self, key: Key, seed: int | str | None, column: str, cell: Cell) -> None:
        """Set a cell; where another value stands already, that one stays, with a note that there are two.

        `seed` is a number, a word for all of them, or None for what has none.
        """
        cells = self._cells[key][seed]
        found = cells.setdefault(column, cell)
        if (found.value, found.low, found.high) != (cell.value, cell.low, cell.high):
            cells[column] = Cell(found.value, found.low, found.high, f"with other settings also {cell.value}")

    def table(self, name: str, title: str, columns: Sequence[Column], notes: Sequence[str] = ()) -> Table:
        """Groups in order, in each a row for every seed, and where there are several one for their spread.

        The column "policies" is left out where all policies are from the same place.
        """
        rows: list[tuple[Cell, ...]] = []
        breaks = set()
        several = any(len(seeds) > 1 for seeds in self._cells.values())
        game: object = None
        spread_above = False
        places = {str(key[self._index.index("policies")]) for key in self._cells}
        shown = [index for index, place in enumerate(self._index) if place != "policies" or {HERE, REFERENCE} <= places]
        for key in sorted(self._cells, key=self._order):
            seeds = self._cells[key]
            if key[0] != game or spread_above or len(seeds) > 1:
                breaks.add(len(rows))
            game, spread_above = key[0], len(seeds) > 1
            heads = [Cell(_shown(self._index[index], key[index])) for index in shown]
            for seed in sorted(seeds, key=lambda seed: (seed is None, seed)):
                rows.append((*heads, Cell(seed), *(seeds[seed].get(column.key, Cell()) for column in columns)))
            if len(seeds) > 1:
                by_column = [[cells.get(column.key, Cell()) for cells in seeds.values()] for column in columns]
                several_of = "draws" if self._is_control(key) else "seeds"
                spreads = [
                    spread(cells) if column.spreads else Cell()
                    for cells, column in zip(by_column, columns, strict=True)
                ]
                rows.append((*heads, Cell(f"{len(seeds)} {several_of}"), *spreads))
        index_columns = [_index_column(self._index[index]) for index in shown]
        notes = [*notes, SPREAD_NOTE] if several else notes
        return Table(
            name, title, (*index_columns, _index_column("seed"), *columns), tuple(rows), tuple(notes), frozenset(breaks)
        )

    def _is_control(self, key: Key) -> bool:
        return any(name == "method" and is_control(str(value)) for name, value in zip(self._index, key, strict=True))

    def _order(self, key: Key) -> tuple[object, ...]:
        """Own states before the pool, reference policies first, methods in their order, numbers as numbers."""
        first = {"own": "0", "pool": "1", REFERENCE: "0", HERE: "1", "": "2", PUBLISHED: "3"}
        parts: list[object] = []
        for place, value in zip(self._index, key, strict=True):
            if place in ("method", "player"):
                parts.append(method_rank(str(value)))
            elif isinstance(value, int | float):
                parts.append((1, float(value), ""))
            else:
                text = str(value)
                parts.append((0, 0.0, first.get(text, f"2{text}") if place in ("policies", "states") else text))
        return tuple(parts)


def place_of(record: Record, reference: Collection[str]) -> tuple[str, str]:
    """The beginning of a record's key: its game, and where its policy is from, "" where it is from nowhere."""
    if record.policy_sha256 is None or is_control(record.method):
        return record.game, ""
    return record.game, REFERENCE if record.policy_sha256 in reference else HERE


def cell_of(record: Record) -> Cell:
    """A record's value and interval, and what is to be said of them."""
    note = record.note
    if record.value is not None:
        note = f"no interval: {note}" if note and record.low is None else None
    return Cell(record.value, record.low, record.high, note)


def measured_column(metric: str, key: str, title: str, *, group: str = "") -> Column:
    """A column of values with intervals; titles that are the metric's own are formulas in LaTeX."""
    name = metric_name(metric)
    latex, latex_group = (name.latex if text == name.title else None for text in (title, group))
    return Column(
        key,
        title,
        group,
        latex,
        latex_group,
        digits=name.digits,
        measured=True,
        spreads=not metric.endswith("p_value"),
        scientific=not metric.endswith("_difference"),
    )


def interval_notes(records: Iterable[Record]) -> tuple[str, ...]:
    """What square brackets are, for the records that have any."""
    kinds = sorted({record.interval for record in records if record.interval and record.low is not None})
    return (f"Square brackets: 95% intervals ({'; '.join(kinds)}).",) if kinds else ()


def spread(cells: Sequence[Cell]) -> Cell:
    """The mean over seeds, from the smallest to the largest; a printed number, the same in all, as it is."""
    printed = [cell for cell in cells if isinstance(cell.value, str)]
    if printed:
        return printed[0]
    values = [cell.value for cell in cells if isinstance(cell.value, float | int)]
    undefined = sum(cell.value is None and cell.note is not None for cell in cells)
    missing = len(cells) - len(values) - undefined
    note = None
    if values and len(values) < len(cells):
        note = f"over {len(values)} of {len(cells)} seeds: undefined in {undefined}, not measured in {missing}"
    elif undefined:
        note = f"undefined in {undefined} of {len(cells)} seeds, not measured in {missing}"
    if len(values) <= 1:
        return Cell(values[0] if values else None, note=note, spread=True)
    return Cell(math.fsum(values) / len(values), min(values), max(values), note, spread=True)


def _index_column(name: str) -> Column:
    title = name if name in ("N", "T") else name.capitalize()
    return Column(name, title, digits=0 if name == "N" else None)


def _shown(place: str, value: float | int | str | None) -> float | int | str | None:
    if place not in ("method", "player"):
        return value
    text = str(value)
    if text.startswith(f"{BASELINE_METHOD} ("):
        return text.removeprefix(f"{BASELINE_METHOD} (").removesuffix(")")
    return method_label(text)
