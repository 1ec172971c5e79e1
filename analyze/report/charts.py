"""Charts, each drawn on one Axes: lines, and values with their intervals."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullFormatter
from numpy.typing import ArrayLike

from analyze.report.sheets import Panel

GREY = "#6b6b6b"
_LABEL_WIDTH = 24  # letters in a line of a row label


@dataclass(frozen=True)
class Series:
    """A line through points; NaN leaves a gap. A band from `low` to `high` where both are given.

    `dots` are faint dots at the same x, such as the episodes behind a mean.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: str
    marker: str = ""
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    dots: ArrayLike | None = None


@dataclass(frozen=True)
class IntervalRow:
    """A labelled value with its interval, a wider range, and the points behind it; a value of None is undefined."""

    label: str
    value: float | None
    colour: str
    marker: str = "D"
    low: float | None = None
    high: float | None = None
    wide: tuple[float, float] | None = None
    points: Sequence[float] = ()


@dataclass(frozen=True)
class ReferenceLine:
    """A value to compare with, such as a published number."""

    label: str
    value: float
    colour: str = GREY


def draw_lines(
    ax: Axes,
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    marks: Sequence[ReferenceLine] = (),
) -> None:
    """Draw lines with bands, and `marks` as dashed lines. Equal labels share one legend entry, with their number."""
    labels = [line.label for line in series]
    for index, line in enumerate(series):
        count = labels.count(line.label)
        shared = f"{line.label}, {count} seeds" if count > 1 else line.label
        label = None if line.label in labels[:index] else shared
        ax.plot(line.x, line.y, color=line.colour, marker=line.marker, markersize=4, linewidth=1.2, label=label)
        if line.low is not None and line.high is not None:
            x, low, high = (np.asarray(numbers, dtype=float) for numbers in (line.x, line.low, line.high))
            ax.fill_between(x, low, high, color=line.colour, alpha=0.15, linewidth=0)
        if line.dots is not None:
            ax.scatter(line.x, line.dots, s=3, color=line.colour, alpha=0.12, linewidths=0, rasterized=True)
    for mark in marks:
        ax.axhline(mark.value, color=mark.colour, linestyle="--", linewidth=0.9, label=mark.label)
    if log_x:
        _log_axis(ax, base=2 if x_label.startswith("N") else 10)
        ticks = sorted({float(x) for line in series for x in np.asarray(line.x, dtype=float)})
        if len(ticks) <= 8:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
    elif any(np.max(line.x, initial=0) >= 10_000 for line in series):
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    _finish(ax, "y", title, x_label)
    ax.set_ylabel(y_label)


def draw_intervals(
    ax: Axes,
    rows: Sequence[IntervalRow],
    *,
    title: str,
    x_label: str,
    marks: Sequence[ReferenceLine] = (),
    limits: tuple[float, float] | None = None,
    log_x: bool = False,
) -> None:
    """Draw each of `rows`, the first at the top, and a dashed vertical line for each mark.

    A row has a marker at its value, a thick bar over its interval, a thin bar over its wide range and dots at its
    points; without a value it has the word "undefined" and the dots. `limits`: range of the x axis (None: matplotlib
    chooses); points outside are drawn at the edge. `log_x` makes that axis logarithmic.
    """
    for index, row in enumerate(rows):
        if row.points:
            # Spread vertically by rank, because several episodes may have equal returns.
            spots = index + np.linspace(-0.28, 0.28, len(row.points))
            points = row.points if limits is None else np.clip(row.points, *limits)
            ax.scatter(points, spots, s=9, color=row.colour, alpha=0.45, linewidths=0, zorder=2)
        if row.value is None:
            ax.text(0.02, index, "undefined", transform=ax.get_yaxis_transform(), va="center", color=row.colour)
            continue
        if row.wide is not None:
            ax.plot(row.wide, [index, index], color=row.colour, linewidth=1)
        if row.low is not None and row.high is not None:
            width = 2.2 if row.wide is None else 5
            ends = [row.low, row.high]
            ax.plot(ends, [index, index], color=row.colour, linewidth=width, solid_capstyle="butt", zorder=3)
        edge = row.colour if row.marker == "|" else "white"  # a stroke has no face
        ax.plot([row.value], [index], row.marker, color=row.colour, markersize=6, markeredgecolor=edge, zorder=4)
    for mark in marks:
        ax.axvline(mark.value, color=mark.colour, linestyle="--", linewidth=1, label=mark.label, zorder=1)
    ax.set_yticks(range(len(rows)), [textwrap.fill(row.label, _LABEL_WIDTH) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    if limits is not None:
        ax.set_xlim(*limits)
    if log_x:
        _log_axis(ax, base=10)
    _finish(ax, "x", title, x_label)


def _log_axis(ax: Axes, base: int) -> None:
    """Make the x axis logarithmic, with plain numbers: report.mplstyle switches formulas off."""
    ax.set_xscale("log", base=base)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _finish(ax: Axes, values: Literal["x", "y"], title: str, x_label: str) -> None:
    """Add title, grid, full tick labels on the axis `values` and, if anything has a label, a legend under the x axis.

    A linear axis spans at least a millionth of its upper limit, so that rounding does not look like a difference.
    """
    if getattr(ax, f"get_{values}scale")() == "linear":
        low, high = getattr(ax, f"get_{values}lim")()
        middle, least = (low + high) / 2, 1e-6 * abs(high)
        if high - low < least:
            ax.set(**{f"{values}lim": (middle - least, middle + least)})
        if high - low < 1e-3 * abs(high):
            ax.locator_params(axis=values, nbins=2)  # labels that differ in the last digits are long
        ax.ticklabel_format(axis=values, useOffset=False)
    ax.set_title(title)
    ax.set_xlabel(x_label)
    ax.grid(axis="x" if values == "x" else "both", alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def panel_of(draw: Callable[..., None], title: str, text: str, **arguments: Any) -> Panel:
    """Make a panel that `draw` fills with `arguments`; its description is `title` + `text` + "."."""
    return Panel(partial(draw, title=title, **arguments), f"{title}{text}.")


def number_text(value: float | None) -> str:
    """Format `value` with four significant digits, for the text beside a chart; "undefined" for None and NaN."""
    return "undefined" if value is None or np.isnan(value) else f"{value:.4g}"
