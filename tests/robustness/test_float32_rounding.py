"""The bounds hold for float32 networks in any order of summation, in particular near ties."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from ball_points import points_of_the_ball
from hypothesis import given, settings
from hypothesis import strategies as st
from summed_networks import SPECS, in_another_order, lead_of, random_network, random_states, ways_to_evaluate

from nrmap.policies.network import QNetwork
from nrmap.robustness.bounds import float32_error, margin_bounds, margins_of, propagate, state_box
from nrmap.robustness.certify import IntervalCertifier


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
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 10**6),
    attack_epsilon=st.sampled_from([0.0, 1e-6, 1 / 255, 0.05]),
    cancelling=st.sampled_from([0.0, 30.0, 1e4, 3e6]),
)
def test_what_is_only_just_certified_is_greedy_however_float32_is_summed(spec, seed, attack_epsilon, cancelling):
    network, states = random_network(spec, seed, cancelling), random_states(spec, seed, count=1)
    action = seed % spec.actions
    certified = barely_certified(network, states, action, attack_epsilon)
    points = torch.cat([states, *points_of_the_ball(states, attack_epsilon, seed, count=16)])
    for evaluate_in_float32 in ways_to_evaluate(certified):
        q_values = evaluate_in_float32(points)
        others = torch.cat([q_values[:, :action], q_values[:, action + 1 :]], dim=1)
        assert (q_values[:, action] > others.amax(dim=1)).all()


def test_rounding_alone_can_change_the_action_and_is_not_certified():
    """Exact arithmetic has a clear winner, float32 does not. The flips depend on the machine's summation."""
    flips = 0
    for seed, cancelling in itertools.product(range(40), (1e6, 3e6)):  # at 1e7 all weights would round to the same
        network, states = random_network(SPECS[0], seed, cancelling), random_states(SPECS[0], seed, count=1)
        exact = copy.deepcopy(network).double()
        actions = exact(states.double()).argmax(dim=1)
        assert (margin_bounds(exact, states.double(), actions, 0.0) < 0).all()
        found = {int(evaluate_in_float32(states).argmax()) for evaluate_in_float32 in ways_to_evaluate(network)}
        if found != {int(actions)}:
            flips += 1
            assert not IntervalCertifier(network)(states, actions, 0.0).any()
    assert flips >= 5, "this network rounds too well to show anything"


@pytest.mark.parametrize(("value", "proven"), [(2.0**8, True), (2.0**26, False)])
def test_a_value_that_swallows_the_advantages_is_seen(value, proven):
    network, states = random_network(SPECS[0], seed=1), random_states(SPECS[0], seed=1, count=4)
    network.value[2].bias.fill_(value)
    lead_of(network, 2, 1.0)
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
    for other in (network, *(in_another_order(network, order) for order in range(3))):
        computed = other.advantage(other.features(states)).double()
        assert (computed >= box.lower).all()
        assert (computed <= box.upper).all()
    # No wider than all layers' shares of all magnitudes: 2,000 units of roundoff at most here.
    sums = plain_sums(exact, states.double())
    assert (box.radius <= 2_000 * 2.0**-24 * sums).all()


def plain_sums(network: QNetwork, states: torch.Tensor) -> torch.Tensor:
    """The outputs of the network with every weight and bias replaced by its magnitude, [N, A]."""
    positive = copy.deepcopy(network)
    for parameter in positive.parameters():
        parameter.abs_()
    return positive.advantage(positive.features(states))


@given(seed=st.integers(0, 10**6), terms=st.integers(1, 400))
def test_float32_sums_stay_within_the_error_whatever_their_order(seed, terms):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=terms) * 10.0 ** rng.integers(-3, 4, size=terms)).astype(np.float32)
    inputs, bias = rng.random(terms).astype(np.float32), np.float32(rng.normal())
    products = weights * inputs  # rounded to float32
    exact = math.fsum([*(float(w) * float(x) for w, x in zip(weights, inputs, strict=True)), float(bias)])
    allowed = float32_error(terms) * (math.fsum(abs(float(p)) for p in products) + abs(float(bias)))
    summands = np.append(products, bias)
    for order in (
        np.arange(terms + 1),
        np.argsort(summands),
        np.argsort(-np.abs(summands)),
        rng.permutation(terms + 1),
    ):
        total = np.float32(0)
        for summand in summands[order]:
            total = np.float32(total + summand)
        assert abs(float(total) - exact) <= allowed
