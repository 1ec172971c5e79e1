"""Sheets of charts: sparsity, null networks, the grid, N and T, returns, certified actions, actions, Q-gaps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
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
    panel_of,
)
from analyze.report.learning_curves import curve_panels
from analyze.report.literature import paper_number
from analyze.report.names import (
    PolicyName,
    StatesName,
    condition_of,
    gathered,
    group_of,
    grouped,
    method_styles,
    metric_name,
    name_of,
    states_of,
)
from analyze.report.results import Part, best_constant_actions, of_most_episodes
from analyze.report.sheets import Panel, Sheet
from analyze.report.tables import headline_temperature
from nrmap.maps.kinds import KINDS
from nrmap.robustness.perturbations import epsilon_text
from nrmap.support.records import Record, select

_CHART_SIZE = (4.2, 3.1)
_SPARSER = "S, smaller is sparser"


def chart_sheets(part: Part) -> list[Sheet]:
    """Make a sheet for every kind of chart that has data. Every seed has its own row or line."""
    sheets = []
    for name, (title, panels_of, caption) in _CHARTS.items():
        panels = tuple(panels_of(part))
        file, columns = f"{name}-{part.name}", 4 if len(panels) % 4 == 0 else 3
        sheets.append(Sheet(file, f"{title}: {part.game}", caption, panels, columns, _CHART_SIZE, columns_fixed=False))
    return [sheet for sheet in sheets if sheet.panels]


def _intervals(title: str, rows: Sequence[IntervalRow], **arguments: Any) -> Panel:
    values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
    return panel_of(draw_intervals, title, f". {values}", rows=rows, **arguments)


def _rows(records: Sequence[Record], points: Callable[[Record], Sequence[float]] = lambda _: ()) -> list[IntervalRow]:
    """Make a row with value, interval and `points` for every policy, then every baseline; then rows of null networks.

    All draws of random weights, or of one method's weights shuffled, share a row: a dot each, and their mean.
    """
    styles = method_styles(map(name_of, records))
    rows = []
    networks = sorted(select(records, is_trained=True), key=name_of)
    baselines = sorted(select(records, is_baseline=True), key=lambda record: -(record.value or 0.0))
    for record in (*networks, *baselines):
        name = name_of(record)
        colour, marker = (GREY, "|") if record.is_baseline else styles[name.group]
        low, high = record.low, record.high
        rows.append(IntervalRow(name.label, record.value, colour, marker, low, high, points=points(record)))

    def network(record: Record) -> PolicyName:
        source = None if record.method == "random_weights" else record.source_method
        return replace(group_of(record), source_method=source, source_seed=None)

    for name, draws in grouped(select(records, is_null_network=True), network).items():
        values = [record.value for record in draws if record.value is not None]
        rows.append(IntervalRow(name.short, float(np.mean(values)) if values else None, GREY, "|", points=values))
    return rows


def _by_maps(records: Iterable[Record], **ignored: Any) -> Iterable[list[Record]]:
    """Group records by states, own first, and kind of map; `ignored`: values for fields that must not split groups."""
    kinds = list(KINDS)

    def key(record: Record) -> tuple[StatesName, int]:
        return states_of(replace(record, **ignored)), kinds.index(record.map_kind or "")

    return grouped((record for record in records if record.map_kind in kinds), key).values()


def _at_headline(records: Sequence[Record], metric: str) -> list[Record]:
    """Select the records of `metric`; if a kind of map depends on T, only those at `headline_temperature`."""
    at = (None, headline_temperature(records))
    return [record for record in select(records, metric=metric) if record.temperature in at]


def _whole_maps(records: Sequence[Record], metric: str) -> Iterable[list[Record]]:
    """Group the records of `_at_headline`, without parts (`Record.is_part`), by states, own first, and kind of map."""
    return _by_maps(select(_at_headline(records, metric), is_part=False))


def _title(record: Record) -> str:
    """Title a panel, as in `S(H), T = 1: own states, N = 256`, without T and N if these are None."""
    at = "" if record.temperature is None else f", T = {record.temperature:g}"
    return f"{metric_name(record.metric, record.map_kind).title}{at}: {states_of(record).title}"


def _sparsity(part: Part) -> Iterator[Panel]:
    for mine in _whole_maps(part.trained, "sparsity"):
        styles = method_styles(map(name_of, mine))
        marks = {}
        for record in sorted(mine, key=name_of):
            published = paper_number(record.game, record.method, record.metric, record.map_kind)
            if published:
                colour, _ = styles[group_of(record)]
                marks[published.agent] = ReferenceLine(f"paper, {published.agent}", float(published.printed), colour)
        yield _intervals(_title(mine[0]), _rows(mine), x_label=_SPARSER, marks=[*marks.values()])


def _null_networks(part: Part) -> Iterator[Panel]:
    for mine in _whole_maps(part.records, "sparsity"):
        if {record.is_null_network for record in mine} == {False, True}:
            rows = _rows(mine)
            limits = _limits((end for row in rows for end in (row.value, row.low, row.high)), margin=0.1)
            yield _intervals(_title(mine[0]), rows, x_label=_SPARSER, limits=limits)


def _grid(part: Part) -> Iterator[Panel]:
    arguments = {"x_label": "energy on the grid / energy beside it", "marks": [ReferenceLine("no grid", 1.0)]}
    for mine in _whole_maps(part.records, "grid_excess"):
        if any(record.is_trained for record in mine):
            yield _intervals(_title(mine[0]), _rows(mine), **arguments)


def _against(x: str, x_label: str, records: Sequence[Record]) -> Iterator[Panel]:
    """Yield a panel of S against the field `x`, a line per policy, for states and kinds of maps with several `x`."""
    any_x: dict[str, Any] = {x: None}
    for same_maps in _by_maps(records, **any_x):
        if len({getattr(record, x) for record in same_maps if record.value is not None}) < 2:
            continue
        styles = method_styles(map(name_of, same_maps))
        series, ends = [], []
        for name, mine in grouped(same_maps, name_of).items():
            mine.sort(key=lambda record: getattr(record, x))
            numbers = [[getattr(record, field) for record in mine] for field in (x, "value", "low", "high")]
            xs, ys, low, high = np.array(numbers, dtype=np.float64)  # None becomes NaN
            series.append(Series(name.short, xs, ys, *styles[name.group], low, high))
            ends.append(f"{name.short} from {number_text(ys[0])} to {number_text(ys[-1])}")
        title, text = _title(replace(same_maps[0], **any_x)), f", against {x_label}. {'; '.join(ends)}"
        yield panel_of(draw_lines, title, text, series=series, x_label=x_label, y_label=_SPARSER, log_x=True)


def _returns(part: Part) -> Iterator[Panel]:
    """Yield a panel for each attack, from the evaluation over most episodes; the clean one has the baselines too."""
    means = of_most_episodes(select(part.trained, metric="return_mean"))

    def evaluation(record: Record) -> tuple[Any, ...]:
        return name_of(record), condition_of(record), record.episodes

    episodes = gathered(select(part.trained, metric="return"), evaluation)

    def points(record: Record) -> Sequence[float]:
        return [each.value for each in episodes.get(evaluation(record), ()) if each.value is not None]

    best = best_constant_actions(means)
    names = ", ".join(name_of(record).title for record in best)
    marks = [ReferenceLine(f"best constant action ({names})", record.value or 0.0) for record in best[:1]]
    shown = [value for record in means for value in (record.value, record.low, record.high, *points(record))]
    arguments = {"x_label": "return of an episode", "marks": marks, "limits": _limits(shown, margin=0.05)}
    for condition, mine in grouped(means, condition_of).items():
        yield _intervals(f"Returns: {condition.label}", _rows(mine, points), **arguments)


def _limits(values: Iterable[float | None], *, margin: float) -> tuple[float, float] | None:
    """Return axis limits around all values, with `margin` as a fraction of their range; None if all are equal."""
    numbers = [value for value in values if value is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    return (low - margin * (high - low), high + margin * (high - low)) if high > low else None


def _certified(part: Part) -> Iterator[Panel]:
    rates = of_most_episodes(select(part.trained, metric="certified_rate"))
    arguments = {"x_label": "fraction of the states of clean episodes", "limits": (-0.03, 1.03)}
    for radius, mine in grouped(rates, lambda record: record.attack_epsilon or 0.0).items():
        yield _intervals(f"Certified actions at {epsilon_text(radius)}", _rows(mine), **arguments)


def _actions(part: Part) -> Iterator[Panel]:
    shares = of_most_episodes(select(part.trained, metric="action_share", attack="clean", is_trained=True))
    for action in dict.fromkeys(record.action for record in shares):
        rows = _rows(select(shares, action=action))
        yield _intervals(f"Action {action}", rows, x_label="fraction of steps", limits=(-0.03, 1.03))


def _gaps(part: Part) -> Iterator[Panel]:
    gaps = select(part.trained, metric="q_gap_quantile")
    gaps = of_most_episodes(record for record in gaps if record.value is not None)
    for states, mine in grouped(gaps, lambda record: replace(states_of(record), num_states=None)).items():
        styles = method_styles(map(name_of, mine))
        rows = []
        for name, of_one in grouped(mine, name_of).items():
            values = {record.quantile: record.value or 0.0 for record in of_one}
            median, low, high = (values.get(quantile) for quantile in (0.5, 0.25, 0.75))
            wide = min(values.values()), max(values.values())
            rows.append(IntervalRow(name.label, median, *styles[name.group], low, high, wide))
        ends = [row.wide for row in rows if row.wide]
        log_x = 0 < 20 * min(low for low, _ in ends) < max(high for _, high in ends)
        x_label = "Q(s, a*) − max over the other actions"
        yield _intervals(f"Medians of the Q-gap: {states.label}", rows, x_label=x_label, log_x=log_x)


# Every kind of chart, by the name of its sheet's files: title, panels of a part (none without data), caption.
_CHARTS: dict[str, tuple[str, Callable[[Part], Iterable[Panel]], str]] = {
    "sparsity": ("Sparsity", _sparsity,
        "Sparsity of every map; smaller is sparser. Bars are 95% intervals, dashed lines the paper's numbers."),
    "controls": ("Agents beside null networks", _null_networks,
        "Sparsity of every map beside that of null networks on the same states: random weights, and the weights of "
        "each policy shuffled layer by layer. Dots are draws, strokes their means; dots far outside stand at the edge."
    ),
    "grid": ("The grid", _grid,
        "Does a map show a grid of 8 pixels, the stride of the network? Energy at multiples of 1/8 cycle per pixel, "
        "divided by the energy at neighbouring frequencies. Bars are 95% intervals, dots draws of null networks."),
    "size": ("Sparsity against N",
        lambda part: _against("num_states", "N, number of states", _at_headline(part.trained, "sparsity")),
        "Sparsity against the number of states N. Every seed is a line; bands are 95% intervals."),
    "temperature": ("Sparsity against T",
        lambda part: _against("temperature", "temperature T", select(part.trained, metric="sparsity", prefix=False)),
        "Sparsity against the temperature T. Every seed is a line; bands are 95% intervals."),
    "returns": ("Returns", _returns,
        "Dots are episodes, markers their means, bars 95% intervals. All panels have one scale."),
    "certified": ("Certified actions", _certified,
        "Fraction of the states of clean episodes for which interval bounds prove that no state of the ball has "
        "another greedy action."),
    "actions": ("Actions", _actions,
        "Fraction of the steps of clean episodes that take each action; bars are 95% intervals."),
    "gaps": ("Q-gaps", _gaps,
        "Thin lines go from the 1% to the 99% quantile, thick lines from 25% to 75%, markers are medians."),
    "curves": ("Learning curves", lambda part: curve_panels(part.trainings, part.trained),
        "Every run is a line, every episode a dot."),
}  # fmt: skip
