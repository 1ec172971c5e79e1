"""Rows of a table from cells in any order: sorted, one row for each seed, and their spread."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from analyze.report.formats import Cell, Column, Table
from analyze.report.names import metric_name, name_of, states_of
from nrmap.support.records import Record

HERE, REFERENCE, PUBLISHED = "trained here", "reference", "published"
SPREAD_NOTE = "Rows of several seeds: the mean over seeds and, in round brackets, the smallest and the largest."


class Head(NamedTuple):
    """A cell that names a row; rows are sorted by `rank`."""

    rank: tuple[Any, ...]
    text: float | int | str | None


Key = tuple[Head, ...]


def text_head(text: str | None) -> Head:
    """A text, sorted by the alphabet."""
    return Head((text or "",), text)


def number_head(number: float | None) -> Head:
    """A number; None comes first."""
    return Head((number is not None, number or 0), number)


def policy_head(record: Record) -> Head:
    """The policy that was measured, without its seed."""
    name = name_of(record).group
    return Head(name.rank, name.title)


def states_head(record: Record) -> Head:
    """The states that maps were made of."""
    states = states_of(record)
    return Head(states.rank, states.short)


def seed_head(record: Record) -> Head:
    """The seed of a policy, the number of a null network's draw, or None for a baseline."""
    if record.draw is not None:
        return Head(("draw", record.draw), record.draw)
    return Head(("seed", -1 if record.seed is None else record.seed), record.seed)


def place_heads(record: Record, reference: Collection[str]) -> tuple[Head, Head]:
    """The first two heads of a row: the game, and where the policy is from, "" for none."""
    if record.policy_sha256 is None or record.is_null_network:
        return text_head(record.game), Head((2,), "")
    is_reference = record.policy_sha256 in reference
    return text_head(record.game), Head((0,), REFERENCE) if is_reference else Head((1,), HERE)


class Rows:
    """Cells by key, seed and column. A key has a Head for each index column; the first is the game."""

    def __init__(self, *index: str) -> None:
        """`index` names the columns that a key fills: "game", "policies" and others; earlier ones sort first."""
        self._index = index
        self._cells: dict[Key, dict[Head, dict[str, Cell]]] = defaultdict(lambda: defaultdict(dict))

    def put(self, key: Key, seed: Head, column: str, cell: Cell) -> None:
        """Set a cell. A second value for a cell does not replace the first; a note tells of it."""
        cells = self._cells[key][seed]
        found = cells.setdefault(column, cell)
        if (found.value, found.low, found.high) != (cell.value, cell.low, cell.high):
            cells[column] = Cell(found.value, found.low, found.high, f"with other settings also {cell.value}")

    def table(self, name: str, title: str, columns: Sequence[Column], notes: Sequence[str] = ()) -> Table:
        """Keys in order, for each a row for every seed, and where there are several seeds a row for their spread.

        The column "policies" is left out unless both reference policies and others have rows.
        """
        rows: list[tuple[Cell, ...]] = []
        breaks = set()
        several = any(len(seeds) > 1 for seeds in self._cells.values())
        game: object = None
        spread_above = False
        places = {key[self._index.index("policies")].text for key in self._cells}
        shown = [index for index, place in enumerate(self._index) if place != "policies" or {HERE, REFERENCE} <= places]
        for key in sorted(self._cells):
            seeds = self._cells[key]
            if key[0] != game or spread_above or len(seeds) > 1:
                breaks.add(len(rows))
            game, spread_above = key[0], len(seeds) > 1
            heads = [Cell(key[index].text) for index in shown]
            for seed in sorted(seeds):
                rows.append((*heads, Cell(seed.text), *(seeds[seed].get(column.key, Cell()) for column in columns)))
            if len(seeds) > 1:
                spreads = [_spread(seeds, column) if column.spreads else Cell() for column in columns]
                rows.append((*heads, Cell(f"{len(seeds)} {next(iter(seeds)).rank[0]}s"), *spreads))
        index_columns = [_index_column(self._index[index]) for index in shown]
        notes = [*notes, SPREAD_NOTE] if several else notes
        return Table(
            name, title, (*index_columns, _index_column("seed"), *columns), tuple(rows), tuple(notes), frozenset(breaks)
        )


def _spread(seeds: Mapping[Head, Mapping[str, Cell]], column: Column) -> Cell:
    """The mean over seeds, the smallest and the largest; a printed number, the same for all seeds, as it is."""
    cells = {f"{seed.rank[0]} {seed.text}": seeds[seed].get(column.key, Cell()) for seed in sorted(seeds)}
    printed = [cell for cell in cells.values() if isinstance(cell.value, str)]
    if printed:
        return printed[0]
    values = [cell.value for cell in cells.values() if isinstance(cell.value, float | int)]
    undefined = [seed for seed, cell in cells.items() if cell.value is None and cell.note is not None]
    missing = [seed for seed, cell in cells.items() if cell.value is None and cell.note is None]
    note = "; ".join(
        f"{what} ({', '.join(which)})" for what, which in (("undefined", undefined), ("not measured", missing)) if which
    )
    if not values:
        return Cell(None, note=note if undefined else None, spread=True)
    if note:
        note = f"over {len(values)} of {len(cells)}: {note}"
    if len(values) == 1:
        return Cell(values[0], note=note, spread=True)
    return Cell(math.fsum(values) / len(values), min(values), max(values), note or None, spread=True)


def cell_of(record: Record) -> Cell:
    """A record's value and interval, with a note where one of them is missing."""
    note = record.note
    if record.value is not None:
        note = f"no interval: {note}" if note and record.low is None else None
    return Cell(record.value, record.low, record.high, note)


def measured_column(metric: str, key: str, title: str = "", *, map_kind: str | None = None, group: str = "") -> Column:
    """A column of values with intervals, by default titled by its metric; the metric's own titles have LaTeX forms."""
    name = metric_name(metric, map_kind)
    title = title or name.title
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
    """The table note on the intervals in square brackets, for records that have any."""
    kinds = sorted({record.interval for record in records if record.interval and record.low is not None})
    return (f"Square brackets: 95% intervals ({'; '.join(kinds)}).",) if kinds else ()


def _index_column(name: str) -> Column:
    title = name if name in ("N", "T") else name.capitalize()
    return Column(name, title, digits=0 if name == "N" else None)
