"""Bounds of a Q-network's outputs over a box of states, by interval arithmetic.

A box is propagated layer by layer (interval bound propagation, Gowal et al. 2018) as a centre c and a radius r ≥ 0: an
affine layer maps it to W c + b and |W| r, a ReLU is applied to both ends. The image of every point of the input box
lies in the output box. All steps have gradients, so the bounds can be used in training.

Float32 outputs can lie slightly outside such a box. `rounded` boxes are widened by the largest
float32 error of each layer. The bound for a sum of n products and a bias holds for every order of
summation (Higham 2002, section 3.1):
|fl(W x + b) − (W x + b)| ≤ γ (|W| |x| + |b|), γ = (n + 1) u / (1 − (n + 1) u), u = 2⁻²⁴.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nrmap.policies.agent import Agent
from nrmap.policies.network import QNetwork, acts_as_its_type
from nrmap.policies.policy import Policy
from nrmap.robustness.perturbations import ends
from nrmap.support.errors import NrmapError, check

FLOAT32_UNIT_ROUNDOFF = 2.0**-24
# A product that underflows has an error below 2⁻¹²⁶, flushed to zero or not; a layer has fewer than 2²⁶ products.
FLOAT32_UNDERFLOW = 2.0**-100


@dataclass(frozen=True)
class Box:
    """The points x with |x − centre| ≤ radius in every coordinate; one box for each of N states."""

    centre: Tensor  # [N, …]
    radius: Tensor  # [N, …], at least 0

    @property
    def lower(self) -> Tensor:
        """The smallest x, [N, …]."""
        return self.centre - self.radius

    @property
    def upper(self) -> Tensor:
        """The largest x, [N, …]."""
        return self.centre + self.radius

    @property
    def magnitude(self) -> Tensor:
        """The largest |x|, [N, …]."""
        return self.centre.abs() + self.radius


def box_between(lower: Tensor, upper: Tensor) -> Box:
    """The box from `lower` to `upper`, both [N, …]."""
    centre = torch.lerp(lower, upper, 0.5)
    return Box(centre, upper - centre)


def state_box(states: Tensor, attack_epsilon: float | Tensor) -> Box:
    """Return D(s) of eq. 7, the ℓ∞ ball of radius ε clipped to [0, 1], for `states`, float [N, C, H, W] in [0, 1]."""
    return box_between(*ends(states, attack_epsilon))


class Scaling(nn.Module):
    """Scales states in [0, 1] to the input range of a network, [0, `factor`]."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, states: Tensor) -> Tensor:
        """Return `states` [N, C, H, W] times the factor."""
        return states * self.factor


class BoundedNetwork(nn.Module):
    """A network whose layers `propagate` can bound: features, then an advantage and perhaps a value head."""

    def __init__(self, features: nn.Sequential, advantage: nn.Sequential, value: nn.Sequential | None = None) -> None:
        super().__init__()
        self.features, self.advantage, self.value = features, advantage, value


def bounded_network(agent: Agent) -> BoundedNetwork:
    """Wrap the network of `agent` so that it takes states in [0, 1]; the layers are shared, not copied.

    Raises NrmapError for `input_scale=None`. Raises NrmapError unless the agent's function is a QNetwork without atoms,
    or a Sequential, nested or not, that ends in a Linear layer and is made of Conv2d without padding, groups or
    dilation, Linear, ReLU, Flatten, Identity and Dropout. Subclasses of these, and layers with hooks or methods of
    their own, are refused too, because they may act differently.
    """
    function, scale = agent.function, agent.input_scale
    if scale is None:
        raise NrmapError("input_scale=None hands the function uint8 states: bounds need a network of float states")
    for name, layer in agent.named_modules():
        fits = type(layer) in _KINDS.get(name, _LAYERS) and acts_as_its_type(layer)
        fits = fits and (not isinstance(layer, nn.Conv2d) or _is_plain(layer))
        check(fits, f"no bounds for the {type(layer).__name__} at {name!r}: expected {_EXPECTED}")
    scaling = [] if 255 * scale == 1 else [Scaling(255 * scale)]
    if isinstance(function, QNetwork):
        check(function.is_as_specified, "no bounds for a QNetwork whose layers were changed")
        check(function.spec.atoms is None, "no bounds for a categorical head (C51): softmax has no interval rule here")
        return BoundedNetwork(nn.Sequential(*scaling, *function.features), function.advantage, function.value)
    if not isinstance(function, nn.Sequential):
        raise NrmapError(f"no bounds for a {type(function).__name__}: expected a QNetwork or a torch.nn.Sequential")
    layers = list(_flattened(function))
    check(bool(layers) and isinstance(layers[-1], nn.Linear), "no bounds for a network that does not end in Linear")
    return BoundedNetwork(nn.Sequential(*scaling, *layers[:-1]), nn.Sequential(layers[-1]))


_KINDS = {"": (Agent, Policy), "function": (QNetwork, nn.Sequential)}  # by name in the agent
_LAYERS = (nn.Sequential, nn.Conv2d, nn.Linear, nn.ReLU, nn.Flatten, nn.Identity, nn.Dropout)
_EXPECTED = (
    "Conv2d without padding, groups or dilation, Linear, ReLU, Flatten, Identity or Dropout, in a Sequential; "
    "no subclass, no hook (as of pruning and weight_norm), no method of its own"
)


def _flattened(layers: nn.Sequential) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            yield from _flattened(layer)
        elif not isinstance(layer, nn.Identity | nn.Dropout):  # dropout is off in an agent
            yield layer


def propagate(layers: Iterable[nn.Module], box: Box, *, rounded: bool = False) -> Box:
    """Return a box that contains all outputs of `layers` for inputs in `box`.

    With `rounded` the result also contains every output computed in float32 from float32 inputs and weights, in any
    order of summation; pass float64 boxes and layers then. See `float32_error`. Raises TypeError for layers other than
    Scaling, Linear, ReLU, Flatten and Conv2d without padding, groups or dilation.
    """
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            box = box_between(functional.relu(box.lower), functional.relu(box.upper))
        elif isinstance(layer, Scaling):
            box = _scaled(layer, box, rounded)
        elif isinstance(layer, nn.Flatten):
            box = Box(layer(box.centre), layer(box.radius))
        elif isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and _is_plain(layer)):
            box = _affine(layer, box, rounded)
        else:
            raise TypeError(f"no interval rule for {layer}")
    return box


def _is_plain(layer: nn.Conv2d) -> bool:
    return layer.padding in ((0, 0), "valid") and layer.dilation == (1, 1) and layer.groups == 1


def _affine(layer: nn.Conv2d | nn.Linear, box: Box, rounded: bool) -> Box:
    weight, bias = layer.weight, layer.bias
    radius, widening = box.radius, None
    if rounded:
        error = float32_error(weight[0].numel())
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        radius, widening = radius + error * box.magnitude, error * bias.abs() + FLOAT32_UNDERFLOW
    if isinstance(layer, nn.Linear):
        return Box(functional.linear(box.centre, weight, bias), functional.linear(radius, weight.abs(), widening))
    return Box(
        functional.conv2d(box.centre, weight, bias, stride=layer.stride),
        functional.conv2d(radius, weight.abs(), widening, stride=layer.stride),
    )


def _scaled(layer: Scaling, box: Box, rounded: bool) -> Box:
    # At most eight roundings: of 1/255, of the factor and of the products with them.
    radius = layer.factor * box.radius
    if rounded:
        radius = radius + 8 * FLOAT32_UNIT_ROUNDOFF * layer.factor * box.magnitude + FLOAT32_UNDERFLOW
    return Box(layer.factor * box.centre, radius)


def float32_error(terms: int) -> float:
    """Return an upper limit of the float32 error of W x + b relative to |W| |x| + |b|, for rows of n = `terms` weights.

    The limit is γ = (n + 8) u / (1 − (n + 8) u) with u = 2⁻²⁴. Higham's bound has n + 1; the 7 more cover the rounding
    of the float64 box itself.
    """
    lost = (terms + 8) * FLOAT32_UNIT_ROUNDOFF
    return lost / (1 - lost)


def split_head(head: nn.Sequential) -> tuple[list[nn.Module], nn.Linear]:
    """Split `head` into the layers before the last one, and the last one, which is linear."""
    *layers, last = head
    assert isinstance(last, nn.Linear), "a head ends in a linear layer"
    return layers, last


def output_differences(last: nn.Linear, hidden: Box) -> Tensor:
    """Return upper bounds [N, A, A] of y_a − y_b, indexed (n, a, b), for y = `last`(x) and x in `hidden` [N, F].

    The rows of the layer's weight are subtracted first, which gives the exact maximum over the box. The upper bound of
    y_a minus the lower bound of y_b could be larger.
    """
    rows = last.weight[:, None] - last.weight  # [A, A, F]
    offsets = 0.0 if last.bias is None else last.bias[:, None] - last.bias  # [A, A]
    return (
        torch.einsum("abf,nf->nab", rows, hidden.centre)
        + torch.einsum("abf,nf->nab", rows.abs(), hidden.radius)
        + offsets
    )


def q_difference_bounds(network: QNetwork | BoundedNetwork, states: Tensor, attack_epsilon: float | Tensor) -> Tensor:
    """Return upper bounds [N, A, A], indexed (n, a, b), of Q(s', a) − Q(s', b) in the ball of radius `attack_epsilon`.

    The ball is `state_box`. `states` are float [N, C, H, W] in [0, 1]; `network` has no atoms. V(s') and the mean
    advantage cancel, so only the advantage stream of a dueling network matters. The bounds hold in exact arithmetic;
    for float32 see `nrmap.robustness.certify`. They are 0 for a = b.
    """
    layers, last = split_head(network.advantage)
    hidden = propagate((*network.features, *layers), state_box(states, attack_epsilon))  # [N, F]
    return output_differences(last, hidden)


def margins_of(differences: Tensor, actions: Tensor) -> Tensor:
    """Return max_{a≠a*} of `differences` [N, A, A] at (n, a, a*) for each state, [N]: bounds of the margin of eq. 7.

    `actions` are a* [N]. A is at least 2.
    """
    chosen = actions[:, None, None].expand(-1, differences.shape[1], 1)  # [N, A, 1]
    against = differences.gather(2, chosen).squeeze(2)  # [N, A]
    return against.scatter(1, actions[:, None], -torch.inf).amax(dim=1)


def margin_bounds(network: QNetwork, states: Tensor, actions: Tensor, attack_epsilon: float | Tensor) -> Tensor:
    """Return upper bounds [N] of max_{s'∈D(s)} max_{a≠a*} Q(s', a) − Q(s', a*), the inner maximum of eq. 7.

    `states` s are float [N, C, H, W] in [0, 1], `actions` a* [N], D(s) as in `state_box`. For ε = 0 it is the margin
    at s.
    """
    return margins_of(q_difference_bounds(network, states, attack_epsilon), actions)
