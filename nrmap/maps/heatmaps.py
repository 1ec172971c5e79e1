"""Draw maps as heat maps: one on an Axes, or several in a figure.

Every map has its own linear scale, from its smallest to its largest value, because Q-values of two
networks have no common unit. Colour maps are ordered by lightness, so that they survive grey print
and colour-blind eyes; those of signed maps are white at 0.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter
from numpy.typing import ArrayLike, NDArray

from nrmap.maps.episode_maps import TotalMaps
from nrmap.maps.kinds import KINDS, FloatArray, MapKind
from nrmap.maps.sparsity import sparsity

MOST_COLUMNS = 12  # of one figure, so that its size is bounded


def map_limits(map_: ArrayLike, kind: str) -> tuple[float, float]:
    """Return the ends of the colour bar: the map's smallest and largest value, or ± max |map| for signed kinds."""
    values = np.asarray(map_)
    low, high = float(values.min()), float(values.max())
    if KINDS[kind].signed:
        high = max(abs(low), abs(high))
        low = -high
    return low, high


def draw_map(ax: Axes, map_: ArrayLike, *, kind: str, title: str) -> None:
    """Draw a map [H, W] of a `kind` in `KINDS` with its colour bar; a map of zeros is labelled "0 everywhere"."""
    values = np.asarray(map_, dtype=np.float64)
    style = KINDS[kind]
    low, high = map_limits(values, kind)
    nothing = not values.any()
    if nothing:  # any range that gives 0 its colour
        low, high = -float(style.signed), 1.0
    image = ax.imshow(values, cmap=style.colours, vmin=low, vmax=high, interpolation="none")
    ax.set_title(title)
    _without_frame(ax)
    if nothing:
        colour = "black" if style.signed else "white"
        ax.text(0.5, 0.5, "0 everywhere", transform=ax.transAxes, ha="center", va="center", color=colour, weight="bold")
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_powerlimits((-3, 5))
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03, format=formatter)
    bar.set_label(style.unit)
    # A small picture: the default mesh is 256 shapes in an SVG, and as large as the whole figure in a PDF.
    assert bar.solids is not None
    bar.solids.remove()
    ends = bar.ax.get_ylim()
    levels, extent = np.linspace(*ends, 256)[:, None], (0, 1, *ends)
    bar.ax.imshow(levels, style.colours, extent=extent, origin="lower", aspect="auto", interpolation="none")
    bar.locator = FixedLocator([0]) if nothing else MaxNLocator(5)
    bar.update_ticks()


def map_figures(maps: TotalMaps) -> Iterator[Figure]:
    """Yield figures of up to `MOST_COLUMNS` maps each, with a row per channel if channels were ablated separately.

    The title of each map gives its S, "S undefined" for a map of zeros. Raises NrmapError for NaN or infinite values.
    """
    columns = [(kind, temperature, map_.reshape(-1, *map_.shape[-2:])) for kind, temperature, map_ in maps.each()]
    for start in range(0, len(columns), MOST_COLUMNS):
        yield _figure(columns[start : start + MOST_COLUMNS])


def _figure(columns: Sequence[tuple[MapKind, float | None, FloatArray]]) -> Figure:
    rows = len(columns[0][2])
    figure = Figure(figsize=(3.6 * len(columns), 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (kind, temperature, channels) in enumerate(columns):
        title = kind.heading + ("" if temperature is None else f", T = {temperature:g}")
        for row, map_ in enumerate(channels):
            size = sparsity(map_).value
            value = "S undefined" if size is None else f"S = {size:.{kind.digits}f}"
            channel = f", channel {row}" if rows > 1 else ""
            draw_map(axes[row, column], map_, kind=kind.name, title=f"{title}{channel}\n{value}")
    return figure


def draw_overlay(ax: Axes, screen: NDArray[np.uint8], map_: ArrayLike, *, kind: str, title: str) -> None:
    """Draw a map [H, W] over a colour screen, uint8 [h, w, 3], more opaque where the map is stronger.

    Strength is |map| for signed kinds, and the height above the smallest value for the others. `screen` is the part of
    the screen that the agent sees, before resizing; the map is stretched to its size.
    """
    height, width = screen.shape[:2]
    extent = (0, width, height, 0)
    grey = screen.astype(np.float64).mean(axis=2, keepdims=True)
    ax.imshow((0.5 * screen + 0.5 * grey).astype(np.uint8), extent=extent, interpolation="nearest")
    values = np.asarray(map_, dtype=np.float64)
    size = np.abs(values) - (0 if KINDS[kind].signed else values.min())
    alpha = np.sqrt(size / size.max()) if size.max() > 0 else np.zeros_like(size)
    low, high = map_limits(values, kind)
    colours = KINDS[kind].colours
    ax.imshow(values, extent=extent, cmap=colours, vmin=low, vmax=high, alpha=0.9 * alpha, interpolation="none")
    ax.set_aspect("equal")
    ax.set_title(title)
    _without_frame(ax)


def _without_frame(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
