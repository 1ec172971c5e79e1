"""Charts, each drawn on one Axes: lines, intervals, fractions, quantiles, learning curves."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from numpy.typing import ArrayLike

GREY = "#6b6b6b"
RECENT = 20  # episodes that a learning curve averages
_LABEL_WIDTH = 24  # letters of a line beside an axis


@dataclass(frozen=True)
class Series:
    """A line through points; NaN leaves a gap. A band from `low` to `high` where both are given."""

    label: str | None
    x: ArrayLike
    y: ArrayLike
    colour: str
    marker: str = ""
    low: ArrayLike | None = None
    high: ArrayLike | None = None


@dataclass(frozen=True)
class IntervalRow:
    """A labelled value with its interval and the points behind it; a value of None is undefined."""

    label: str
    value: float | None
    colour: str
    marker: str = "D"
    low: float | None = None
    high: float | None = None
    points: Sequence[float] = ()


@dataclass(frozen=True)
class ReferenceLine:
    """A value to compare with, such as a published number."""

    label: str
    value: float
    colour: str = GREY


@dataclass(frozen=True)
class QuantileRow:
    """A distribution, given by its quantiles: probability in (0, 1) to value."""

    label: str
    quantiles: Mapping[float, float]
    colour: str
    marker: str = "o"


def draw_lines(
    ax: Axes,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: Sequence[ReferenceLine] = (),
) -> None:
    """Lines with bands. Lines of one label share an entry of the legend, which says how many there are."""
    labels = [line.label for line in series]
    for index, line in enumerate(series):
        label = None if line.label is None or line.label in labels[:index] else line.label
        if label is not None and labels.count(label) > 1:
            label = f"{label}, {labels.count(label)} seeds"
        ax.plot(line.x, line.y, color=line.colour, marker=line.marker, markersize=4, linewidth=1.2, label=label)
        if line.low is not None and line.high is not None:
            ax.fill_between(
                np.asarray(line.x, dtype=float),
                np.asarray(line.low, dtype=float),
                np.asarray(line.high, dtype=float),
                color=line.colour,
                alpha=0.15,
                linewidth=0,
            )
    for mark in marks:
        ax.axhline(mark.value, color=mark.colour, linestyle="--", linewidth=0.9, label=mark.label)
    if log_x:
        ax.set_xscale("log", base=2 if x_label.startswith("N") else 10)
        ticks = sorted({float(x) for line in series for x in np.asarray(line.x, dtype=float)})
        if len(ticks) <= 8:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
    elif any(np.max(line.x, initial=0) >= 10_000 for line in series):
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    _in_full(ax, "y")
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.grid(alpha=0.3)
    if any(labels) or marks:
        _legend_below(ax)


def draw_intervals(
    ax: Axes,
    rows: Sequence[IntervalRow],
    *,
    x_label: str,
    marks: Sequence[ReferenceLine] = (),
    limits: tuple[float, float] | None = None,
) -> None:
    """Rows from top to bottom: a dot for each point, the value with its 95% interval. Marks are vertical lines.

    `limits` of the x axis are taken from the values by default.
    """
    for index, row in enumerate(rows):
        if row.points:
            # Spread vertically by rank, because several episodes may have equal returns.
            spots = index + np.linspace(-0.28, 0.28, len(row.points))
            ax.scatter(row.points, spots, s=9, color=row.colour, alpha=0.45, linewidths=0, zorder=2)
        if row.value is None:
            ax.text(0.02, index, "undefined", transform=ax.get_yaxis_transform(), va="center", color=row.colour)
            continue
        if row.low is not None and row.high is not None:
            ax.plot(
                [row.low, row.high], [index, index], color=row.colour, linewidth=2.2, solid_capstyle="butt", zorder=3
            )
        edge = row.colour if row.marker == "|" else "white"  # a stroke has no face
        ax.plot([row.value], [index], row.marker, color=row.colour, markersize=6, markeredgecolor=edge, zorder=4)
    for mark in marks:
        ax.axvline(mark.value, color=mark.colour, linestyle="--", linewidth=1, label=mark.label, zorder=1)
    ax.set_yticks(range(len(rows)), [textwrap.fill(row.label, _LABEL_WIDTH) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    if limits is not None:
        ax.set_xlim(*limits)
    _in_full(ax, "x")
    ax.set_xlabel(x_label)
    ax.grid(axis="x", alpha=0.3)
    if marks:
        _legend_below(ax)


def _in_full(ax: Axes, axis: Literal["x", "y"]) -> None:
    """Tick labels without an offset, and limits at which values that agree to a millionth look equal."""
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    middle, least = (low + high) / 2, 1e-6 * abs(high)
    if high - low < least:
        ax.set(**{f"{axis}lim": (middle - least, middle + least)})
    if high - low < 1e-3 * abs(high):
        ax.locator_params(axis=axis, nbins=2)  # labels that differ in the last digits are long
    ax.ticklabel_format(axis=axis, useOffset=False)


def _legend_below(ax: Axes) -> None:
    """A legend under the x axis, where it covers no data."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def draw_fractions(ax: Axes, fractions: ArrayLike, *, row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    """Fractions [R, C] in [0, 1] as shaded cells with their percentages; NaN stays empty."""
    values = np.asarray(fractions, dtype=np.float64)
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), fraction in np.ndenumerate(values):
        if np.isfinite(fraction):
            colour = "white" if fraction > 0.6 else "black"
            text = "0" if fraction == 0 else f"{100 * fraction:.1f}" if fraction >= 0.001 else "<0.1"
            ax.text(column, row, text, ha="center", va="center", color=colour)
    ax.set_xticks(range(len(column_labels)), column_labels, rotation=45 if len(column_labels) > 6 else 0)
    ax.set_yticks(range(len(row_labels)), row_labels)
    ax.tick_params(length=0)
    ax.set_xlabel("% of steps")


def draw_quantiles(ax: Axes, rows: Sequence[QuantileRow], *, x_label: str) -> None:
    """Rows from top to bottom: a thin line over all quantiles, a thick line from 25% to 75%, a marker at the median."""
    all_values = [value for row in rows for value in row.quantiles.values()]
    for index, row in enumerate(rows):
        values = row.quantiles
        ax.plot([min(values.values()), max(values.values())], [index, index], color=row.colour, linewidth=1)
        if {0.25, 0.75} <= set(values):
            ax.plot([values[0.25], values[0.75]], [index, index], color=row.colour, linewidth=5, solid_capstyle="butt")
        if 0.5 in values:
            ax.plot([values[0.5]], [index], row.marker, color=row.colour, markersize=6, markeredgecolor="white")
    if all_values and min(all_values) > 0 and max(all_values) > 20 * min(all_values):
        ax.set_xscale("log")
    ax.set_yticks(range(len(rows)), [textwrap.fill(row.label, _LABEL_WIDTH) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(x_label)
    ax.grid(axis="x", alpha=0.3)


def draw_curves(ax: Axes, curves: Sequence[Series], *, marks: Sequence[ReferenceLine] = ()) -> None:
    """Learning curves: a faint dot for every episode, and for every run the mean of its last `RECENT` episodes."""
    lines = []
    for curve in curves:
        ax.scatter(curve.x, curve.y, s=3, color=curve.colour, alpha=0.12, linewidths=0, rasterized=True)
        sums = np.concatenate([[0.0], np.cumsum(curve.y)])
        ends = np.arange(1, len(sums))
        begins = np.maximum(ends - RECENT, 0)
        lines.append(replace(curve, y=(sums[ends] - sums[begins]) / (ends - begins)))
    draw_lines(ax, lines, x_label="agent steps", y_label="training return", marks=marks)


def titled(draw: Callable[..., None], title: str, ax: Axes, **arguments: Any) -> None:
    """`draw` on `ax` with `arguments`, under a title."""
    draw(ax, **arguments)
    ax.set_title(title)


def number_text(value: float | None) -> str:
    """`value` with four digits, for the text beside a chart."""
    return "undefined" if value is None or np.isnan(value) else f"{value:.4g}"
