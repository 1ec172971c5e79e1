"""Interval bounds against points in the ball, closed forms, a second implementation, and what float32 computes."""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import summed_networks as nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from summed_networks import SPECS, points_of_the_ball, random_network, random_states
from torch import nn
from torch.func import functional_call

from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork, unit_states
from nrmap.robustness.bounds import (
    BoundedNetwork,
    Box,
    Scaling,
    float32_error,
    margin_bounds,
    margins_of,
    output_differences,
    propagate,
    q_difference_bounds,
    state_box,
)
from nrmap.robustness.certify import IntervalCertifier
from nrmap.robustness.perturbations import other_action_margin


def random_case(spec: NetworkSpec, seed: int, scale: float = 1.0) -> tuple[QNetwork, torch.Tensor]:
    """A network and four states with many black and white pixels, where the ball is clipped, in float64."""
    network = random_network(spec, seed).double()
    for parameter in network.parameters():
        parameter.mul_(scale)
    return network, random_states(spec, seed, count=4).double()


def differences_at(network: QNetwork, points: torch.Tensor) -> torch.Tensor:
    """Q(s', a) − Q(s', b), [N, A, A]."""
    q_values = network(points)
    return q_values[:, :, None] - q_values[:, None, :]


@settings(max_examples=40)
@given(
    shape=st.sampled_from(SPECS), seed=st.integers(0, 10**6), scale=st.sampled_from([0.3, 1.0, 4.0]),
    attack_epsilon=st.sampled_from([1 / 255, 3 / 255, 0.1, 0.4, 1.0]),
)  # fmt: skip
def test_no_point_of_the_ball_exceeds_the_bounds(shape, seed, attack_epsilon, scale):
    network, states = random_case(shape, seed, scale)
    bounds = q_difference_bounds(network, states, attack_epsilon)
    slack = 1e-12 * (1 + bounds.abs())
    for points in points_of_the_ball(states, attack_epsilon, seed, count=40):
        assert (differences_at(network, points) <= bounds + slack).all()


@settings(max_examples=20)
@given(shape=st.sampled_from(SPECS), seed=st.integers(0, 10**6), attack_epsilon=st.floats(0, 1))
def test_the_boxes_equal_those_with_two_ends(shape, seed, attack_epsilon):
    network, states = random_case(shape, seed)
    layers = (*network.features, *network.advantage)
    box, ends = propagate(layers, state_box(states, attack_epsilon)), nets.two_ends(layers, states, attack_epsilon)
    torch.testing.assert_close((box.lower, box.upper), ends, rtol=1e-10, atol=1e-10)


@settings(max_examples=20)
@given(shape=st.sampled_from(SPECS), seed=st.integers(0, 10**6))
def test_without_a_radius_the_bounds_are_the_network(shape, seed):
    network, states = random_case(shape, seed)
    bounds = q_difference_bounds(network, states, 0.0)
    torch.testing.assert_close(bounds, differences_at(network, states), rtol=1e-10, atol=1e-10)
    actions = torch.arange(len(states)) % shape.actions
    expected = other_action_margin(network(states), actions)
    torch.testing.assert_close(margin_bounds(network, states, actions, 0.0), expected)


def test_a_layer_without_an_interval_rule_is_refused():
    for layer in (nn.Tanh(), *(nn.Conv2d(2, 2, 2, **{option: 2}) for option in ("padding", "dilation", "groups"))):
        with pytest.raises(TypeError, match="no interval rule for"):
            propagate([layer], Box(torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)))


@pytest.mark.parametrize("attack_epsilon", [0.0, 0.05])
def test_the_gradient_is_that_of_finite_differences(attack_epsilon):
    spec = NetworkSpec(1, 6, 6, 3, convs=(ConvSpec(2, 3, 2),), hidden=4)
    network, states = random_case(spec, seed=1)
    states, actions = states[:2], torch.tensor([0, 2])
    names = [name for name, _ in network.named_parameters() if not name.startswith("value")]

    class Margins(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self):
            return margin_bounds(self.network, states, actions, attack_epsilon)

    def margins(*weights):
        return functional_call(Margins(), {f"network.{name}": w for name, w in zip(names, weights, strict=True)}, ())

    weights = [network.get_parameter(name).clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(margins, weights)


def test_gradients_are_finite_where_weights_and_radii_are_zero():
    network, states = random_network(SPECS[0], seed=0).requires_grad_(True), random_states(SPECS[0], 0, count=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.flatten()[::2] = 0
        network.features[0].bias.fill_(-100.0)  # every ReLU is at rest
    margin_bounds(network, states, torch.tensor([0, 1, 2, 0]), 0.0).sum().backward()
    for name, parameter in network.named_parameters():
        if name.startswith("value"):
            assert parameter.grad is None, "the value stream does not count"
        else:
            assert torch.isfinite(parameter.grad).all()


def test_output_differences_are_exact_over_a_box():
    """Against the maximum over all 2^F corners of the box."""
    torch.manual_seed(0)
    last = nn.Linear(6, 3).double().requires_grad_(False)
    box = Box(torch.randn(2, 6, dtype=torch.float64), torch.rand(2, 6, dtype=torch.float64))
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6)  # [64, 6]
    outputs = last(box.centre[:, None] + signs * box.radius[:, None])  # [2, 64, 3]
    expected = (outputs[..., :, None] - outputs[..., None, :]).amax(dim=1)  # [2, 3, 3]
    torch.testing.assert_close(output_differences(last, box), expected)


# The bounds hold for float32 networks in any order of summation, in particular near ties.


def barely_certified(network: QNetwork, states: torch.Tensor, action: int, attack_epsilon: float) -> QNetwork:
    """The network with the smallest bias of `action` that certifies it in the given state."""
    chosen, changed = torch.tensor([action]), copy.deepcopy(network)
    bias = changed.advantage[2].bias

    def bound() -> float:
        return float(margins_of(IntervalCertifier(changed).difference_bounds(states, attack_epsilon), chosen))

    for _ in range(4):
        bias[action] += bound()
    step = torch.finfo(torch.float32).eps * (bias[action].abs() + 1e-3)
    while bound() >= 0:
        bias[action] += step
        step *= 2
    assert -1e-5 * (1 + bias[action].abs()) < bound() < 0
    assert IntervalCertifier(changed)(states, chosen, attack_epsilon).all()
    return changed


@settings(max_examples=16)
@given(
    spec=st.sampled_from(SPECS), seed=st.integers(0, 10**6), cancelling=st.sampled_from([0.0, 30.0, 1e4, 3e6]),
    attack_epsilon=st.sampled_from([0.0, 1e-6, 1 / 255, 0.05]),
)  # fmt: skip
def test_what_is_only_just_certified_is_greedy_however_float32_is_summed(spec, seed, attack_epsilon, cancelling):
    network, states = random_network(spec, seed, cancelling), random_states(spec, seed, count=1)
    action = seed % spec.actions
    certified = barely_certified(network, states, action, attack_epsilon)
    points = torch.cat([states, *points_of_the_ball(states, attack_epsilon, seed, count=16)])
    for evaluate_in_float32 in nets.ways_to_evaluate(certified):
        q_values = evaluate_in_float32(points)
        others = torch.cat([q_values[:, :action], q_values[:, action + 1 :]], dim=1)
        assert (q_values[:, action] > others.amax(dim=1)).all()


def test_rounding_alone_can_change_the_action_and_is_not_certified():
    """Exact arithmetic has a clear winner, float32 does not. How often depends on the machine's summation."""
    flips = 0
    for seed, cancelling in itertools.product(range(40), (1e6, 3e6)):  # at 1e7 all weights would round to the same
        network, states = random_network(SPECS[0], seed, cancelling), random_states(SPECS[0], seed, count=1)
        exact = copy.deepcopy(network).double()
        actions = exact(states.double()).argmax(dim=1)
        assert (margin_bounds(exact, states.double(), actions, 0.0) < 0).all()
        found = {int(evaluate_in_float32(states).argmax()) for evaluate_in_float32 in nets.ways_to_evaluate(network)}
        units = network.advantage[:2](network.features(states))
        found.add(int(nets.summed_in_turn(network.advantage[2], units).argmax()))
        if found != {int(actions)}:
            flips += 1
            assert not IntervalCertifier(network)(states, actions, 0.0).any()
    assert flips, "this network rounds too well to show anything"


@pytest.mark.parametrize(("value", "proven"), [(2.0**8, True), (2.0**26, False)])
def test_a_value_that_swallows_the_advantages_is_seen(value, proven):
    network, states = random_network(SPECS[0], seed=1), random_states(SPECS[0], seed=1, count=4)
    network.value[2].bias.fill_(value)
    nets.lead_of(network, 2, 1.0)
    actions = torch.full((4,), 2)
    assert (margin_bounds(copy.deepcopy(network).double(), states.double(), actions, 0.0) < -0.1).all()
    q_values = network(states)
    assert (q_values[:, 2] > q_values[:, :2].amax(dim=1)).all() == proven
    assert IntervalCertifier(network)(states, actions, 0.0).all() == proven
    assert IntervalCertifier(network)(states, actions, 0.0).any() == proven


@settings(max_examples=25)
@given(spec=st.sampled_from(SPECS), seed=st.integers(0, 10**6), cancelling=st.sampled_from([0.0, 1e4]))
def test_rounded_boxes_hold_what_float32_computes(spec, seed, cancelling):
    network, states = random_network(spec, seed, cancelling), random_states(spec, seed, count=5)
    exact = copy.deepcopy(network).double()
    ball = state_box(states.double(), 0.0)
    box = propagate((*exact.features, *exact.advantage), ball, rounded=True)
    plain = propagate((*exact.features, *exact.advantage), ball)
    assert (plain.radius < 1e-9 * (1 + cancelling)).all()
    for other in (network, *(nets.in_another_order(network, order) for order in range(3))):
        computed = other.advantage(other.features(states)).double()
        assert ((box.lower <= computed) & (computed <= box.upper)).all()
    # No wider than all layers' shares of all magnitudes: 2,000 units of roundoff at most here.
    for parameter in exact.parameters():
        parameter.abs_()
    sums = exact.advantage(exact.features(states.double()))
    assert (box.radius <= 2_000 * 2.0**-24 * sums).all()


@given(seed=st.integers(0, 10**6), terms=st.integers(1, 400))
def test_float32_sums_stay_within_the_error_whatever_their_order(seed, terms):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=terms) * 10.0 ** rng.integers(-3, 4, size=terms)).astype(np.float32)
    inputs, bias = rng.random(terms).astype(np.float32), np.float32(rng.normal())
    products = weights * inputs  # rounded to float32
    exact = math.fsum([*(float(w) * float(x) for w, x in zip(weights, inputs, strict=True)), float(bias)])
    allowed = float32_error(terms) * (math.fsum(abs(float(p)) for p in products) + abs(float(bias)))
    summands = np.append(products, bias)
    orders = np.arange(terms + 1), np.argsort(summands), np.argsort(-np.abs(summands)), rng.permutation(terms + 1)
    for order in orders:
        total = np.float32(0)
        for summand in summands[order]:
            total = np.float32(total + summand)
        assert abs(float(total) - exact) <= allowed


@given(terms=st.integers(1, 2**22))
def test_the_error_is_higham_s_and_seven_roundings_more(terms):
    lost = (terms + 1) * Fraction(1, 2**24)
    assert float32_error(terms) >= lost / (1 - lost) + Fraction(7, 2**24)


# Rounding errors as large as they can be. U is the unit roundoff.
U, TERMS = 2.0**-24, 400


def networks_with(layer: nn.Linear, *before: nn.Linear) -> Iterator[tuple[float, BoundedNetwork]]:
    """A network whose last layer is `layer`, and one where another layer multiplies its outputs by 2⁶⁰; the factors."""
    larger = nn.Linear(2, 2, bias=False)
    larger.weight.data = 2.0**60 * torch.eye(2)
    yield 1.0, BoundedNetwork(nn.Sequential(*before), nn.Sequential(layer))
    yield 2.0**60, BoundedNetwork(nn.Sequential(*before, layer, nn.ReLU()), nn.Sequential(larger))


@pytest.mark.parametrize("large", ["bias", "weight"])
def test_sums_that_always_round_to_the_same_side_stay_within_the_bounds(large):
    """1 + U(1 ± 2⁻¹⁰) + U(1 ± 2⁻¹⁰) + …: one sum grows by 2U each time, the other never."""
    layer, ones = nn.Linear(TERMS, 2).requires_grad_(False), torch.ones(1, TERMS)
    steps = U * torch.tensor([1 + 2**-10, 1 - 2**-10])
    layer.weight.copy_(steps[:, None]), layer.bias.copy_(steps)
    (layer.bias if large == "bias" else layer.weight[:, 0]).fill_(1.0)
    ((one, other),) = nets.summed_in_turn(layer, ones).double()
    assert one - other == 2 * TERMS * U
    for factor, network in networks_with(layer):
        assert IntervalCertifier(network).difference_bounds(ones, 0.0)[0, 0, 1] >= factor * (one - other)


def test_products_below_the_smallest_number_stay_within_the_bounds():
    """1.5 times the smallest float32 number rounds to 2 times it, or is flushed to 0."""
    first, layer = nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False)
    first.weight.data, layer.weight.data = torch.tensor([[2.0**-70]]), torch.tensor([[1.5 * 2.0**-79], [0.0]])
    for factor, network in networks_with(layer, first):
        bounds = IntervalCertifier(network).difference_bounds(torch.ones(1, 1), 0.0)
        assert bounds[0, 0, 1] >= factor * 2 * 2.0**-149
        assert bounds[0, 1, 0] >= 0


def test_both_roundings_of_v_plus_a_less_the_mean_stay_within_the_bounds():
    """V + A = 1 + U ± 2⁻⁴⁰ rounds to 1 + 2U or to 1, and with U more, a tie, to 1 + 4U or to 1."""
    network, states = random_network(replace(SPECS[0], actions=4), seed=0), random_states(SPECS[0], seed=0, count=1)
    for parameter in network.parameters():
        parameter.zero_()
    network.value[2].bias.fill_(1.0)
    network.advantage[2].bias.copy_(torch.tensor([U + 2**-40, U - 2**-40, -3 * U, -3 * U]))
    ((one, other, _, _),) = network(states).double()
    assert one - other == 4 * U
    assert IntervalCertifier(network).difference_bounds(states, 0.0)[0, 0, 1] >= one - other


def test_a_scaled_box_holds_the_inputs_of_an_agent():
    levels = torch.arange(256, dtype=torch.uint8)[:, None]
    box = propagate([Scaling(255 * 0.3)], state_box(unit_states(levels).double(), 0.0), rounded=True)
    assert ((box.lower <= levels.float() * 0.3) & (levels.float() * 0.3 <= box.upper)).all()


def test_a_black_pixel_may_be_off_by_a_rounding_of_a_white_one():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0], [0.0]])
    for factor, network in networks_with(layer):
        assert IntervalCertifier(network).difference_bounds(torch.zeros(1, 1), 0.0)[0, 0, 1] >= factor * U
