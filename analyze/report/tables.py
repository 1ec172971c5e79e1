"""Tables of maps: tables 1 and 2 in the paper's shape, and all other measures; also all tables of the report."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyze.report.formats import Cell, Column, Table, print_table
from analyze.report.literature import paper_difference, paper_number
from analyze.report.names import gathered, group_of, metric_name, name_of, states_of
from analyze.report.return_tables import action_table, q_gap_table, returns_table
from analyze.report.rows import Entry, Head, cell_of, heads_of, interval_notes, measured_column, number_head, table_of
from nrmap.maps.differences import DIFFERENCE
from nrmap.maps.kinds import KINDS
from nrmap.support.records import Record, select

_GRID = {"grid_excess": "grid", "grid_p_value": "p", "grid_null_quantile": "no grid", "grid_crop_quantile": "crops"}
_SPARSITY = ("sparsity", "flip_pair_rate", "tie_pair_rate")
_AT_ZERO = "A difference printed as zero is 0 to the digits shown."


@dataclass(frozen=True)
class _MapTable:
    """A table of `metrics` of the records that `shows` accepts: a row for each policy, set of states and temperature.

    Columns are sorted by metric, with `by_kind` by kind of map. `by_method` is the shape of the paper's tables: KMAP
    and HMAP only, a column for each method, and the temperature at which each game has most maps.
    """

    title: str
    metrics: Sequence[str]
    shows: Callable[[Record], bool] = lambda record: True
    note: str = ""
    by_kind: bool = False
    by_method: bool = False


MAP_TABLES = {
    "table1": _MapTable(
        "Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)", ["sparsity"],
        lambda record: record.is_trained, by_kind=True, by_method=True,
    ),
    "differences": _MapTable(
        "Differences in sparsity between two methods on the same states, seed by seed; below 0 the first is sparser",
        [DIFFERENCE], lambda record: record.seed is not None, _AT_ZERO,
    ),
    "seed-differences": _MapTable(
        "Differences in sparsity between the means of two methods over training seeds; below 0 the first is sparser",
        [DIFFERENCE], lambda record: record.seed is None, _AT_ZERO,
    ),
    "sparsity": _MapTable("Sparsity of all kinds of maps", _SPARSITY, lambda record: not record.is_null_network),
    "controls": _MapTable("Sparsity of the maps of agents and of null networks on the same states", _SPARSITY),
    "grid": _MapTable(
        "The grid: spectral energy at multiples of 1/8 cycle per pixel, over that of the neighbouring frequencies",
        list(_GRID), lambda record: record.direction is None,
        "About 1 without a grid. p: the fraction of random maps with the map's spectrum but without the grid whose "
        "number is as large. For these maps (“no grid”) and for crops at random places the value is the median, and "
        "square brackets hold the 5% and 95% quantiles.", by_kind=True,
    ),
    "table2": _MapTable(
        "Entropy of KMAP and HMAP (table 2 of UAI 2021)", ["map_entropy"],
        lambda record: record.is_trained, by_kind=True, by_method=True,
    ),
    "measures": _MapTable(
        "Effective pixels and entropy of all kinds of maps",
        ("effective_pixels", "map_entropy", "relative_map_entropy"),
    ),
}  # fmt: skip


def all_tables(
    records: Sequence[Record], differences: Sequence[Record], reference: Mapping[str, str] = {}
) -> list[Table]:
    """Build the non-empty tables over all games, in the page's order.

    `reference` holds the scales of the reference policies by hash.
    """
    tables = [map_table(name, [*records, *differences], reference) for name in MAP_TABLES]
    tables[3:3] = [returns_table(records, reference)]
    tables.append(q_gap_table(records, reference))
    tables += [action_table(records, game, reference) for game in sorted({record.game for record in records})]
    return [table for table in tables if table.rows]


def print_records(records: Sequence[Record]) -> None:
    """Print the non-empty tables of returns, sparsity, null networks and the grid."""
    for table in (returns_table(records), *(map_table(name, records) for name in ("sparsity", "controls", "grid"))):
        if table.rows:
            print_table(table)


def map_table(name: str, records: Sequence[Record], reference: Mapping[str, str] = {}) -> Table:
    """Build the table `name` of `MAP_TABLES`. `reference` holds the scales of the reference policies by hash.

    Values without T are repeated for every T of their maps; tables `by_method` show `headline_temperature` only.
    "controls" keeps only states that null networks were mapped on. Differences add a column "against".
    """
    spec = MAP_TABLES[name]
    of_maps = [record for record in records if record.states_from is not None and not record.prefix]
    chosen = [record for record in of_maps if record.metric in spec.metrics and spec.shows(record)]
    if name == "controls":
        with_null = {(record.game, states_of(record)) for record in of_maps if record.is_null_network}
        chosen = [record for record in chosen if (record.game, states_of(record)) in with_null]
    rows = _at_headline(chosen, of_maps) if spec.by_method else _at_every_temperature(chosen)
    others = {record.temperature for record in chosen} - {None} - {t for ts in rows.values() for t in ts}
    elsewhere = f"Maps at T = {', '.join(f'{t:g}' for t in sorted(filter(None, others)))} are in other tables."
    notes = filter(None, [spec.note, *interval_notes(rows), elsewhere if others else ""])
    entries = []
    for record, cell in _cells(rows):
        kind = [*KINDS, None].index(record.map_kind)
        place: tuple[Any, ...] = (spec.metrics.index(record.metric), kind)
        column, places = _metric_column(record), place[::-1] if spec.by_kind else place
        if spec.by_method:
            column, places = _method_column(record), (*places, group_of(record).rank)
        seed = {"seed": Head(("seed", math.inf), "all")} if record.compared_with and record.seed is None else {}
        printed = _printed(record)
        for temperature in rows[record]:
            heads = heads_of(record, reference, T=number_head(temperature), **seed)
            entries.append(Entry(heads, (*places, 0), column, cell))
            if printed is not None:
                entries.append(Entry(heads, (*places, 1), _paper_column(column), Cell(printed)))
    index = ["game", "states", "N", "T", "policies", "method"]
    if spec.by_method:
        index = ["game", "policies", "states", "N", "T"]
    if any(record.compared_with for record in chosen):
        index.append("against")
    return table_of(name, spec.title, index, entries, list(notes))


# By record, the temperatures of the rows that show it.
_Rows = dict[Record, set[float | None]]


def _at_headline(chosen: Iterable[Record], records: Sequence[Record]) -> _Rows:
    """Put KMAP and HMAP in the row of their game's headline temperature; drop all other records."""
    headline = {game: headline_temperature(select(records, game=game)) for game in {r.game for r in records}}
    paper = [record for record in chosen if record.map_kind and KINDS[record.map_kind].paper_figure]
    return {r: {headline[r.game]} for r in paper if r.temperature in (None, headline[r.game])}


def _at_every_temperature(chosen: Iterable[Record]) -> _Rows:
    """Put each record in the row of its temperature, and one without T in the rows of every T of the same maps."""
    same_maps = gathered(chosen, _maps_of)
    every = {maps: {r.temperature for r in found} - {None} or {None} for maps, found in same_maps.items()}
    return {r: every[_maps_of(r)] if r.temperature is None else {r.temperature} for r in chosen}


def _cells(records: Iterable[Record]) -> list[tuple[Record, Cell]]:
    """Make the cells. The three quantiles of a metric share a cell: the median, with the outer two as its interval."""
    cells = [(record, cell_of(record)) for record in records if record.quantile is None]
    quantiles = (record for record in records if record.quantile is not None)
    for same in gathered(quantiles, lambda record: (_maps_of(record), record.temperature, record.metric_key)).values():
        values = sorted(record.value or 0.0 for record in same)
        cells.append((same[0], Cell(values[len(values) // 2], values[0], values[-1])))
    return cells


def _metric_column(record: Record) -> Column:
    group = metric_name("grid_excess", record.map_kind).title if record.metric in _GRID else ""
    title = _GRID.get(record.metric, "")
    return measured_column(record.metric, record.metric_key, title, map_kind=record.map_kind, group=group)


def _method_column(record: Record) -> Column:
    group, name = group_of(record), metric_name(record.metric, record.map_kind)
    key = " ".join(filter(None, (record.metric_key, group.method, group.variant)))
    return measured_column(record.metric, key, group.title, map_kind=record.map_kind, group=name.title)


def _paper_column(beside: Column) -> Column:
    title = "paper" if beside.group else f"{beside.title} paper"
    return Column(f"{beside.key} paper", title, beside.group, digits=0)


def _printed(record: Record) -> str | None:
    """Return the paper's number or difference for a record; None without one, see `paper_number`."""
    if record.compared_with is not None:
        return paper_difference(record.game, record.method, record.compared_with, "sparsity", record.map_kind)
    published = paper_number(record.game, record.method, record.metric, record.map_kind)
    return published.printed if published else None


def _maps_of(record: Record) -> tuple[Any, ...]:
    return record.policy_sha256, record.game, name_of(record), states_of(record)


def headline_temperature(records: Iterable[Record]) -> float | None:
    """Return the temperature at which one game has most maps, if tied the one nearest to 1; None if no map has a T."""
    counts = Counter(r.temperature for r in records if r.metric == "sparsity" and r.temperature and not r.is_part)
    return max(counts, key=lambda t: (counts[t], -abs(math.log(t or 1)), t), default=None)
