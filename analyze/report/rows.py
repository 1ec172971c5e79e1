"""Build tables from cells in any order: sort rows and columns, add a row for the spread over seeds."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from analyze.report.formats import Cell, Column, Table
from analyze.report.names import PolicyName, group_of, metric_name, states_of
from nrmap.support.records import Record

HERE, PUBLISHED = "trained here", "published"
SPREAD_NOTE = "Rows of several seeds: the mean over seeds and, in round brackets, the smallest and the largest."


class Head(NamedTuple):
    """A cell that names a row; rows are sorted by `rank`."""

    rank: tuple[Any, ...]
    text: float | int | str | None


class Entry(NamedTuple):
    """A cell with its column, the sort key `place` of that column, and the heads of its row by name."""

    heads: Mapping[str, Head]
    place: tuple[Any, ...]
    column: Column
    cell: Cell


def number_head(number: float | None) -> Head:
    """Make the row-heading cell of a number; rows are sorted numerically, None first."""
    return Head((number is not None, number or 0), number)


def heads_of(record: Record, reference: Mapping[str, str], **others: Head) -> dict[str, Head]:
    """Make the heads of a record's row, by name; `others` replace or add some.

    `reference` holds the scales of the reference policies by hash.
    """
    states, group = replace(states_of(record), num_states=None), group_of(record)
    against = PolicyName(record.compared_with or "", record.compared_variant)
    scale = reference.get(record.policy_sha256 or "")
    place = Head((0, scale), f"reference, {scale}") if scale else Head((1,), HERE)
    seed = Head(("seed", -1 if record.seed is None else record.seed), record.seed)  # rows without a seed come first
    return {
        "game": Head((record.game,), record.game),
        "policies": place if record.is_trained else Head((2,), ""),
        "states": Head(states.rank, states.short),
        "N": number_head(record.num_states),
        "T": number_head(record.temperature),
        "episodes": number_head(record.episodes),
        "method": Head(group.rank, group.title),
        "player": Head(group.rank, group.title),
        "against": Head(against.rank, against.title),
        "seed": seed if record.draw is None else Head(("draw", record.draw), record.draw),
        **others,
    }


def table_of(name: str, title: str, index: Sequence[str], entries: Iterable[Entry], notes: Sequence[str] = ()) -> Table:
    """Arrange the entries in a row for each seed and combination of the `index` heads, and add rows for the spread.

    `index` must include "policies", but this column is left out unless our policies have several origins: scales of
    reference policies, trained here. If a cell has two different values, the first is shown and a note gives the last.
    """
    columns: dict[str, tuple[tuple[Any, ...], Column]] = {}
    cells: dict[tuple[Head, ...], dict[Head, dict[str, Cell]]] = defaultdict(lambda: defaultdict(dict))
    for heads, place, column, cell in entries:
        columns.setdefault(column.key, (place, column))
        row = cells[tuple(heads[name] for name in index)][heads["seed"]]
        first = row.setdefault(column.key, cell)
        if (first.value, first.low, first.high) != (cell.value, cell.low, cell.high):
            row[column.key] = Cell(first.value, first.low, first.high, f"with other settings also {cell.value}")
    shown = [column for _, column in sorted(columns.values(), key=lambda found: found[0])]
    places = {key[index.index("policies")].text for key in cells}
    named = [number for number, name in enumerate(index) if name != "policies" or len(places - {"", PUBLISHED}) > 1]
    rows: list[tuple[Cell, ...]] = []
    breaks = set()
    game: object = None
    several_above = any_spread = False
    for key in sorted(cells):
        seeds = {seed: cells[key][seed] for seed in sorted(cells[key])}
        if key[0] != game or several_above or len(seeds) > 1:
            breaks.add(len(rows))
        game, several_above = key[0], len(seeds) > 1
        names = [Cell(key[number].text) for number in named]
        rows += [(*names, Cell(s.text), *(row.get(c.key, Cell()) for c in shown)) for s, row in seeds.items()]
        measured = Counter(c for row in seeds.values() for c, cell in row.items() if not isinstance(cell.value, str))
        if max(measured.values(), default=0) > 1:
            any_spread = True
            of_seeds = {f"{seed.rank[0]} {seed.text}": row for seed, row in seeds.items()}
            spreads = [spread({s: row.get(c.key, Cell()) for s, row in of_seeds.items()}, c) for c in shown]
            rows.append((*names, Cell(f"{len(seeds)} {next(iter(seeds)).rank[0]}s"), *spreads))
    titles = [*(index[number] for number in named), "seed"]
    heading = [Column(n, n if n in ("N", "T") else n.capitalize(), digits=0 if n == "N" else None) for n in titles]
    notes = [*notes, SPREAD_NOTE] if any_spread else notes
    return Table(name, title, (*heading, *shown), tuple(rows), tuple(notes), frozenset(breaks))


def spread(cells: Mapping[str, Cell], column: Column) -> Cell:
    """Summarise a column's `cells`, by seed: their mean, smallest and largest value, and notes.

    A published number, equal for every seed, stays as it is. Without `column.spreads` the cell is empty.
    """
    printed = [cell for cell in cells.values() if isinstance(cell.value, str)]
    if printed or not column.spreads:
        return printed[0] if printed else Cell()
    values = {seed: cell.value for seed, cell in cells.items() if isinstance(cell.value, float | int)}
    undefined = [seed for seed, cell in cells.items() if cell.value is None and cell.note is not None]
    missing = [seed for seed, cell in cells.items() if cell.value is None and cell.note is None]
    lacking = "; ".join(
        f"{what} ({', '.join(which)})" for what, which in (("undefined", undefined), ("not measured", missing)) if which
    )
    if not values:
        return Cell(None, note=lacking if undefined else None, spread=True)
    notes = [f"over {len(values)} of {len(cells)}: {lacking}"] if lacking else []
    for note in dict.fromkeys(cells[seed].note for seed in values):
        which = [seed for seed in values if cells[seed].note == note]
        if note and not note.startswith("no interval"):
            notes.append(note if len(which) == len(values) else f"{note} ({', '.join(which)})")
    note = "; ".join(notes) or None
    numbers = list(values.values())
    low, high = (min(numbers), max(numbers)) if len(numbers) > 1 else (None, None)
    return Cell(math.fsum(numbers) / len(numbers), low, high, note, spread=True)


def cell_of(record: Record) -> Cell:
    """Make the cell of a record: value, interval and note, which may say why the value or the interval is missing."""
    note = record.note
    if note and record.value is not None and record.low is None:
        note = f"no interval: {note}"
    return Cell(record.value, record.low, record.high, note)


def measured_column(metric: str, key: str, title: str = "", *, map_kind: str | None = None, group: str = "") -> Column:
    """Make a column of values with intervals; `title` is by default that of the metric."""
    name = metric_name(metric, map_kind)
    return Column(
        key,
        title or name.title,
        group,
        digits=name.digits,
        measured=True,
        spreads=not metric.endswith("p_value"),
        scientific=not metric.endswith("_difference"),
    )


def interval_notes(records: Iterable[Record]) -> tuple[str, ...]:
    """Return the table note on the intervals in square brackets; () if no record has an interval."""
    kinds = sorted({record.interval for record in records if record.interval and record.low is not None})
    return (f"Square brackets: 95% intervals ({'; '.join(kinds)}).",) if kinds else ()
