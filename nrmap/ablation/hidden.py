"""Compute changes of the Q-values from changes of the features, skipping hidden units that keep their sign.

A change δ of the features changes a hidden unit with weights w by wᵀδ, and |wᵀδ| ≤ Σ_x ‖w_x‖·‖δ_x‖ (Cauchy
and Schwarz), where w_x and δ_x are the parts of w and δ in column x of the feature map. One such bound for a
state and a few neighbouring pixel columns is cheap.
If the clean pre-activation is further from 0 than the bound, no ablation changes its sign: below 0 the
unit is *silent*, above 0 it is *linear*, and all linear units together act on the Q-values as one matrix
with A columns. A unit that is silent, or linear, in every state of the batch needs no matrix product of its own.

All other units are *undecided* and computed as relu(h + wᵀδ). Their part of the clean Q-values is subtracted
at the end: unlike in earlier layers, no later step needs the differences of single units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nrmap.ablation.carry import Ablations, Changes
from nrmap.ablation.parts import NetworkParts, Readout
from nrmap.ablation.recording import Program

# Number of neighbouring pixel columns that share a bound. Fewer columns make it tighter and slower.
COLUMNS_PER_BOUND = 4
# Number of ablations in one product of the hidden layer: few enough for a processor's cache.
ABLATIONS_AT_A_TIME = 2048
# Rows of results begin on a cache line. Otherwise products of this size take up to 1.5 times as long.
ALIGNMENT = 16
# Covers the rounding of the bounds, which are computed in float32.
SLACK = 1.001


@dataclass(frozen=True, eq=False)
class CleanHidden:
    """The hidden layer of S states: pre-activations h [S, U] and the resulting Q-values [S, A]."""

    pre_activations: Tensor
    q_values: Tensor


class HiddenLayer:
    """The hidden layer and the layers behind it, for states of one size."""

    def __init__(self, parts: NetworkParts, height: int, width: int) -> None:
        """Arrange the hidden layer's weights by the columns of the feature map of states of `height` × `width`."""
        for layer in parts.convolutions:
            height, width = layer.outputs(height, width)
        weight = parts.hidden_weight.unflatten(1, (-1, height, width))  # [U, C, H, W]
        self.weight = weight.permute(3, 2, 1, 0).contiguous()  # [W, H, C, U]
        self.tail = parts.tail

    def q_changes(self, clean: CleanHidden, ablations: Ablations, features: Changes) -> Tensor:
        """Compute each ablation's change of the Q-values, [R, A], from its changes of the `features`."""
        window = features.window
        weights = {
            x: self.weight[x, window.start : window.stop].flatten(0, 1).index_select(0, column.units)  # [units, U]
            for x, column in features.columns.items()
        }
        if isinstance(self.tail, Readout):
            return _by_readout(self.tail, weights, clean, ablations, features)
        return _by_tail(self.tail, weights, clean, ablations, features)


def _by_tail(
    tail: Program, weights: dict[int, Tensor], clean: CleanHidden, ablations: Ablations, features: Changes
) -> Tensor:
    parts = []
    for rows in _slices(len(ablations)):
        states = ablations.states[rows]
        hidden = clean.pre_activations.index_select(0, states)  # [n, U]
        parts.append(tail(_add_products(hidden, weights, features, rows)) - clean.q_values[states])
    return torch.cat(parts)  # [R, A]


def _by_readout(
    readout: Readout, weights: dict[int, Tensor], clean: CleanHidden, ablations: Ablations, features: Changes
) -> Tensor:
    linear, undecided = sorted_units(weights, clean.pre_activations, ablations, features)
    # Columns: undecided units, then one sum of all linear units per action, then zeros up to a full cache line.
    actions = len(readout.bias)
    width = -(-(len(undecided) + actions) // ALIGNMENT) * ALIGNMENT
    through = (readout.weight * linear).T  # [U, A]
    weights = {
        x: _widened(torch.cat([weight[:, undecided], weight @ through], dim=1), width) for x, weight in weights.items()
    }
    pre_activations = _widened(clean.pre_activations[:, undecided], width)  # [S, width]
    ones = torch.eye(actions, dtype=through.dtype, device=through.device)
    read = torch.cat([readout.weight[:, undecided], ones], dim=1)  # [A, B + A]
    read = _widened(read, width)
    clean_q = functional.linear(pre_activations.relu(), read)  # [S, A], contribution of the undecided units
    parts = []
    for rows in _slices(len(ablations)):
        states = ablations.states[rows]
        sums = _add_products(pre_activations.index_select(0, states), weights, features, rows)  # [n, width]
        sums[:, : len(undecided)].relu_()  # no ReLU on the sums over linear units
        parts.append(functional.linear(sums, read).sub_(clean_q.index_select(0, states)))
    return torch.cat(parts)  # [R, A]


def _widened(matrix: Tensor, width: int) -> Tensor:
    return functional.pad(matrix, (0, width - matrix.shape[1]))


def sorted_units(
    weights: dict[int, Tensor], pre_activations: Tensor, ablations: Ablations, features: Changes
) -> tuple[Tensor, Tensor]:
    """Find the linear hidden units, as a mask [U], and the undecided ones, as indices [B].

    For all S states and their ablations, linear units stay above 0, and units of neither kind stay below 0.
    `weights[x]` [units, U] are the weights of the changed features in column x. `pre_activations` [S, U] are those of
    the clean states.
    """
    states, units = pre_activations.shape
    counts = torch.tensor(ablations.starts, device=pre_activations.device).diff()
    blocks = torch.arange(len(counts), device=counts.device) // COLUMNS_PER_BOUND
    groups = blocks.repeat_interleave(counts) * states + ablations.states  # [R], index of the (block, state) pair
    largest = pre_activations.new_zeros(len(features.columns), (int(blocks[-1]) + 1) * states)  # [X, groups]
    for norms, column in zip(largest, features.columns.values(), strict=True):
        own = torch.linalg.vector_norm(column.changes, dim=1)
        norms.scatter_reduce_(0, groups[column.ablations], own, "amax")
    weight_norms = torch.stack([torch.linalg.vector_norm(weight, dim=0) for weight in weights.values()])  # [X, U]
    bounds = (largest.T @ weight_norms).view(-1, states, units).amax(0) * SLACK  # [S, U]
    linear = (pre_activations > bounds).all(0)
    silent = (pre_activations < -bounds).all(0)
    return linear, (~(linear | silent)).nonzero(as_tuple=True)[0]


def _add_products(sums: Tensor, weights: dict[int, Tensor], features: Changes, rows: slice) -> Tensor:
    """Add the changes of the features times `weights` to `sums` [n, U], in place, for the n ablations `rows`."""
    for x, column in features.columns.items():
        first, last = max(rows.start, column.ablations.start), min(rows.stop, column.ablations.stop)
        if first < last:
            changes = column.changes[first - column.ablations.start : last - column.ablations.start]
            sums[first - rows.start : last - rows.start].addmm_(changes, weights[x])
    return sums


def _slices(length: int) -> list[slice]:
    starts = range(0, length, ABLATIONS_AT_A_TIME)
    return [slice(start, min(start + ABLATIONS_AT_A_TIME, length)) for start in starts]
