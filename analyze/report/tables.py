"""Tables of maps: table 1 in the paper's shape, and every other measure.

`reference` holds the hashes of the reference policies; their rows stand apart from those of
policies trained here.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console

from analyze.report.formats import Cell, Column, Table, print_table
from analyze.report.literature import paper_difference, paper_number
from analyze.report.names import metric_name, name_of, states_of
from analyze.report.return_tables import returns_table
from analyze.report.row_builder import Head, Rows, cell_of, interval_notes, measured_column, number_head
from nrmap.maps.differences import DIFFERENCE
from nrmap.maps.kinds import KINDS
from nrmap.support.records import Record

# A kind of map, None for a measure of no map, and a metric.
_Column = tuple[str | None, str]
_MEASURES = ("effective_pixels", "map_entropy", "relative_map_entropy")
_GRID = {"grid_excess": "grid", "grid_p_value": "p", "grid_null_quantile": "no grid", "grid_crop_quantile": "crops"}
_GRID_NOTE = (
    "About 1 without a grid. p: the fraction of random maps with the map's spectrum but without the grid whose number "
    "is as large. For these maps (“no grid”) and for crops at random places the value is the median, and square "
    "brackets hold the 5% and 95% quantiles."
)
SPARSITY_TITLE, MEASURES_TITLE = "Sparsity of all kinds of maps", "Effective pixels and entropy of all kinds of maps"


def table1(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Table 1 of the paper for every game, seed and set of states: S(K) and S(H) of every method."""
    title = "Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)"
    return _paper_table(records, "sparsity", "table1", title, SPARSITY_TITLE, reference)


def entropy_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Table 2 of the UAI 2021 paper in the same shape: the entropy of KMAP and HMAP."""
    title = "Entropy of KMAP and HMAP (table 2 of UAI 2021)"
    return _paper_table(records, "map_entropy", "table2", title, MEASURES_TITLE, reference)


def _paper_table(
    records: Sequence[Record], metric: str, name: str, title: str, table_of_all: str, reference: Collection[str]
) -> Table:
    """Rows: games × states × N × seeds. Columns: each kind of map of each method, the paper's number beside it.

    HMAP is taken at the headline temperature of its game; a note says where other temperatures are.
    """
    paper_kinds = [kind.name for kind in KINDS.values() if kind.paper_figure]
    measured = [r for r in _of_maps(records) if r.metric == metric and r.map_kind in paper_kinds]
    measured = [record for record in measured if not record.is_null_network]
    games = {record.game for record in measured}
    headline = {game: headline_temperature([r for r in records if r.game == game]) for game in games}
    chosen = [record for record in measured if record.temperature in (None, headline[record.game])]
    others = {r.temperature for r in measured if r.temperature is not None} - set(headline.values())
    columns: list[Column] = []
    rows = Rows(reference, "game", "policies", "states", "N", "T")
    for kind in paper_kinds:
        heading = metric_name(metric, kind)
        of_kind = [record for record in chosen if record.map_kind == kind]
        for method in sorted({name_of(record).group for record in of_kind}, key=lambda name: name.rank):
            mine = [record for record in of_kind if name_of(record).group == method]
            key = f"{kind}_{metric} {' '.join(filter(None, (method.method, method.variant)))}"
            column = measured_column(metric, key, method.title, map_kind=kind, group=heading.title)
            paper = Column(f"{key} paper", "paper", heading.title, latex_group=heading.latex, digits=0)
            columns += [column, paper] if any(_paper_cell(record).value for record in mine) else [column]
            for record in mine:
                temperature = number_head(headline[record.game])
                rows.add(record, column.key, cell_of(record), T=temperature)
                rows.add(record, paper.key, _paper_cell(record), T=temperature)
    elsewhere = f"Maps at T = {', '.join(f'{t:g}' for t in sorted(others))}: see “{table_of_all}”."
    return rows.table(name, title, columns, [*interval_notes(chosen), *([elsewhere] if others else [])])


def sparsity_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """S of every kind of map, a row for each policy, set of states and temperature."""
    trained = [record for record in records if not record.is_null_network]
    return _map_table(trained, _sparsities(), "sparsity", SPARSITY_TITLE, reference)


def _sparsities() -> list[_Column]:
    return [*_of_all_kinds("sparsity"), (None, "flip_pair_rate"), (None, "tie_pair_rate")]


def _of_all_kinds(*metrics: str) -> list[_Column]:
    return [(kind, metric) for metric in metrics for kind in KINDS]


def control_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """The same for null networks and the agents mapped on the same states; draws take the place of seeds."""
    there = {_states_of(record) for record in records if record.is_null_network}
    beside = [record for record in records if _states_of(record) in there]
    title = "All kinds of agents beside null networks: sparsity of their maps on the same states"
    return _map_table(beside, _sparsities(), "controls", title, reference)


def measure_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Effective pixels and entropies of every kind of map, in the same rows."""
    return _map_table(records, _of_all_kinds(*_MEASURES), "measures", MEASURES_TITLE, reference)


def difference_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """S of a method minus S of another on the same states, a row for each training seed."""
    title = "Differences in sparsity between two methods on the same states, seed by seed; below 0 the first is sparser"
    paired = [record for record in records if record.seed is not None]
    return _map_table(paired, _of_all_kinds(DIFFERENCE), "differences", title, reference)


def seed_difference_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Differences between method means across seeds."""
    title = "Differences in sparsity between the means of two methods over training seeds; below 0 the first is sparser"
    of_means = [record for record in records if record.seed is None]
    return _map_table(of_means, _of_all_kinds(DIFFERENCE), "seed-differences", title, reference)


def grid_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """The grid of period 8 in every kind of map, of agents and null networks: number, p value, null values."""
    chosen = [record for record in records if record.metric in _GRID and record.direction is None]
    there = {(record.map_kind, record.metric) for record in chosen}
    columns = [
        measured_column(metric, f"{kind}_{metric}", title, map_kind=kind, group=metric_name("grid_excess", kind).title)
        for kind in KINDS
        for metric, title in _GRID.items()
        if (kind, metric) in there
    ]
    lists: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in chosen:
        lists[*_maps_of(record), record.temperature, record.metric_key].append(record)
    cells = []
    for first, *more in lists.values():
        quantiles = sorted(record.value for record in (first, *more) if record.value is not None)
        cells.append((first, Cell(quantiles[1], quantiles[0], quantiles[2]) if more else cell_of(first)))
    title = "The grid: spectral energy at multiples of 1/8 cycle per pixel, over that of the neighbouring frequencies"
    notes = (_GRID_NOTE, *interval_notes(record for record in chosen if not record.is_part))
    return _rows_of_maps(cells, reference).table("grid", title, columns, notes)


def _map_table(
    records: Sequence[Record], columns: Sequence[_Column], name: str, title: str, reference: Collection[str]
) -> Table:
    chosen = [record for record in _of_maps(records) if (record.map_kind, record.metric) in columns]
    shown: list[Column] = []
    for kind, metric in columns:
        mine = [record for record in chosen if (record.map_kind, record.metric) == (kind, metric)]
        if mine:
            heading, key = metric_name(metric, kind), mine[0].metric_key
            shown.append(measured_column(metric, key, map_kind=kind))
            if any(_paper_cell(record).value is not None for record in mine):
                title_of_paper = f"{heading.title} paper"
                shown.append(Column(f"{key} paper", title_of_paper, latex=f"{heading.latex} paper", digits=0))
    rows = _rows_of_maps([(record, cell_of(record)) for record in chosen], reference)
    rounded = ["A difference printed as zero is 0 to the digits shown."] if columns[0][1] == DIFFERENCE else []
    return rows.table(name, title, shown, [*interval_notes(chosen), *rounded])


def _rows_of_maps(cells: Sequence[tuple[Record, Cell]], reference: Collection[str]) -> Rows:
    """A row for each policy, set of states and T; values that do not depend on T stand in the row of every T.

    Differences also have a column for the other method.
    """
    against = any(record.compared_with for record, _ in cells)
    temperatures: dict[tuple[Any, ...], set[float | None]] = defaultdict(set)
    for record, _ in cells:
        temperatures[_maps_of(record)].add(record.temperature)
    rows = Rows(reference, "game", "states", "N", "T", "policies", "method", *(["against"] if against else []))
    for record, cell in cells:
        over_seeds = {"seed": Head(("seed", math.inf), "all")} if against and record.seed is None else {}
        own = {record.temperature} if record.temperature is not None else temperatures[_maps_of(record)] - {None}
        for temperature in own or {None}:
            heads = {"T": number_head(temperature), **over_seeds}
            rows.add(record, record.metric_key, cell, **heads)
            rows.add(record, f"{record.metric_key} paper", _paper_cell(record), **heads)
    return rows


def print_records(records: Sequence[Record], console: Console | None = None) -> None:
    """Print the returns, the sparsities, the null networks and the grid."""
    for build in (returns_table, sparsity_table, control_table, grid_table):
        table = build(records)
        if table.rows:
            print_table(table, console)


def headline_temperature(records: Iterable[Record]) -> float | None:
    """The temperature of most maps of one game, of equals the one nearest to 1; None without any."""
    counts = Counter(r.temperature for r in _of_maps(records) if r.metric == "sparsity" and r.temperature is not None)
    return max(counts, key=lambda t: (counts[t], -abs(math.log(t)), t), default=None)


def _of_maps(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.states_from is not None and not record.is_part]


def _states_of(record: Record) -> tuple[Any, ...]:
    return record.game, states_of(record), record.num_states


def _maps_of(record: Record) -> tuple[Any, ...]:
    return record.policy_sha256, name_of(record), *_states_of(record)


def _paper_cell(record: Record) -> Cell:
    if record.compared_with is not None:
        return Cell(paper_difference(record.game, record.method, record.compared_with, "sparsity", record.map_kind))
    published = paper_number(record.game, record.method, record.metric, record.map_kind)
    return Cell(published.printed if published else None)
