"""Tables of the maps out of records: table 1 in the paper's shape, and every other measure.

`reference` names, by their hashes, the policies that came with the project; their
rows stand apart from those of policies trained here.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console

from analyze.report.formats import Cell, Column, Table, print_table
from analyze.report.literature import paper_difference, paper_number
from analyze.report.names import (
    base_method,
    is_control,
    method_label,
    method_rank,
    metric_name,
)
from analyze.report.return_tables import other_table, returns_table
from analyze.report.row_builder import Key, Rows, cell_of, interval_notes, measured_column, place_of
from nrmap.maps.differences import DIFFERENCE
from nrmap.maps.sparsity import MAP_NAMES
from nrmap.support.records import Record

SPARSITIES = ("kmap_sparsity", "hmap_sparsity")
ENTROPIES = ("kmap_map_entropy", "hmap_map_entropy")
_KINDS = tuple(MAP_NAMES)
_ALL_SPARSITIES = (*(f"{kind}_sparsity" for kind in _KINDS), "flip_pair_rate", "tie_pair_rate")
_DIRECTIONS = ("vertical", "horizontal")
_GRID = {"grid_excess": "grid", "grid_p_value": "p", "grid_null_quantile": "no grid", "grid_crop_quantile": "crops"}
_GRID_NOTE = (
    "About 1 without a grid. p: the share of random maps with the map's spectrum but without the grid whose number is "
    "as large. In the columns of these (“no grid”) and of crops at random places the value is the median, and square "
    "brackets hold the 5% and 95% quantiles."
)
_OTHER_MEASURES = tuple(
    f"{kind}_{measure}" for measure in ("effective_pixels", "map_entropy", "relative_map_entropy") for kind in _KINDS
)


def table1(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Table 1 of the paper for every game, seed and set of states: S(K) and S(H) of every method."""
    title = "Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)"
    return paper_table(records, SPARSITIES, name="table1", title=title, reference=reference)


def entropy_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Table 2 of the UAI 2021 paper in the same shape: the entropy of KMAP and HMAP."""
    title = "Entropy of KMAP and HMAP (table 2 of UAI 2021)"
    return paper_table(records, ENTROPIES, name="table2", title=title, reference=reference)


def paper_table(
    records: Sequence[Record], metrics: Sequence[str], *, name: str, title: str, reference: Collection[str] = ()
) -> Table:
    """Rows: games × states × N × seeds. Columns: each metric of each method, the paper's number beside it.

    A metric that depends on the temperature is taken at `headline_temperature`.
    """
    temperature = headline_temperature(records)
    trained = (record for record in _of_maps(records) if not is_control(record.method))
    chosen = [record for record in trained if record.metric in metrics and record.temperature in (None, temperature)]
    columns: list[Column] = []
    rows = Rows("game", "policies", "states", "N", "T")
    for metric in metrics:
        heading = metric_name(metric)
        for method in sorted({record.method for record in chosen}, key=method_rank):
            mine = [record for record in chosen if (record.metric, record.method) == (metric, method)]
            column = measured_column(metric, f"{metric} {method}", method_label(method), group=heading.title)
            paper = Column(f"{column.key} paper", "paper", heading.title, latex_group=heading.latex, digits=0)
            columns.append(column)
            if any(paper_number(record.game, base_method(method), metric) for record in mine):
                columns.append(paper)
            for record in mine:
                key = (*place_of(record, reference), record.states_from, record.num_states, temperature)
                rows.put(key, record.seed, column.key, cell_of(record))
                rows.put(key, record.seed, paper.key, _paper_cell(record))
    return rows.table(name, title, columns, interval_notes(chosen))


def sparsity_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """S of every kind of map, a row for each policy, set of states and temperature."""
    trained = [record for record in records if not is_control(record.method)]
    return _map_table(trained, _ALL_SPARSITIES, "sparsity", "Sparsity of all kinds of maps", reference)


def difference_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """S of a method minus S of another on the same states, a row for each training seed."""
    title = "Differences in sparsity between two methods on the same states, seed by seed; below 0 the first is sparser"
    return _difference_table([r for r in records if r.seed is not None], "differences", title, reference)


def seed_difference_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """The same of the means over training seeds."""
    title = "Differences in sparsity between the means of two methods over training seeds; below 0 the first is sparser"
    return _difference_table([r for r in records if r.seed is None], "seed-differences", title, reference)


def _difference_table(records: Sequence[Record], name: str, title: str, reference: Collection[str]) -> Table:
    columns: list[Column] = []
    chosen = [record for record in records if record.metric.endswith(DIFFERENCE)]
    for metric in (f"{kind}{DIFFERENCE}" for kind in _KINDS):
        mine = [record for record in chosen if record.metric == metric]
        if mine:
            heading = metric_name(metric)
            columns.append(measured_column(metric, metric, heading.title))
            if any(_paper_cell(record).value is not None for record in mine):
                columns.append(
                    Column(f"{metric} paper", f"{heading.title} paper", latex=f"{heading.latex} paper", digits=0)
                )
    rows = _rows_of_maps([(record, cell_of(record)) for record in chosen], reference, against=True)
    return rows.table(
        name, title, columns, (*interval_notes(chosen), "A difference printed as zero is 0 to the digits shown.")
    )


def control_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """The same beside networks that have learned nothing, on the sets of states that there are controls of.

    The draws of a control stand in the place of seeds.
    """
    there = {_states_of(record) for record in records if is_control(record.method)}
    beside = [record for record in records if _states_of(record) in there]
    title = "All kinds of agents beside controls: sparsity of their maps on the same states"
    return _map_table(beside, _ALL_SPARSITIES, "controls", title, reference)


def grid_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """The grid of period 8 in every kind of map, of agents and of controls: number, p value, what it is without."""
    names = {f"{kind}_{measure}": (kind, title) for kind in _KINDS for measure, title in _GRID.items()}
    chosen = [record for record in records if record.metric in names]
    there = {record.metric for record in chosen}
    columns = [
        measured_column(metric, metric, title, group=metric_name(f"{kind}_grid_excess").title)
        for metric, (kind, title) in names.items()
        if metric in there
    ]
    lists: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in chosen:
        if record.item not in _DIRECTIONS:
            lists[*_maps_of(record), record.temperature, record.metric].append(record)
    cells = []
    for first, *more in lists.values():
        quantiles = sorted(record.value for record in (first, *more) if record.value is not None)
        cells.append((first, Cell(quantiles[1], quantiles[0], quantiles[2]) if more else cell_of(first)))
    title = "The grid: spectral energy at multiples of 1/8 cycle per pixel, over that of the neighbouring frequencies"
    notes = (_GRID_NOTE, *interval_notes(record for record in chosen if record.item is None))
    return _rows_of_maps(cells, reference).table("grid", title, columns, notes)


def measure_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Effective pixels and entropies of every kind of map, in the same rows."""
    return _map_table(
        records, _OTHER_MEASURES, "measures", "Effective pixels and entropy of all kinds of maps", reference
    )


def _map_table(
    records: Sequence[Record], metrics: Sequence[str], name: str, title: str, reference: Collection[str]
) -> Table:
    chosen = [record for record in _of_maps(records) if record.metric in metrics]
    columns: list[Column] = []
    for metric in metrics:
        mine = [record for record in chosen if record.metric == metric]
        if mine:
            heading = metric_name(metric)
            columns.append(measured_column(metric, metric, heading.title))
            if any(paper_number(record.game, base_method(record.method), metric) for record in mine):
                columns.append(
                    Column(f"{metric} paper", f"{heading.title} paper", latex=f"{heading.latex} paper", digits=0)
                )
    return _rows_of_maps([(record, cell_of(record)) for record in chosen], reference).table(
        name, title, columns, interval_notes(chosen)
    )


def _rows_of_maps(cells: Sequence[tuple[Record, Cell]], reference: Collection[str], *, against: bool = False) -> Rows:
    """A row for each policy, set of states and T; what does not depend on T stands in the row of every T.

    With `against` the item of a record is a method that it is compared with, and has a column.
    """
    temperatures: dict[tuple[object, ...], set[float | None]] = defaultdict(set)
    for record, _ in cells:
        temperatures[_maps_of(record)].add(record.temperature)
    rows = Rows("game", "states", "N", "T", "policies", "method", *(["against"] if against else []))
    for record, cell in cells:
        game, place = place_of(record, reference)
        own = {record.temperature} if record.temperature is not None else temperatures[_maps_of(record)] - {None}
        for temperature in own or {None}:
            key: Key = (game, record.states_from, record.num_states, temperature, place, record.method)
            seed: int | str | None = record.seed
            if against:
                key, seed = (*key, method_label(record.item or "")), "all" if seed is None else seed
            rows.put(key, seed, record.metric, cell)
            rows.put(key, seed, f"{record.metric} paper", _paper_cell(record))
    return rows


def print_records(records: Sequence[Record], console: Console | None = None) -> None:
    """Print the returns, the sparsities, the controls and the grid, and whatever no other table shows."""
    for build in (returns_table, sparsity_table, control_table, grid_table, other_table):
        table = build(records)
        if table.rows:
            print_table(table, console)


def headline_temperature(records: Iterable[Record]) -> float | None:
    """The temperature at which most maps were measured, among equals the one nearest to 1; None without any."""
    counts = Counter(r.temperature for r in records if r.metric == "hmap_sparsity" and r.temperature and r.item is None)
    return max(counts, key=lambda t: (counts[t], -abs(math.log(t)), t), default=None)


def _of_maps(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.states_from is not None and record.item is None]


def _states_of(record: Record) -> tuple[object, ...]:
    return record.game, record.states_from, record.num_states


def _maps_of(record: Record) -> tuple[object, ...]:
    return record.game, record.policy_sha256, record.method, record.seed, record.states_from, record.num_states


def _paper_cell(record: Record) -> Cell:
    if record.metric.endswith(DIFFERENCE):
        method, base = (base_method(one) for one in (record.method, record.item or ""))
        return Cell(paper_difference(record.game, method, base, record.metric.removesuffix("_difference")))
    published = paper_number(record.game, base_method(record.method), record.metric)
    return Cell(published.printed if published else None)
