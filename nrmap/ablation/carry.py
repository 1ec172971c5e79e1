"""Propagate the change made by each ablation from layer to layer, within its receptive window.

All ablations of one *strip*, a few neighbouring image rows in all states of a batch, are
processed together. They reach the same rows of every layer: the strip's *window* in that layer.
Horizontally each ablation reaches only a few columns. The ablations are sorted by pixel column,
so the ablations that reach a given column of a layer are contiguous. A layer's changes are
stored column by column, each column as a dense matrix of (ablations that reach it) × (window
units that change). A convolution is then a sum of matrix products between slices of these matrices.

All changes are differences between the ablated and the clean network. A linear layer maps
differences δ to differences. For the ReLU behind it, with the clean pre-activation z:
relu(z + δ) − relu(z) = max(δ + min(z, 0), −max(z, 0)).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nrmap.ablation.parts import Convolution


@dataclass(frozen=True, eq=False)
class Ablations:
    """The R ablations of a strip of image rows that change the first layer, sorted by pixel column."""

    starts: list[int]  # pixel column j has the ablations starts[j]:starts[j + 1]
    states: Tensor  # [R], index of the state within the batch
    pixels: Tensor  # [R], index of the ablation within its state

    def __len__(self) -> int:
        return len(self.states)

    def of(self, pixel_columns: range) -> slice:
        """The slice of the R ablations that lie in `pixel_columns`."""
        return slice(self.starts[pixel_columns.start], self.starts[pixel_columns.stop])


@dataclass(frozen=True, eq=False)
class Column:
    """The changes of one column of a layer's outputs by the ablations that reach it.

    The unit number y·O + c stands for channel c of O in row y of the layer's window. `units` has only the units that
    some ablation changes.
    """

    pixel_columns: range  # the pixel columns whose ablations reach this column
    ablations: slice
    changes: Tensor  # [ablations, units]
    units: Tensor  # [units], ascending
    ends: list[int]  # window row y has units[ends[y]:ends[y + 1]]


@dataclass(frozen=True, eq=False)
class Changes:
    """The changes of one layer's outputs by all ablations of a strip."""

    window: range  # the rows of the layer that the strip reaches
    channels: int
    columns: dict[int, Column]


@dataclass(frozen=True, eq=False)
class CleanLayer:
    """The clean pre-activations z of a convolution for S states, split into two parts for the ReLU."""

    below: Tensor  # min(z, 0) [W, S, H, O]
    minus_above: Tensor  # −max(z, 0) [W, S, H, O]

    @staticmethod
    def of(z: Tensor) -> "CleanLayer":
        """Split the pre-activations `z` [S, O, H, W]."""
        by_column = z.permute(3, 0, 2, 1).contiguous()
        return CleanLayer(by_column.clamp(max=0), by_column.clamp(min=0).neg_())

    @property
    def height(self) -> int:
        """H, the number of rows."""
        return self.below.shape[2]

    @property
    def width(self) -> int:
        """W, the number of columns."""
        return self.below.shape[0]


def first_changes(
    layer: Convolution, clean: CleanLayer, differences: Tensor, strip: range, pixels: Tensor
) -> tuple[Ablations, Changes]:
    """Find the ablations in a strip of I image rows that change the first layer, and the changes of its outputs.

    `layer` is the first convolution, and `clean` has its clean pre-activations. The changes include the ReLU behind it,
    if any. `differences` [W, I, M, S, K] is the change of the scaled input, by pixel column, row, ablation of the
    pixel, state and channel: M = 1, K = C if channels are ablated together, M = C, K = 1 if one at a time. `pixels`
    [W, I, M] is the index of each ablation within its state.
    """
    width, _, _, states, _ = differences.shape
    window = layer.vertical.readers(strip, clean.height)
    down = layer.vertical.taps(strip, window)  # [I, Y]
    reached: dict[int, tuple[range, Tensor]] = {}
    matters = torch.zeros(width, differences[0, ..., 0].numel(), dtype=torch.bool, device=differences.device)
    for x in range(clean.width):
        sources = layer.horizontal.sources(x, width)
        if not sources:
            continue
        across = layer.horizontal.taps(sources, [x])  # [J, 1]
        weights = layer.by_tap[down[None], across[:, :, None]]  # [J, I, Y, C, O]
        weights = weights.permute(0, 1, 3, 2, 4).flatten(3)  # [J, I, C, Y·O]
        inputs = differences[sources.start : sources.stop]  # [J, I, M, S, K]
        weights = weights.unflatten(2, (inputs.shape[2], inputs.shape[4]))  # [J, I, M, K, Y·O]
        changes = inputs * weights if inputs.shape[4] == 1 else inputs @ weights  # [J, I, M, S, Y·O]
        if layer.relu:
            rows = slice(window.start, window.stop)
            changes += clean.below[x, :, rows].flatten(1)
            torch.maximum(changes, clean.minus_above[x, :, rows].flatten(1), out=changes)
        matters[sources.start : sources.stop] |= (changes.abs().amax(-1) > 0).flatten(1)
        reached[x] = sources, changes.flatten(0, 3)
    (kept,) = matters.flatten().nonzero(as_tuple=True)
    starts = [0, *matters.sum(1).cumsum(0).tolist()]
    ablations = Ablations(starts, kept % states, pixels.flatten()[kept // states])
    columns = {}
    for x, (sources, changes) in reached.items():
        rows = ablations.of(sources)
        own = kept[rows] - sources.start * matters.shape[1]
        columns[x] = _column(sources, rows, changes.index_select(0, own), layer.channels)
    return ablations, _changes(window, layer.channels, columns)


def next_changes(layer: Convolution, clean: CleanLayer, ablations: Ablations, inputs: Changes) -> Changes:
    """Compute the changes of a convolution's outputs, ReLU included, from the changes of its inputs."""
    window = layer.vertical.readers(inputs.window, clean.height)
    first_row = inputs.window.start
    sums: dict[int, Tensor] = {}
    reach = {x: _reach(layer, inputs, x) for x in range(clean.width)}
    for x, pixel_columns in reach.items():
        if pixel_columns:
            states = ablations.states[ablations.of(pixel_columns)]
            below = clean.below[x, :, window.start : window.stop].flatten(1)  # [S, Y·O]
            sums[x] = below.index_select(0, states) if layer.relu else below.new_zeros(len(states), below.shape[1])
    for source, column in inputs.columns.items():
        for y in window:
            outputs = slice((y - window.start) * layer.channels, (y - window.start + 1) * layer.channels)
            for run in layer.vertical.runs(y, inputs.window):
                start = run.input - first_row
                read = slice(column.ends[start], column.ends[start + run.length])
                changes = column.changes[:, read]  # [ablations, units]
                # Window row y lies under the kernel's tap (y − start) + run.tap.
                under = column.units[read] + (run.tap - start) * inputs.channels
                weights = layer.by_column.index_select(1, under)  # [KW, units, O]
                for x in layer.horizontal.readers(range(source, source + 1), clean.width):
                    tap = layer.horizontal.tap(source, x)
                    if tap is not None:
                        offset = ablations.starts[reach[x].start]
                        rows = slice(column.ablations.start - offset, column.ablations.stop - offset)
                        sums[x][rows, outputs].addmm_(changes, weights[tap])
    columns = {}
    for x in list(sums):
        changes, rows = sums.pop(x), ablations.of(reach[x])
        if layer.relu:
            above = clean.minus_above[x, :, window.start : window.stop].flatten(1)
            torch.maximum(changes, above.index_select(0, ablations.states[rows]), out=changes)
        columns[x] = _column(reach[x], rows, changes, layer.channels)
    return _changes(window, layer.channels, columns)


def _reach(layer: Convolution, inputs: Changes, x: int) -> range:
    """Return the pixel columns, first to last, whose ablations reach the layer's column `x`; may be none."""
    read = [
        column.pixel_columns for source, column in inputs.columns.items() if layer.horizontal.tap(source, x) is not None
    ]
    return range(min(reach.start for reach in read), max(reach.stop for reach in read)) if read else range(0)


def _column(pixel_columns: range, ablations: slice, changes: Tensor, channels: int) -> Column:
    """Make a column of `changes` [ablations, window rows · channels], without the units that never change."""
    ends = torch.arange(0, changes.shape[1] + 1, channels, device=changes.device)
    if not len(changes):
        return Column(pixel_columns, ablations, changes[:, :0], ends[:0], [0] * len(ends))
    (units,) = ((changes.amax(0) > 0) | (changes.amin(0) < 0)).nonzero(as_tuple=True)
    if len(units) < changes.shape[1]:
        changes = changes.index_select(1, units)
    return Column(pixel_columns, ablations, changes, units, torch.searchsorted(units, ends).tolist())


def _changes(window: range, channels: int, columns: dict[int, Column]) -> Changes:
    return Changes(window, channels, {x: column for x, column in columns.items() if len(column.units)})
