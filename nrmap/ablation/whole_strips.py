"""Ablate a strip of image rows by a fixed sequence of operations, for GPUs: few launches, no waiting for values.

Changes are stored as in `carry`, but nothing is dropped: every ablation of the strip and every unit of its windows is
computed. So all shapes follow from the network and the number of states, no value is read on the host, and the number
of operations does not depend on the number of states. The changes of a column that J pixel columns reach have the shape
[J·I·M·S, units]. Row ((j·I + i)·M + m)·S + s belongs to the j-th of these pixel columns, image row i of the strip,
ablation m of the pixel and state s.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from nrmap.ablation.carry import CleanLayer
from nrmap.ablation.hidden import CleanHidden, HiddenLayer
from nrmap.ablation.parts import Convolution, NetworkParts, Readout

# Equal weights are shared between columns and strips.
WeightCache = dict[tuple[object, ...], Tensor]


@dataclass(frozen=True, eq=False)
class _Column:
    """Weights for one output column of a convolution in a strip."""

    reach: range  # the pixel columns whose ablations reach it
    weights: dict[int, Tensor]  # by input column: [units of the input window, units of the window]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A convolution, limited to the rows of inputs and outputs that a strip reaches."""

    relu: bool
    window: slice  # rows of its outputs
    columns: dict[int, _Column]

    def clean(self, part: Tensor, columns: slice) -> Tensor:
        """Cut X `columns` and the window's rows out of `part` [W, S, H, O] of a `CleanLayer`, as [X, S, units]."""
        return part[columns, :, self.window].flatten(2)


@dataclass(frozen=True, eq=False)
class _Group:
    """Neighbouring columns of the first layer that have the same weights for the pixel columns in their reach."""

    columns: slice
    reach: range  # of the first column
    step: int  # pixel columns by which the reach shifts from one column to the next
    weights: Tensor  # [J, I · C, units] for the J pixel columns in reach; 0 where a column skips one


class WholeStrip:
    """One strip of image rows, with the weights of all layers arranged for its windows."""

    def __init__(
        self, parts: NetworkParts, hidden: HiddenLayer, rows: range, sides: tuple[int, int], cache: WeightCache
    ) -> None:
        """Arrange the weights for the strip's image rows `rows`; `sides` are height and width of a state.

        All strips share the `cache`, to which weights are added.
        """
        self.rows = slice(rows.start, rows.stop)
        self._hidden = hidden
        self._layers: list[_Layer] = []
        (height, width), window = sides, rows
        reach = {x: range(x, x + 1) for x in range(width)}
        for number, layer in enumerate(parts.convolutions):
            height, width = layer.outputs(height, width)
            inputs, window = window, layer.vertical.readers(window, height) if window else window
            columns = {}
            for x in range(width) if window else ():
                taps = {source: layer.horizontal.tap(source, x) for source in reach}
                weights = {
                    source: _cached(cache, (number, tap), layer, inputs, window, tap)
                    for source, tap in taps.items()
                    if tap is not None
                }
                if weights:
                    ends = [reach[source] for source in weights]
                    columns[x] = _Column(range(min(e.start for e in ends), max(e.stop for e in ends)), weights)
            reach = {x: column.reach for x, column in columns.items()}
            self._layers.append(_Layer(layer.relu, slice(window.start, window.stop), columns))
        self._groups = _grouped(self._layers[0].columns, parts.convolutions[0].horizontal.stride, cache)

    def q_changes(self, clean: Sequence[CleanLayer], hidden: CleanHidden, differences: Tensor) -> Tensor:
        """Compute the change of the Q-values by each ablation of the strip, [W, I, M, S, A].

        `differences` [W, I, M, S, K] is the change of the scaled input; see `carry.first_changes`.
        """
        changes = self._first_changes(clean[0], differences)
        rows = differences[0, ..., 0].numel()  # I·M·S, of one pixel column
        for inputs, layer, clean_layer in zip(self._layers, self._layers[1:], clean[1:], strict=False):
            changes = _next_changes(inputs, layer, clean_layer, changes, rows)
        q_changes = self._read(hidden, changes, differences)  # [W, I, M, S, A]
        # Rounding must not change the Q-values where the pixel has the ablated value already.
        return torch.where((differences != 0).any(dim=4, keepdim=True), q_changes, 0)

    def _first_changes(self, clean: CleanLayer, differences: Tensor) -> dict[int, Tensor]:
        """Compute the changes of the first layer by column, each [J·I·M·S, units] as the module describes."""
        layer = self._layers[0]
        changes: dict[int, Tensor] = {}
        rows, ablations, states, channels = differences.shape[1:]  # I, M, S, K
        for group in self._groups:
            number, length = group.columns.stop - group.columns.start, len(group.reach)
            last = group.reach.start + (number - 1) * group.step + length
            inputs = differences[group.reach.start : last].unfold(0, length, group.step)  # [X, I, M, S, K, J]
            inputs = inputs.permute(0, 5, 1, 2, 3, 4)
            weights = group.weights.unflatten(1, (rows, ablations, channels))  # [J, I, M, K, units]
            products = differences.new_empty(number, length, rows, ablations, states, weights.shape[-1])
            (torch.mul if channels == 1 else torch.matmul)(inputs, weights, out=products)  # [X, J, I, M, S, units]
            if layer.relu:
                by_state = products.flatten(1, 3)  # [X, J·I·M, S, units]
                by_state += layer.clean(clean.below, group.columns)[:, None]
                torch.maximum(by_state, layer.clean(clean.minus_above, group.columns)[:, None], out=by_state)
            columns = range(group.columns.start, group.columns.stop)
            changes.update(zip(columns, products.flatten(1, 4), strict=True))
        return changes

    def _read(self, hidden: CleanHidden, changes: dict[int, Tensor], differences: Tensor) -> Tensor:
        """Compute the change of the Q-values [W, I, M, S, A] from the changes of the features."""
        layer, tail = self._layers[-1], self._hidden.tail
        rows = differences[0, ..., 0].numel()
        units = hidden.pre_activations  # [S, U]
        sums = units.repeat(differences.shape[:3].numel(), 1)  # [W·I·M·S, U]
        for x, column in layer.columns.items():
            weights = self._hidden.weight[x, layer.window].flatten(0, 1)  # [units, U]
            sums[column.reach.start * rows : column.reach.stop * rows].addmm_(changes[x], weights)
        if isinstance(tail, Readout):
            q_values = functional.linear(sums.relu_(), tail.weight)
            clean = functional.linear(units.relu(), tail.weight)
        else:
            q_values, clean = tail(sums), hidden.q_values
        return q_values.unflatten(0, differences.shape[:4]) - clean


def _next_changes(
    inputs: _Layer, layer: _Layer, clean: CleanLayer, changes: dict[int, Tensor], rows: int
) -> dict[int, Tensor]:
    """Compute the changes of `layer` from the `changes` of `inputs`, by column.

    Those of a column are [J·`rows`, units] as the module describes, where `rows` is I·M·S.
    """
    found = {}
    for x, column in layer.columns.items():
        below = layer.clean(clean.below, slice(x, x + 1))[0]  # [S, units]
        repeats = len(column.reach) * rows // len(below)
        sums = below.repeat(repeats, 1) if layer.relu else below.new_zeros(repeats * len(below), below.shape[1])
        for source, weights in column.weights.items():
            reach = inputs.columns[source].reach
            own = slice((reach.start - column.reach.start) * rows, (reach.stop - column.reach.start) * rows)
            sums[own].addmm_(changes[source], weights)
        if layer.relu:
            by_state = sums.view(repeats, *below.shape)
            torch.maximum(by_state, layer.clean(clean.minus_above, slice(x, x + 1)), out=by_state)
        found[x] = sums
    return found


def _cached(
    cache: WeightCache, key: tuple[int, int], layer: Convolution, inputs: range, outputs: range, tap: int
) -> Tensor:
    """Return the weights of kernel column `tap` as a matrix [inputs · I, outputs · O] from input rows to output rows.

    A matrix that is not in the `cache` is made and added.
    """
    taps = layer.vertical.taps(inputs, outputs)  # [inputs, outputs]
    whole_key = (*key, *taps.shape, *taps.flatten().tolist())
    if whole_key not in cache:
        weights = layer.by_tap[taps.to(layer.by_tap.device), tap]  # [inputs, outputs, I, O]
        cache[whole_key] = weights.transpose(1, 2).flatten(2).flatten(0, 1).contiguous()
    return cache[whole_key]


def _grouped(columns: dict[int, _Column], stride: int, cache: WeightCache) -> list[_Group]:
    """Group the first layer's neighbouring columns that share their weights, in order."""
    groups: list[_Group] = []
    for x, column in columns.items():
        matrices = [column.weights.get(source) for source in column.reach]
        key = ("stacked", *map(id, matrices))
        if key not in cache:
            some = next(iter(column.weights.values()))
            cache[key] = torch.stack([torch.zeros_like(some) if matrix is None else matrix for matrix in matrices])
        last = groups[-1] if groups else None
        follows = last is not None and column.reach.start == last.reach.start + stride * (x - last.columns.start)
        if last and follows and last.columns.stop == x and last.weights is cache[key]:
            groups[-1] = replace(last, columns=slice(last.columns.start, x + 1))
        else:
            groups.append(_Group(slice(x, x + 1), column.reach, stride, cache[key]))
    return groups
