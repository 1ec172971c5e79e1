"""Rows of a table from cells in any order: sorted, one row for each seed, and their spread."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from analyze.report.formats import Cell, Column, Table
from analyze.report.names import PolicyName, metric_name, name_of, states_of
from nrmap.support.records import Record

HERE, REFERENCE, PUBLISHED = "trained here", "reference", "published"
SPREAD_NOTE = "Rows of several seeds: the mean over seeds and, in round brackets, the smallest and the largest."


class Head(NamedTuple):
    """A cell that names a row; rows are sorted by `rank`."""

    rank: tuple[Any, ...]
    text: float | int | str | None


def number_head(number: float | None) -> Head:
    """A number; None comes first."""
    return Head((number is not None, number or 0), number)


def policy_head(name: PolicyName) -> Head:
    """A policy without its seed."""
    return Head(name.group.rank, name.group.title)


def _states_head(record: Record) -> Head:
    states = states_of(record)
    return Head(states.rank, states.short) if record.states_from else Head((9,), "whole episodes")


_HEADS: dict[str, Callable[[Record], Head]] = {
    "game": lambda record: Head((record.game,), record.game),
    "states": _states_head,
    "N": lambda record: number_head(record.num_states),
    "T": lambda record: number_head(record.temperature),
    "episodes": lambda record: number_head(record.episodes),
    "method": lambda record: policy_head(name_of(record)),
    "player": lambda record: policy_head(name_of(record)),
    "against": lambda record: policy_head(PolicyName(record.compared_with or "", record.compared_variant)),
}
NO_SEED = Head(("seed", -1), None)


class Rows:
    """Cells by key, seed and column. A key has a Head for each index column; the first is the game."""

    def __init__(self, reference: Collection[str], *index: str) -> None:
        """`index` names the columns of a key: "game", "policies" and others of `_HEADS`; earlier ones sort first.

        `reference` holds the hashes of the reference policies.
        """
        self._reference = reference
        self._index = index
        self._cells: dict[tuple[Head, ...], dict[Head, dict[str, Cell]]] = defaultdict(lambda: defaultdict(dict))

    def add(self, record: Record, column: str, cell: Cell, **heads: Head) -> None:
        """Set a cell in the row of a record; `heads` replace those that the record gives."""
        known = {"policies": self._place(record), **heads}
        seed = NO_SEED if record.seed is None else Head(("seed", record.seed), record.seed)
        if record.draw is not None:
            seed = Head(("draw", record.draw), record.draw)
        key = tuple(known[name] if name in known else _HEADS[name](record) for name in self._index)
        self.put(key, known.get("seed", seed), column, cell)

    def put(self, key: tuple[Head, ...], seed: Head, column: str, cell: Cell) -> None:
        """Set a cell. A second value for a cell does not replace the first; a note tells of it."""
        cells = self._cells[key][seed]
        found = cells.setdefault(column, cell)
        if (found.value, found.low, found.high) != (cell.value, cell.low, cell.high):
            cells[column] = Cell(found.value, found.low, found.high, f"with other settings also {cell.value}")

    def _place(self, record: Record) -> Head:
        if record.policy_sha256 is None or record.is_null_network:
            return Head((2,), "")
        return Head((0,), REFERENCE) if record.policy_sha256 in self._reference else Head((1,), HERE)

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
