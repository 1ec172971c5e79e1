"""Carries the change that each ablation makes from layer to layer, over the window that it reaches.

The ablations of one *strip* go together: those of a few neighbouring image rows, in all states of
a batch. They reach the same rows of every layer, the strip's *window* there. Sideways each of
them reaches a few columns only; but as the ablations are sorted by pixel column, those that reach
a given column of a layer follow one another. So a layer's changes are kept column by column, each
a dense matrix of (ablations that reach it) × (units of the window that change), and a step of a
convolution is a sum of matrix products between slices of such matrices.

What is carried is always a difference between the ablated and the clean network. A layer's linear
part maps differences δ to differences, and behind it relu(z + δ) − relu(z) equals
max(δ + min(z, 0), −max(z, 0)), where z is the clean pre-activation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nrmap.ablation.parts import Convolution


@dataclass(frozen=True, eq=False)
class Ablations:
    """The R ablations of a strip that change the first layer, sorted by pixel column."""

    starts: list[int]  # those of pixel column j are starts[j] to starts[j + 1]
    states: Tensor  # [R], whose state within the batch
    pixels: Tensor  # [R], which of that state's ablations

    def __len__(self) -> int:
        return len(self.states)

    def of(self, pixel_columns: range) -> slice:
        """Those of the given pixel columns."""
        return slice(self.starts[pixel_columns.start], self.starts[pixel_columns.stop])


@dataclass(frozen=True, eq=False)
class Column:
    """The changes of one layer at one of its columns.

    A unit is named by its index y·O + c into the window, y counted from the window's first row.
    Units that no ablation changes have been dropped.
    """

    pixel_columns: range  # from the first to the last whose ablation reaches this column
    ablations: slice
    changes: Tensor  # [ablations, units]
    units: Tensor  # [units], ascending
    ends: list[int]  # the units of window row y are ends[y] to ends[y + 1] of them


@dataclass(frozen=True, eq=False)
class Changes:
    """The changes of one layer under the ablations of a strip."""

    window: range  # the rows of the layer that the strip reaches
    channels: int
    columns: dict[int, Column]


@dataclass(frozen=True, eq=False)
class CleanLayer:
    """The clean pre-activations z of a convolution for S states, in the two parts that its ReLU's change needs."""

    below: Tensor  # min(z, 0) [W, S, H, O]
    minus_above: Tensor  # −max(z, 0) [W, S, H, O]

    @staticmethod
    def of(z: Tensor) -> "CleanLayer":
        """The parts of `z` [S, O, H, W]."""
        by_column = z.permute(3, 0, 2, 1).contiguous()
        return CleanLayer(by_column.clamp(max=0), by_column.clamp(min=0).neg_())

    @property
    def height(self) -> int:
        """H, the rows of the layer."""
        return self.below.shape[2]

    @property
    def width(self) -> int:
        """W, the columns of the layer."""
        return self.below.shape[0]


def first_changes(
    layer: Convolution, clean: CleanLayer, differences: Tensor, strip: range, pixels: Tensor
) -> tuple[Ablations, Changes]:
    """The ablations of a strip of I image rows that change the first layer, and these changes.

    `differences` [W, I, M, S, K] tells by how much the scaled input differs: for each pixel
    column, image row and state there are M ablations, each of K channels. K is C and M is 1 where
    all channels are ablated together; else K is 1 and ablation m is of channel m. `pixels`
    [W, I, M] are the ablations' numbers.
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
    """The changes of a convolution's outputs, its ReLU included, from those of its inputs."""
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
                # The unit y·I + c is under tap (y − start) + run.tap, so under that row of the kernel's matrix.
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
    """From the first to the last pixel column whose ablation changes an input of the layer's column `x`."""
    read = [
        column.pixel_columns for source, column in inputs.columns.items() if layer.horizontal.tap(source, x) is not None
    ]
    return range(min(reach.start for reach in read), max(reach.stop for reach in read)) if read else range(0)


def _column(pixel_columns: range, ablations: slice, changes: Tensor, channels: int) -> Column:
    """The changes [ablations, window rows · channels] of a layer's column, without the units that never change."""
    ends = torch.arange(0, changes.shape[1] + 1, channels, device=changes.device)
    if not len(changes):
        return Column(pixel_columns, ablations, changes[:, :0], ends[:0], [0] * len(ends))
    (units,) = ((changes.amax(0) > 0) | (changes.amin(0) < 0)).nonzero(as_tuple=True)
    if len(units) < changes.shape[1]:
        changes = changes.index_select(1, units)
    return Column(pixel_columns, ablations, changes, units, torch.searchsorted(units, ends).tolist())


def _changes(window: range, channels: int, columns: dict[int, Column]) -> Changes:
    return Changes(window, channels, {x: column for x, column in columns.items() if len(column.units)})
