"""Certificates: rigorous, monotonic, and not weakened by the quick check or the cache."""

import copy
import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from summed_networks import lead_of, points_of_the_ball, random_case

from nrmap.policies.network import frozen
from nrmap.robustness.bounds import margins_of, q_difference_bounds
from nrmap.robustness.certify import IntervalCertifier
from nrmap.robustness.perturbations import other_action_margin, projected_gradient_ascent


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), attack_epsilon=st.sampled_from([1e-4, 1e-3, 1 / 255, 0.02]))
def test_the_quick_look_takes_nothing_away(seed, attack_epsilon):
    network, states, actions = random_case(seed)
    certifier = IntervalCertifier(network)
    bounds = certifier.difference_bounds(states, attack_epsilon)
    assert bounds.dtype == torch.float64
    assert (bounds > q_difference_bounds(copy.deepcopy(network).double(), states.double(), attack_epsilon)).all()
    certified = certifier(states, actions, attack_epsilon)
    assert torch.equal(certified, margins_of(bounds, actions) < 0)
    possible = certifier.possible_actions(states, attack_epsilon)
    for n, a in itertools.product(range(len(states)), range(network.spec.actions)):
        beaten = any(bounds[n, a, b] < 0 for b in range(network.spec.actions) if b != a)
        assert possible[n, a] == (not beaten)
    assert torch.equal(certified, possible.sum(dim=1) == 1)
    assert possible.gather(1, actions[:, None]).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), attack_epsilon=st.sampled_from([1e-3, 1 / 255, 0.02]))
def test_every_action_that_an_attack_reaches_was_possible(seed, attack_epsilon):
    network, states, actions = random_case(seed)
    possible = IntervalCertifier(network).possible_actions(states, attack_epsilon)
    for start in points_of_the_ball(states, attack_epsilon, seed, count=8):
        path, _, _ = projected_gradient_ascent(
            lambda points: other_action_margin(frozen(network)(points), actions), states,
            attack_epsilon=attack_epsilon, steps=10, step_size=attack_epsilon / 3, start=start,
        )  # fmt: skip
        for points in (start, path[-1]):
            assert possible.gather(1, network(points).argmax(dim=1, keepdim=True)).all()


def test_the_certifier_keeps_the_network_it_was_given():
    network, states, _ = random_case(0)
    certifier = IntervalCertifier(network)
    before = certifier.difference_bounds(states, 1e-3)
    lead_of(network, 0, 100.0)
    assert torch.equal(certifier.difference_bounds(states, 1e-3), before)
    assert not torch.equal(IntervalCertifier(network).difference_bounds(states, 1e-3), before)


def test_nothing_is_proven_of_states_that_are_no_numbers():
    network, states, actions = random_case(0)
    certifier = IntervalCertifier(network)
    assert not certifier(states * torch.nan, actions, 1e-3).any()
    assert certifier.possible_actions(states * torch.nan, 1e-3).all()


def test_a_proof_is_made_once(monkeypatch):
    asked = []

    def proven(states, actions, attack_epsilon):
        asked.append((states[:, 0, 0, 0].tolist(), actions.tolist(), attack_epsilon))
        return (states[:, 0, 0, 0] > 0.5) & (actions == 1) & (attack_epsilon < 0.1)

    remembering = IntervalCertifier(random_case(0)[0])
    monkeypatch.setattr(remembering, "_proven", proven)
    states = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(4, 1, 1, 1).expand(4, 2, 3, 3)
    ones = torch.ones(4, dtype=torch.int64)
    assert remembering(states[:3], ones[:3], 0.01).tolist() == [False, False, True]
    assert remembering(states, ones, 0.01).tolist() == [False, False, True, True]
    assert remembering(states.flip(0), ones, 0.01).tolist() == [True, True, False, False]
    assert asked == [([0.0, 0.25, 0.75], [1, 1, 1], 0.01), ([1.0], [1], 0.01)]
    assert remembering(states, torch.zeros_like(ones), 0.01).tolist() == [False] * 4
    assert remembering(states, ones, 0.1).tolist() == [False] * 4
    assert len(asked) == 4
