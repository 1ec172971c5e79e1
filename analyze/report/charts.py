"""Charts, each drawn on one Axes: lines, intervals, shares, quantiles, learning curves."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
GREY = "#6b6b6b"
_LABEL_WIDTH = 24  # letters of a line beside an axis


@dataclass(frozen=True)
class Series:
    """A line through points, with a band from `low` to `high` where both are given; NaN leaves a gap."""

    label: str | None
    x: ArrayLike
    y: ArrayLike
    colour: str
    marker: str = ""
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    style: str = "-"


@dataclass(frozen=True)
class IntervalRow:
    """A labelled value with its interval, and the points that it summarises; None is undefined."""

    label: str
    value: float | None
    colour: str
    marker: str = "D"
    low: float | None = None
    high: float | None = None
    points: Sequence[float] = ()


@dataclass(frozen=True)
class ReferenceLine:
    """A value to compare with, such as a published one."""

    label: str
    value: float
    colour: str = GREY
    style: str = "--"


@dataclass(frozen=True)
class QuantileRow:
    """A distribution by its quantiles: probability in (0, 1) to value."""

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
    """Lines with bands; a label shared by several lines stands in the legend once, with their number."""
    labels = [one.label for one in series]
    for index, one in enumerate(series):
        label = None if one.label is None or one.label in labels[:index] else one.label
        if label is not None and labels.count(label) > 1:
            label = f"{label}, {labels.count(label)} seeds"
        ax.plot(one.x, one.y, one.style, color=one.colour, marker=one.marker, markersize=4, linewidth=1.2, label=label)
        if one.low is not None and one.high is not None:
            ax.fill_between(
                np.asarray(one.x, dtype=float),
                np.asarray(one.low, dtype=float),
                np.asarray(one.high, dtype=float),
                color=one.colour,
                alpha=0.15,
                linewidth=0,
            )
    for mark in marks:
        ax.axhline(mark.value, color=mark.colour, linestyle=mark.style, linewidth=0.9, label=mark.label)
    if log_x:
        ax.set_xscale("log", base=2 if x_label.startswith("N") else 10)
        ticks = sorted({float(x) for one in series for x in np.asarray(one.x, dtype=float)})
        if len(ticks) <= 8:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
    elif any(np.max(one.x, initial=0) >= 10_000 for one in series):
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    # Values near 84 differ in their last digits only: written out, not as an offset in a corner.
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.grid(alpha=0.3)
    if any(labels) or marks:
        ax.legend(loc="best")


def draw_intervals(
    ax: Axes,
    rows: Sequence[IntervalRow],
    *,
    x_label: str,
    marks: Sequence[ReferenceLine] = (),
    limits: tuple[float, float] | None = None,
) -> None:
    """Rows from top to bottom: each point a dot, the value with its 95% interval; marks are vertical lines.

    `limits` of the x axis come from the values, unless given.
    """
    for index, row in enumerate(rows):
        if row.points:
            # Spread by rank, so that equal returns of several episodes can be told apart.
            spots = index + np.linspace(-0.28, 0.28, len(row.points))
            ax.scatter(row.points, spots, s=9, color=row.colour, alpha=0.45, linewidths=0, zorder=2)
        if row.value is None:
            ax.text(0.02, index, "undefined", transform=ax.get_yaxis_transform(), va="center", color=row.colour)
            continue
        if row.low is not None and row.high is not None:
            ax.plot(
                [row.low, row.high], [index, index], color=row.colour, linewidth=2.2, solid_capstyle="butt", zorder=3
            )
        edge = row.colour if row.marker == "|" else "white"  # a stroke is nothing but its edge
        ax.plot([row.value], [index], row.marker, color=row.colour, markersize=6, markeredgecolor=edge, zorder=4)
    for mark in marks:
        ax.axvline(mark.value, color=mark.colour, linestyle=mark.style, linewidth=1, label=mark.label, zorder=1)
    ax.set_yticks(range(len(rows)), [textwrap.fill(row.label, _LABEL_WIDTH) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    if limits is not None:
        ax.set_xlim(*limits)
    low, high = ax.get_xlim()
    if high - low < 1e-3 * abs(high):
        ax.xaxis.set_major_locator(MaxNLocator(2))  # the labels are long: only their last digits differ
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.set_xlabel(x_label)
    ax.grid(axis="x", alpha=0.3)
    if marks:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def draw_shares(ax: Axes, shares: ArrayLike, *, row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    """Shares [R, C] as a field of shaded cells, each with its per cent; NaN stays empty."""
    values = np.asarray(shares, dtype=np.float64)
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(values):
        if np.isfinite(share):
            colour = "white" if share > 0.6 else "black"
            text = "0" if share == 0 else f"{100 * share:.1f}" if share >= 0.001 else "<0.1"
            ax.text(column, row, text, ha="center", va="center", color=colour)
    ax.set_xticks(range(len(column_labels)), column_labels, rotation=45 if len(column_labels) > 6 else 0)
    ax.set_yticks(range(len(row_labels)), row_labels)
    ax.tick_params(length=0)
    ax.set_xlabel("share of steps in %")


def draw_quantiles(ax: Axes, rows: Sequence[QuantileRow], *, x_label: str) -> None:
    """Rows from top to bottom: a thin line over all quantiles, a thick one from 25% to 75%, the median a marker."""
    everything = [value for row in rows for value in row.quantiles.values()]
    for index, row in enumerate(rows):
        values = row.quantiles
        ax.plot([min(values.values()), max(values.values())], [index, index], color=row.colour, linewidth=1)
        if {0.25, 0.75} <= set(values):
            ax.plot([values[0.25], values[0.75]], [index, index], color=row.colour, linewidth=5, solid_capstyle="butt")
        if 0.5 in values:
            ax.plot([values[0.5]], [index], row.marker, color=row.colour, markersize=6, markeredgecolor="white")
    if everything and min(everything) > 0 and max(everything) > 20 * min(everything):
        ax.set_xscale("log")
    ax.set_yticks(range(len(rows)), [textwrap.fill(row.label, _LABEL_WIDTH) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(x_label)
    ax.grid(axis="x", alpha=0.3)


@dataclass(frozen=True)
class Curve:
    """A training run: its episodes' returns by agent step, and their running mean."""

    label: str
    steps: FloatArray
    returns: FloatArray
    colour: str
    style: str = "-"
    recent: int = field(default=20)


def draw_curves(ax: Axes, curves: Sequence[Curve], *, marks: Sequence[ReferenceLine] = ()) -> None:
    """Learning curves: every episode a faint dot, the mean of the last `recent` episodes a line for each run."""
    for curve in curves:
        ax.scatter(curve.steps, curve.returns, s=3, color=curve.colour, alpha=0.12, linewidths=0, rasterized=True)
    lines = []
    for curve in curves:
        sums = np.concatenate([[0.0], np.cumsum(curve.returns)])
        ends = np.arange(1, len(curve.returns) + 1)
        begins = np.maximum(ends - curve.recent, 0)
        means = (sums[ends] - sums[begins]) / (ends - begins)
        lines.append(Series(curve.label, curve.steps, means, curve.colour, style=curve.style))
    draw_lines(ax, lines, x_label="agent steps", y_label="training return", marks=marks)


def titled(draw: Callable[..., None], title: str, ax: Axes, **arguments: Any) -> None:
    """`draw` on `ax` with `arguments`, under a title."""
    draw(ax, **arguments)
    ax.set_title(title)


def number_text(value: float | None) -> str:
    """Four digits for the words beside a chart."""
    return "undefined" if value is None or np.isnan(value) else f"{value:.4g}"
