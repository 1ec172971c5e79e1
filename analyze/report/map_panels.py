"""Chart panels of maps: sparsity, its dependence on N and T, null networks, the grid.

Every function takes the records of one game and returns the panels of one sheet, none without data.
Every seed has its own row or line.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from analyze.report.charts import (
    GREY,
    IntervalRow,
    ReferenceLine,
    Series,
    draw_intervals,
    draw_lines,
    number_text,
    titled,
)
from analyze.report.figure_files import Panel
from analyze.report.literature import paper_number
from analyze.report.names import (
    PolicyName,
    StatesName,
    method_styles,
    metric_name,
    name_of,
    policies_of,
    policy_order,
    states_of,
)
from analyze.report.tables import headline_temperature
from nrmap.maps.kinds import KINDS
from nrmap.support.records import Record, select

# A kind of states and their number N.
_States = tuple[StatesName, int | None]


def sparsity_panels(records: Sequence[Record]) -> list[Panel]:
    """S of every policy with its interval, one panel for each kind of map and set of states; the paper's as lines."""
    temperature = headline_temperature(records)
    panels = []
    for states in _state_sets(records):
        for kind in KINDS:
            mine = _measured(records, "sparsity", kind, states, temperature)
            if mine:
                panels.append(_sparsity_panel(mine))
    return panels


def _measured(
    records: Sequence[Record], metric: str, kind: str, states: _States, temperature: float | None
) -> list[Record]:
    """`metric` of whole maps of one kind on one set of states, at `temperature` where it has one."""
    return [
        record
        for record in select(records, metric=metric, map_kind=kind)
        if (states_of(record), record.num_states) == states
        and record.temperature in (None, temperature)
        and not record.is_part
    ]


def _title(record: Record) -> str:
    """`S(H), T = 1: own states, N = 256`."""
    at = "" if record.temperature is None else f", T = {record.temperature:g}"
    name = metric_name(record.metric, record.map_kind).title
    return f"{name}{at}: {states_of(record).label}, N = {record.num_states}"


def _sparsity_panel(records: Sequence[Record]) -> Panel:
    styles = method_styles(policies_of(records))
    rows, marks = [], {}
    for record in sorted(records, key=policy_order):
        name = name_of(record)
        colour, marker = styles[name.group]
        rows.append(IntervalRow(name.label, record.value, colour, marker, record.low, record.high))
        published = paper_number(record.game, record.method, record.metric, record.map_kind)
        if published:
            marks[published.agent] = ReferenceLine(f"paper, {published.agent}", published.value, colour)
    return _intervals_panel(_title(records[0]), rows, "S, smaller is sparser", [*marks.values()])


def _intervals_panel(title: str, rows: Sequence[IntervalRow], x_label: str, marks: Sequence[ReferenceLine]) -> Panel:
    draw = partial(titled, draw_intervals, title, rows=rows, x_label=x_label, marks=marks)
    return Panel(draw, f"{title}. {'; '.join(f'{row.label} {number_text(row.value)}' for row in rows)}.")


def control_panels(records: Sequence[Record]) -> list[Panel]:
    """S of every policy beside the null networks on the same states; the draws of a null network share a row."""
    there = {(states_of(record), record.num_states) for record in records if record.is_null_network}
    return _beside_null_networks(records, "sparsity", "S, smaller is sparser", [], sets=there)


def grid_panels(records: Sequence[Record]) -> list[Panel]:
    """The grid number of every policy and of the null networks."""
    label = "energy on the grid / energy beside it"
    marks = [ReferenceLine("no grid", 1.0)]
    return _beside_null_networks(records, "grid_excess", label, marks, sets=_state_sets(records))


def _beside_null_networks(
    records: Sequence[Record], metric: str, x_label: str, marks: Sequence[ReferenceLine], *, sets: Collection[_States]
) -> list[Panel]:
    temperature = headline_temperature(records)
    panels = []
    for states in _state_sets(records):
        for kind in KINDS:
            mine = _measured(records, metric, kind, states, temperature)
            if states in sets and any(not record.is_null_network for record in mine):
                panels.append(_intervals_panel(_title(mine[0]), _rows_with_null_networks(mine), x_label, marks))
    return panels


def _rows_with_null_networks(records: Sequence[Record]) -> list[IntervalRow]:
    """A row for each policy with its interval, and one for each null network: the mean of its draws, each draw a dot.

    Draws of one kind share a row across the seeds of their source, because rows of their own would be too many.
    """
    trained = sorted((record for record in records if not record.is_null_network), key=policy_order)
    styles = method_styles(policies_of(trained))
    rows = [IntervalRow(name_of(r).label, r.value, *styles[name_of(r).group], low=r.low, high=r.high) for r in trained]
    draws: dict[PolicyName, list[float | None]] = defaultdict(list)
    for record in sorted((record for record in records if record.is_null_network), key=policy_order):
        source = None if record.method == "random_weights" else record.source_method
        draws[replace(name_of(record).group, source_method=source, source_seed=None)].append(record.value)
    for name, values in draws.items():
        defined = [value for value in values if value is not None]
        mean = float(np.mean(defined)) if defined else None
        rows.append(IntervalRow(name.short, mean, GREY, "|", points=defined))
    return rows


def size_panels(records: Sequence[Record]) -> list[Panel]:
    """S against N, a panel for each kind of map and of states, a line with its 95% band for every seed."""
    temperature = headline_temperature(records)
    panels = []
    for states in dict.fromkeys(states for states, _ in _state_sets(records)):
        for kind in KINDS:
            mine = [
                record
                for record in select(records, metric="sparsity", map_kind=kind)
                if states_of(record) == states and record.temperature in (None, temperature)
            ]
            if len({record.num_states for record in mine}) > 1:
                at = "" if mine[0].temperature is None else f", T = {mine[0].temperature:g}"
                title = f"{metric_name('sparsity', kind).title}{at}: {states.label}"
                panels.append(_lines_panel(mine, "num_states", "N, number of states", title))
    return panels


def temperature_panels(records: Sequence[Record]) -> list[Panel]:
    """S of the kinds of maps that depend on T against T, at the N of each set of states."""
    panels = []
    for states, num_states in _state_sets(records):
        for kind in KINDS:
            mine = [
                record
                for record in select(records, metric="sparsity", map_kind=kind, num_states=num_states, prefix=False)
                if states_of(record) == states
            ]
            if len({record.temperature for record in mine}) > 1:
                title = f"{metric_name('sparsity', kind).title}: {states.label}, N = {num_states}"
                panels.append(_lines_panel(mine, "temperature", "temperature T", title))
    return panels


def _lines_panel(records: Sequence[Record], x: str, x_label: str, title: str) -> Panel:
    lines: dict[PolicyName, list[Record]] = {name: [] for name in policies_of(records)}
    styles = method_styles(lines)
    for record in sorted(records, key=lambda record: getattr(record, x)):
        lines[name_of(record)].append(record)
    series = []
    for name, mine in lines.items():
        columns: list[list[Any]] = [
            [getattr(record, field) for record in mine] for field in (x, "value", "low", "high")
        ]
        xs, ys, low, high = ([np.nan if number is None else number for number in column] for column in columns)
        series.append(Series(name.short, xs, ys, *styles[name.group], low, high))
    y_label = "S, smaller is sparser"
    draw = partial(titled, draw_lines, title, series=series, x_label=x_label, y_label=y_label, log_x=True)
    ends = "; ".join(
        f"{one.label} from {number_text(np.asarray(one.y)[0])} to {number_text(np.asarray(one.y)[-1])}"
        for one in series
    )
    return Panel(draw, f"{title}, against {x_label}. {ends}.")


def _state_sets(records: Iterable[Record]) -> list[_States]:
    """The kinds of states and their N that maps were measured on, own before pool, small before large."""
    whole = (record for record in records if record.metric == "sparsity" and not record.is_part)
    sets = {(states_of(record), record.num_states) for record in whole}
    return sorted(sets, key=lambda one: (one[0].rank, one[1] or 0))
