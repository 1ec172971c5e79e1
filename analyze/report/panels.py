"""Chart panels of records: sparsity, null networks, the grid, returns, certified actions, actions, Q-gaps.

Every function takes the records of one game and returns the panels of one sheet, none without data.
Every seed has its own row or line.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from analyze.report.charts import (
    GREY,
    IntervalRow,
    QuantileRow,
    ReferenceLine,
    Series,
    draw_fractions,
    draw_intervals,
    draw_lines,
    draw_quantiles,
    number_text,
    titled,
)
from analyze.report.figure_files import Panel
from analyze.report.literature import paper_number
from analyze.report.names import (
    PolicyName,
    condition_of,
    method_styles,
    metric_name,
    name_of,
    policies_of,
    policy_order,
    states_of,
)
from analyze.report.tables import headline_temperature
from nrmap.maps.kinds import KINDS
from nrmap.robustness.attacks import epsilon_text
from nrmap.support.records import CONSTANT_ACTION, Record, select


def panel_of(draw: Callable[..., None], title: str, alt: str, **arguments: Any) -> Panel:
    """A panel that `draw` fills with `arguments`; `alt` continues the title in words."""
    return Panel(partial(titled, draw, title, **arguments), f"{title}{alt}.")


def _intervals_panel(title: str, rows: Sequence[IntervalRow], **arguments: Any) -> Panel:
    values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
    return panel_of(draw_intervals, title, f". {values}", rows=rows, **arguments)


def _rows(records: Sequence[Record], points: Callable[[Record], Sequence[float]] = lambda _: ()) -> list[IntervalRow]:
    """A row with an interval and the `points` behind it for every policy, then for every baseline, then null networks.

    The draws of one null network share a row across the seeds of its source: each draw a dot, and their mean.
    """
    styles = method_styles(policies_of(records))
    rows, draws = [], defaultdict(list)
    networks = sorted((record for record in records if not record.is_baseline), key=policy_order)
    baselines = sorted((r for r in records if r.is_baseline), key=lambda record: -(record.value or 0.0))
    for record in (*networks, *baselines):
        name = name_of(record)
        if record.is_null_network:
            source = None if record.method == "random_weights" else record.source_method
            draws[replace(name.group, source_method=source, source_seed=None)].append(record.value)
        else:
            colour, marker = (GREY, "|") if record.is_baseline else styles[name.group]
            row = IntervalRow(name.label, record.value, colour, marker, record.low, record.high, points(record))
            rows.append(row)
    for name, values in draws.items():
        defined = [value for value in values if value is not None]
        rows.append(IntervalRow(name.short, float(np.mean(defined)) if defined else None, GREY, "|", points=defined))
    return rows


def _groups(records: Iterable[Record], *, by_n: bool = True) -> dict[tuple[Any, ...], list[Record]]:
    """Records of maps by states, N and kind of map, own states first; with `by_n` false of all N together."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    kinds = list(KINDS)
    for record in records:
        if record.map_kind in kinds:
            n = record.num_states if by_n else None
            groups[states_of(record).rank, n, kinds.index(record.map_kind)].append(record)
    return dict(sorted(groups.items()))


def _whole_maps(records: Sequence[Record], metric: str) -> list[list[Record]]:
    """`metric` of whole maps by states and kind, at the headline temperature of kinds that have one."""
    at = (None, headline_temperature(records))
    whole = (r for r in select(records, metric=metric) if r.temperature in at and not r.is_part)
    return list(_groups(whole).values())


def _title(record: Record, *, temperature: bool = True, num_states: bool = True) -> str:
    """`S(H), T = 1: own states, N = 256`."""
    at = f", T = {record.temperature:g}" if temperature and record.temperature is not None else ""
    n = f", N = {record.num_states}" if num_states else ""
    return f"{metric_name(record.metric, record.map_kind).title}{at}: {states_of(record).label}{n}"


def sparsity_panels(records: Sequence[Record]) -> list[Panel]:
    """S of every policy with its interval, a panel for each kind of map and set of states; the paper's as lines."""
    panels = []
    for mine in _whole_maps(records, "sparsity"):
        styles = method_styles(policies_of(mine))
        marks = {}
        for record in mine:
            published = paper_number(record.game, record.method, record.metric, record.map_kind)
            if published:
                colour, _ = styles[name_of(record).group]
                marks[published.agent] = ReferenceLine(f"paper, {published.agent}", published.value, colour)
        lines = [marks[agent] for agent in sorted(marks, reverse=True)]  # vanilla first
        panels.append(_intervals_panel(_title(mine[0]), _rows(mine), x_label="S, smaller is sparser", marks=lines))
    return panels


def null_network_panels(records: Sequence[Record]) -> list[Panel]:
    """S of every policy beside the null networks on the same states."""
    return [
        _intervals_panel(_title(mine[0]), _rows(mine), x_label="S, smaller is sparser")
        for mine in _whole_maps(records, "sparsity")
        if {record.is_null_network for record in mine} == {False, True}
    ]


def grid_panels(records: Sequence[Record]) -> list[Panel]:
    """The grid number of every policy and of the null networks."""
    arguments = {"x_label": "energy on the grid / energy beside it", "marks": [ReferenceLine("no grid", 1.0)]}
    return [
        _intervals_panel(_title(mine[0]), _rows(mine), **arguments)
        for mine in _whole_maps(records, "grid_excess")
        if not all(record.is_null_network for record in mine)
    ]


def size_panels(records: Sequence[Record]) -> list[Panel]:
    """S against N, a panel for each kind of map and of states, a line with its 95% band for every seed."""
    at = (None, headline_temperature(records))
    sizes = [record for record in select(records, metric="sparsity") if record.temperature in at]
    return [
        _lines_panel(mine, "num_states", "N, number of states", _title(mine[0], num_states=False))
        for mine in _groups(sizes, by_n=False).values()
        if len({record.num_states for record in mine}) > 1
    ]


def temperature_panels(records: Sequence[Record]) -> list[Panel]:
    """S of the kinds of maps that depend on T against T, at the N of each set of states."""
    return [
        _lines_panel(mine, "temperature", "temperature T", _title(mine[0], temperature=False))
        for mine in _groups(select(records, metric="sparsity", prefix=False)).values()
        if len({record.temperature for record in mine}) > 1
    ]


def _lines_panel(records: Sequence[Record], x: str, x_label: str, title: str) -> Panel:
    styles = method_styles(policies_of(records))
    series, ends = [], []
    for name in policies_of(records):
        mine = sorted((r for r in records if name_of(r) == name), key=lambda record: getattr(record, x))
        columns: list[list[Any]] = [
            [getattr(record, field) for record in mine] for field in (x, "value", "low", "high")
        ]
        xs, ys, low, high = ([np.nan if number is None else number for number in column] for column in columns)
        series.append(Series(name.short, xs, ys, *styles[name.group], low, high))
        ends.append(f"{name.short} from {number_text(ys[0])} to {number_text(ys[-1])}")
    labels = {"x_label": x_label, "y_label": "S, smaller is sparser", "log_x": True}
    return panel_of(draw_lines, title, f", against {x_label}. {'; '.join(ends)}", series=series, **labels)


def of_most_episodes(records: Iterable[Record]) -> list[Record]:
    """Of records that differ in their episodes only, the one over most episodes."""
    best: dict[Record, Record] = {}
    for record in sorted(records, key=lambda record: record.episodes or 0):
        same = replace(record, value=0.0, low=None, high=None, interval=None, note=None, episodes=None, num_states=None)
        best[same] = record
    return list(best.values())


def best_constant_action(records: Sequence[Record]) -> Record | None:
    """The mean return of the constant action that returns most; None without any."""
    constants = select(records, metric="return_mean", method=CONSTANT_ACTION)
    return max(constants, key=lambda record: record.value or 0.0, default=None)


def return_panels(records: Sequence[Record]) -> list[Panel]:
    """Episodes as dots, means with intervals: a panel for each attack. The clean panel also has the baselines.

    Of several evaluations of one policy the one with most episodes is shown.
    """
    means = of_most_episodes(select(records, metric="return_mean"))
    returns: dict[Any, list[float]] = defaultdict(list)
    for record in select(records, metric="return"):
        if record.value is not None:
            returns[name_of(record), condition_of(record), record.episodes].append(record.value)
    best = best_constant_action(means)
    marks = [ReferenceLine(f"best constant action ({name_of(best).title})", best.value or 0.0)] if best else []
    panels = []
    for condition in sorted({condition_of(record) for record in means}, key=lambda condition: condition.rank):
        mine = [record for record in means if condition_of(record) == condition]
        rows = _rows(mine, lambda record: returns[name_of(record), condition_of(record), record.episodes])
        panels.append(
            _intervals_panel(f"Returns: {condition.label}", rows, x_label="return of an episode", marks=marks)
        )
    return panels


def certified_panels(records: Sequence[Record]) -> list[Panel]:
    """The certified fraction of the states of clean episodes, a panel for each radius."""
    rates = of_most_episodes(select(records, metric="certified_rate"))
    arguments = {"x_label": "fraction of the states of clean episodes", "limits": (-0.03, 1.03)}
    return [
        _intervals_panel(
            f"Certified actions at {epsilon_text(radius)}", _rows(select(rates, attack_epsilon=radius)), **arguments
        )
        for radius in sorted({record.attack_epsilon or 0.0 for record in rates})
    ]


def action_panels(records: Sequence[Record]) -> list[Panel]:
    """The greedy policies' actions in clean episodes, in percent."""
    measured = of_most_episodes(select(records, metric="action_share", attack="clean"))
    mine = [record for record in measured if record.value is not None and not record.is_baseline]
    policies = policies_of(mine)
    actions = list(dict.fromkeys(record.action or "" for record in mine))
    if not policies:
        return []
    fractions = np.full((len(policies), len(actions)), np.nan)
    for record in mine:
        fractions[policies.index(name_of(record)), actions.index(record.action or "")] = record.value
    labels = [policy.label for policy in policies]
    text = "; ".join(
        f"{label}: " + ", ".join(f"{action} {100 * part:.1f}%" for action, part in zip(actions, row, strict=True))
        for label, row in zip(labels, fractions, strict=True)
    )
    arguments = {"fractions": fractions, "row_labels": labels, "column_labels": actions}
    return [panel_of(draw_fractions, "Greedy actions, clean episodes", f". {text}", **arguments)]


def gap_panels(records: Sequence[Record]) -> list[Panel]:
    """Quantiles of the Q-gap over the states of whole clean episodes, and over those of the maps."""
    gaps = of_most_episodes(select(records, metric="q_gap_quantile"))
    panels = []
    for states in sorted(
        {states_of(record) for record in gaps}, key=lambda states: (states.states_from != "", states.rank)
    ):
        mine = [record for record in gaps if states_of(record) == states]
        styles = method_styles(policies_of(mine))
        quantiles: dict[PolicyName, dict[float, float]] = {name: {} for name in policies_of(mine)}
        for record in mine:
            if record.value is not None and record.quantile is not None:
                quantiles[name_of(record)][record.quantile] = record.value
        rows = [QuantileRow(name.label, of_one, *styles[name.group]) for name, of_one in quantiles.items()]
        title = f"Q-gap: {states.label if states.states_from else 'all states of clean episodes'}"
        medians = "; ".join(f"{row.label} {number_text(row.quantiles.get(0.5))}" for row in rows)
        x_label = "Q(s, a*) − max over the other actions"
        panels.append(panel_of(draw_quantiles, title, f". Medians: {medians}", rows=rows, x_label=x_label))
    return panels
