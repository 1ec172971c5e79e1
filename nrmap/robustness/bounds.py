"""Bounds on what a Q-network can answer anywhere in a box of states, by interval arithmetic.

A box goes through the network layer by layer (interval bound propagation, Gowal et al. 2018),
kept as a centre c and a radius r ≥ 0: an affine layer turns it into W c + b and |W| r, a ReLU
moves its two ends. Every point of the box then lies in the last box. All of it has gradients,
so it can be trained on.

What float32 makes of the same layers lies a little outside such a box. `rounded` boxes are
wider by what any float32 evaluation of the layers can be off, for the standard bound of a sum
of n products and a bias holds for every order of summation (Higham 2002, section 3.1):
|fl(W x + b) − (W x + b)| ≤ γ (|W| |x| + |b|), γ = (n + 1) u / (1 − (n + 1) u), u = 2⁻²⁴.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrmap.policies.network import QNetwork

FLOAT32_UNIT_ROUNDOFF = 2.0**-24
# Products that underflow are off by less than 2⁻¹²⁶ each, flushed to zero or not, and no layer has 2²⁶ of them.
FLOAT32_UNDERFLOW = 2.0**-100


@dataclass(frozen=True)
class Box:
    """The points x with |x − centre| ≤ radius, one box for each of N states."""

    centre: Tensor  # [N, …]
    radius: Tensor  # [N, …], at least 0

    @property
    def lower(self) -> Tensor:
        """The smallest point, [N, …]."""
        return self.centre - self.radius

    @property
    def upper(self) -> Tensor:
        """The largest point, [N, …]."""
        return self.centre + self.radius

    @property
    def magnitude(self) -> Tensor:
        """The largest |x|, [N, …]."""
        return self.centre.abs() + self.radius


def box_between(lower: Tensor, upper: Tensor) -> Box:
    """The box with the given ends, both [N, …]."""
    centre = torch.lerp(lower, upper, 0.5)
    return Box(centre, upper - centre)


def state_box(states: Tensor, attack_epsilon: float) -> Box:
    """D(s) of eq. 7 for each of `states`, float [N, C, H, W] in [0, 1]: the ℓ∞ ball of radius ε, and [0, 1]."""
    return box_between((states - attack_epsilon).clamp(min=0), (states + attack_epsilon).clamp(max=1))


def propagate(layers: Iterable[nn.Module], box: Box, *, rounded: bool = False) -> Box:
    """A box that holds every output of `layers` for inputs in `box`.

    With `rounded` it holds every output in float32 too, for float32 inputs and weights, whatever
    the order of summation; box and layers should then be float64. See `float32_error`. Raises
    TypeError for a layer other than Linear, ReLU, Flatten and Conv2d without padding, groups or dilation.
    """
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            box = box_between(functional.relu(box.lower), functional.relu(box.upper))
        elif isinstance(layer, nn.Flatten):
            box = Box(layer(box.centre), layer(box.radius))
        elif isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and _is_plain(layer)):
            box = _affine(layer, box, rounded)
        else:
            raise TypeError(f"no interval rule for {layer}")
    return box


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.padding == (0, 0) and layer.dilation == (1, 1) and layer.groups == 1


def _affine(layer: nn.Conv2d | nn.Linear, box: Box, rounded: bool) -> Box:
    weight, bias = layer.weight, layer.bias
    radius, widening = box.radius, None
    if rounded:
        assert bias is not None
        error = float32_error(weight[0].numel())
        radius, widening = radius + error * box.magnitude, error * bias.abs() + FLOAT32_UNDERFLOW
    if isinstance(layer, nn.Linear):
        return Box(functional.linear(box.centre, weight, bias), functional.linear(radius, weight.abs(), widening))
    return Box(
        functional.conv2d(box.centre, weight, bias, stride=layer.stride),
        functional.conv2d(radius, weight.abs(), widening, stride=layer.stride),
    )


def float32_error(terms: int) -> float:
    """The share of |W| |x| + |b| by which float32 can miss W x + b with rows of `terms` weights, and a little more.

    That is γ with 7u more: far more than float64, with a unit roundoff of 2⁻⁵³, loses on a box
    on its way through a layer and a ReLU, so the widening covers its own arithmetic as well.
    """
    lost = (terms + 8) * FLOAT32_UNIT_ROUNDOFF
    return lost / (1 - lost)


def split_head(head: nn.Sequential) -> tuple[list[nn.Module], nn.Linear]:
    """The layers of a head before its last, and its last, which is linear."""
    *layers, last = head
    assert isinstance(last, nn.Linear), "a head ends in a linear layer"
    return layers, last


def output_differences(last: nn.Linear, hidden: Box) -> Tensor:
    """Upper bounds of y_a − y_b for the outputs y = `last`(x), x in `hidden` [N, F]; [N, A, A], indexed (n, a, b).

    The rows of the layer are subtracted before the box goes through, which is exact over the
    box, where subtracting the bounds of y_a and y_b would be 2 |W| r apart in the worst case.
    """
    rows = last.weight[:, None] - last.weight  # [A, A, F]
    offsets = last.bias[:, None] - last.bias  # [A, A]
    return (
        torch.einsum("abf,nf->nab", rows, hidden.centre)
        + torch.einsum("abf,nf->nab", rows.abs(), hidden.radius)
        + offsets
    )


def q_difference_bounds(network: QNetwork, states: Tensor, attack_epsilon: float) -> Tensor:
    """Upper bounds of Q(s', a) − Q(s', b) over D(s); [N, A, A], indexed (n, a, b), and 0 where a = b.

    `states` float [N, C, H, W] in [0, 1]. V(s') and the mean advantage are the same for every
    action, so of a dueling network only the advantage stream counts. The bounds are those of
    real numbers; for what float32 computes see `nrmap.robustness.certify`.
    """
    layers, last = split_head(network.advantage)
    hidden = propagate((*network.features, *layers), state_box(states, attack_epsilon))  # [N, F]
    return output_differences(last, hidden)


def margins_of(differences: Tensor, actions: Tensor) -> Tensor:
    """max_{a≠a*} of `differences` [N, A, A] at (n, a, a*), for `actions` a* [N]; [N]. A ≥ 2."""
    chosen = actions[:, None, None].expand(-1, differences.shape[1], 1)  # [N, A, 1]
    against = differences.gather(2, chosen).squeeze(2)  # [N, A]
    is_chosen = functional.one_hot(actions, differences.shape[1]).bool()  # [N, A]
    return against.masked_fill(is_chosen, -torch.inf).amax(dim=1)


def margin_bounds(network: QNetwork, states: Tensor, actions: Tensor, attack_epsilon: float) -> Tensor:
    """Upper bounds of max_{s'∈D(s)} max_{a≠a*} Q(s', a) − Q(s', a*), the inner maximum of eq. 7; [N].

    `states` float [N, C, H, W] in [0, 1], `actions` a* [N]. At ε = 0 it is the margin itself.
    """
    return margins_of(q_difference_bounds(network, states, attack_epsilon), actions)
