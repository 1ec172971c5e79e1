"""From the changes of the features to those of the Q-values, without the hidden units that keep their side of zero.

A hidden unit's change is wᵀδ, and |wᵀδ| ≤ Σ_x ‖w_x‖·‖δ_x‖ over the columns x of the feature map
(Cauchy and Schwarz). One such bound for a state and a few neighbouring pixel columns costs next
to nothing and sorts the units. Where the clean pre-activation is further from 0 than the bound,
no ablation carries it to the other side of its ReLU: below 0 the unit stays silent, above 0 it
stays linear, and all linear units together act on the Q-values as one matrix with A columns. If
this holds in every state of the batch, the unit needs no matrix product of its own.

The others are computed as relu(h + wᵀδ), and the clean readout is taken off at the end: unlike in
the layers before, no later step needs the units' differences.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional

from nrmap.ablation.carry import Ablations, Changes
from nrmap.ablation.parts import NetworkParts, Readout

# So many neighbouring pixel columns share a bound; fewer are tighter and cost more.
COLUMNS_PER_BOUND = 4
# So many ablations go through the hidden layer at a time: few enough for a processor's cache.
ABLATIONS_AT_A_TIME = 2048
# Rows of results that begin on a cache line: without it products of this size take up to half as long again.
ALIGNMENT = 16
# The bounds are computed in float32.
SLACK = 1.001


@dataclass(frozen=True, eq=False)
class CleanHidden:
    """The hidden layer of S states: its pre-activations h [S, U], and the Q-values [S, A] that follow from them."""

    pre_activations: Tensor
    q_values: Tensor


class HiddenLayer:
    """The hidden layer and what follows it, for feature maps of one size."""

    def __init__(self, parts: NetworkParts, height: int, width: int) -> None:
        """`height` and `width` are those of the feature map."""
        weight = parts.hidden_weight.unflatten(1, (-1, height, width))  # [U, C, H, W]
        self.weight = weight.permute(3, 2, 1, 0).contiguous()  # [W, H, C, U]
        self.tail = parts.tail

    def q_changes(self, clean: CleanHidden, ablations: Ablations, features: Changes) -> Tensor:
        """By how much each ablation changes the Q-values, [R, A]."""
        window = features.window
        weights = {
            x: self.weight[x, window.start : window.stop].flatten(0, 1).index_select(0, column.units)  # [units, U]
            for x, column in features.columns.items()
        }
        if isinstance(self.tail, Readout):
            return _by_readout(self.tail, weights, clean, ablations, features)
        return _by_tail(self.tail, weights, clean, ablations, features)


def _by_tail(
    tail: fx.GraphModule, weights: dict[int, Tensor], clean: CleanHidden, ablations: Ablations, features: Changes
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
    # The undecided units, the sum of all linear ones for each action, and zeros up to a whole cache line.
    actions = len(readout.bias)
    width = -(-(len(undecided) + actions) // ALIGNMENT) * ALIGNMENT
    through = (readout.weight * linear).T  # [U, A]
    weights = {
        x: _widened(torch.cat([weight[:, undecided], weight @ through], dim=1), width) for x, weight in weights.items()
    }
    pre_activations = _widened(clean.pre_activations[:, undecided], width)  # [S, width]
    read = torch.cat([readout.weight[:, undecided], torch.eye(actions).to(through)], dim=1)  # [A, B + A]
    read = _widened(read, width)
    clean_q = functional.linear(pre_activations.relu(), read)  # [S, A], what the units in doubt add to the Q-values
    parts = []
    for rows in _slices(len(ablations)):
        states = ablations.states[rows]
        sums = _add_products(pre_activations.index_select(0, states), weights, features, rows)  # [n, width]
        sums[:, : len(undecided)].relu_()  # the sums over linear units stay as they are
        parts.append(functional.linear(sums, read).sub_(clean_q.index_select(0, states)))
    return torch.cat(parts)  # [R, A]


def _widened(matrix: Tensor, width: int) -> Tensor:
    return functional.pad(matrix, (0, width - matrix.shape[1]))


def sorted_units(
    weights: dict[int, Tensor], pre_activations: Tensor, ablations: Ablations, features: Changes
) -> tuple[Tensor, Tensor]:
    """Which hidden units are linear in every state under every ablation, [U], and the indices of those in doubt, [B].

    The others are silent.
    """
    states, units = pre_activations.shape
    counts = torch.tensor(ablations.starts, device=pre_activations.device).diff()
    blocks = torch.arange(len(counts), device=counts.device) // COLUMNS_PER_BOUND
    groups = blocks.repeat_interleave(counts) * states + ablations.states  # [R], a (block, state) pair each
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
    """`sums` [n, U], of the ablations `rows`, plus the features' changes times `weights`; in place."""
    for x, column in features.columns.items():
        first, last = max(rows.start, column.ablations.start), min(rows.stop, column.ablations.stop)
        if first < last:
            changes = column.changes[first - column.ablations.start : last - column.ablations.start]
            sums[first - rows.start : last - rows.start].addmm_(changes, weights[x])
    return sums


def _slices(length: int) -> list[slice]:
    starts = range(0, length, ABLATIONS_AT_A_TIME)
    return [slice(start, min(start + ABLATIONS_AT_A_TIME, length)) for start in starts]
