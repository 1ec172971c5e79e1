"""Chart panels of maps: sparsity, its dependence on N and T, the grid.

Every function takes the records of one game and returns the panels of one sheet, none without data.
Every seed has its own row or line.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import partial

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
    base_method,
    is_control,
    method_styles,
    metric_name,
    policies_of,
    policy_label,
    policy_order,
    states_label,
)
from analyze.report.tables import headline_temperature
from nrmap.support.records import Record, select

_SPARSITIES = ("kmap_sparsity", "hmap_sparsity", "kl_sparsity", "margin_drop_sparsity")
_GRIDS = ("kmap_grid_excess", "hmap_grid_excess", "kl_grid_excess", "margin_drop_grid_excess")
_BY_TEMPERATURE = ("hmap_sparsity", "kl_sparsity")


def sparsity_panels(records: Sequence[Record]) -> list[Panel]:
    """S of every policy with its interval, one panel for each metric and set of states; the paper's as lines."""
    temperature = headline_temperature(records)
    panels = []
    for states_from, num_states in _state_sets(records):
        for metric in _SPARSITIES:
            mine = _measured(records, metric, states_from, num_states, temperature)
            if mine:
                panels.append(_sparsity_panel(mine, f"{states_label(states_from)}, N = {num_states}"))
    return panels


def _measured(
    records: Sequence[Record],
    metric: str,
    states_from: str | None,
    num_states: int | None,
    temperature: float | None,
) -> list[Record]:
    """`metric` of whole maps on one set of states, at `temperature` where it has one."""
    found = select(records, metric=metric, states_from=states_from, num_states=num_states, item=None)
    return [record for record in found if record.temperature in (None, temperature)]


def _sparsity_panel(records: Sequence[Record], where: str) -> Panel:
    styles = method_styles([record.method for record in records])
    first = records[0]
    rows, marks = [], {}
    for record in sorted(records, key=policy_order):
        colour, marker = styles[record.method]
        label = policy_label(record.method, record.seed)
        rows.append(IntervalRow(label, record.value, colour, marker, record.low, record.high))
        published = paper_number(record.game, base_method(record.method), record.metric)
        if published:
            marks[published.agent] = ReferenceLine(f"paper, {published.agent}", published.value, colour)
    at = "" if first.temperature is None else f", T = {first.temperature:g}"
    title = f"{metric_name(first.metric).title}{at}: {where}"
    draw = partial(titled, draw_intervals, title, rows=rows, x_label="S, smaller is sparser", marks=[*marks.values()])
    values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
    return Panel(draw, f"{title}. {values}.")


def control_panels(records: Sequence[Record]) -> list[Panel]:
    """S of every policy beside that of the controls on the same states; the draws of a control are dots on one row."""
    there = {(record.states_from, record.num_states) for record in records if is_control(record.method)}
    return _beside_controls(records, _SPARSITIES, "S, smaller is sparser", [], sets=there)


def grid_panels(records: Sequence[Record]) -> list[Panel]:
    """The grid's number of every policy and of the controls."""
    label = "energy on the grid / energy beside it"
    return _beside_controls(records, _GRIDS, label, [ReferenceLine("no grid", 1.0)], sets=set(_state_sets(records)))


def _beside_controls(
    records: Sequence[Record],
    metrics: Sequence[str],
    x_label: str,
    marks: Sequence[ReferenceLine],
    *,
    sets: Collection[tuple[str | None, int | None]],
) -> list[Panel]:
    temperature = headline_temperature(records)
    panels = []
    for states_from, num_states in _state_sets(records):
        for metric in metrics:
            mine = _measured(records, metric, states_from, num_states, temperature)
            of_agents = any(not is_control(record.method) for record in mine)
            if of_agents and (states_from, num_states) in sets:
                at = "" if mine[0].temperature is None else f", T = {mine[0].temperature:g}"
                title = f"{metric_name(metric).title}{at}: {states_label(states_from)}, N = {num_states}"
                rows = _rows_with_controls(mine)
                draw = partial(titled, draw_intervals, title, rows=rows, x_label=x_label, marks=marks)
                values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
                panels.append(Panel(draw, f"{title}. {values}."))
    return panels


def _rows_with_controls(records: Sequence[Record]) -> list[IntervalRow]:
    """A row for each policy with its interval, and one for each control: the mean of its draws, each draw a dot.

    The draws of one kind stand together, whichever seeds the policies have whose weights were
    shuffled or on whose states they were mapped: rows of their own would be too many to be read.
    """
    trained = sorted((record for record in records if not is_control(record.method)), key=policy_order)
    styles = method_styles([record.method for record in trained])
    rows = [
        IntervalRow(policy_label(r.method, r.seed), r.value, *styles[r.method], low=r.low, high=r.high) for r in trained
    ]
    draws: dict[str, list[float | None]] = defaultdict(list)
    for record in sorted((record for record in records if is_control(record.method)), key=policy_order):
        draws[_control_label(record.method)].append(record.value)
    for label, values in draws.items():
        defined = [value for value in values if value is not None]
        mean = float(np.mean(defined)) if defined else None
        rows.append(IntervalRow(label, mean, GREY, "|", points=defined))
    return rows


def _control_label(method: str) -> str:
    """`random weights`; `shuffled SA-DDQN`: a control without the seed of the policy that it goes with."""
    if base_method(method) == "random_weights":
        return policy_label("random_weights", None)
    return re.sub(r" seed \d+$", "", policy_label(method, None))


def size_panels(records: Sequence[Record]) -> list[Panel]:
    """S against N, each metric and kind of states a panel, every seed a line with its 95% band."""
    temperature = headline_temperature(records)
    sized = [record for record in records if record.metric in _SPARSITIES and record.item in (None, "prefix")]
    panels = []
    for states_from in dict.fromkeys(states_from for states_from, _ in _state_sets(records)):
        for metric in _SPARSITIES:
            mine = [
                record
                for record in select(sized, metric=metric, states_from=states_from)
                if record.temperature in (None, temperature)
            ]
            if len({record.num_states for record in mine}) > 1:
                at = f", T = {temperature:g}" if metric in _BY_TEMPERATURE else ""
                title = f"{metric_name(metric).title}{at}: {states_label(states_from)}"
                panels.append(_lines_panel(mine, "num_states", "N, number of states", title))
    return panels


def temperature_panels(records: Sequence[Record]) -> list[Panel]:
    """S of HMAP and of the KL map against T, at the N of each set of states."""
    panels = []
    for states_from, num_states in _state_sets(records):
        for metric in _BY_TEMPERATURE:
            mine = select(records, metric=metric, states_from=states_from, num_states=num_states, item=None)
            if len({record.temperature for record in mine}) > 1:
                title = f"{metric_name(metric).title}: {states_label(states_from)}, N = {num_states}"
                panels.append(_lines_panel(mine, "temperature", "temperature T", title))
    return panels


def _lines_panel(records: Sequence[Record], x: str, x_label: str, title: str) -> Panel:
    styles = method_styles([record.method for record in records])
    series = []
    for method, seed in policies_of(records):
        mine = sorted(select(records, method=method, seed=seed), key=lambda record: getattr(record, x))
        colour, marker = styles[method]
        low, high = ([_or_nan(getattr(record, end)) for record in mine] for end in ("low", "high"))
        y = [_or_nan(record.value) for record in mine]
        label = policy_label(method, None)
        series.append(Series(label, [getattr(record, x) for record in mine], y, colour, marker, low, high))
    draw = partial(
        titled, draw_lines, title, series=series, x_label=x_label, y_label="S, smaller is sparser", log_x=True
    )
    ends = "; ".join(
        f"{one.label} from {number_text(np.asarray(one.y)[0])} to {number_text(np.asarray(one.y)[-1])}"
        for one in series
    )
    return Panel(draw, f"{title}, against {x_label}. {ends}.")


def _state_sets(records: Iterable[Record]) -> list[tuple[str, int]]:
    """The kinds of states and their N that maps were measured on, own before pool, small before large."""
    sets = {
        (record.states_from, record.num_states)
        for record in records
        if record.metric == "kmap_sparsity" and record.item is None and record.states_from and record.num_states
    }
    return sorted(sets, key=lambda one: (one[0] != "own", one[0] != "pool", one))


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
