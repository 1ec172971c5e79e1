"""Null networks: random weights of the right distribution, shuffled ones that keep every layer's values."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from toy_policies import FREEWAY, toy_policy

from nrmap.maps.null_networks import NULL_NETWORKS, null_networks, policy_fields
from nrmap.policies.network import QNetwork
from nrmap.policies.policy import Policy


@pytest.fixture(scope="module")
def policy() -> Policy:
    return toy_policy(FREEWAY, seed=3)


def same(one: Policy, two: Policy) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))


def test_shuffling_keeps_the_values_of_every_layer_and_moves_them(policy):
    before = {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}
    for network in null_networks(policy, "shuffled_weights", draws=3, seed=0):
        for name, weights in network.network.state_dict().items():
            assert weights.shape == before[name].shape
            assert torch.equal(weights.flatten().sort().values, before[name].flatten().sort().values)
            if weights.numel() > 8:
                assert (weights != before[name]).double().mean().item() > 0.7
    assert all(torch.equal(weights, before[name]) for name, weights in policy.network.state_dict().items())


def test_shuffled_places_are_uniform(policy):
    """A χ² test of the row of the second convolution's largest weight, with 7 degrees of freedom at 99.9%."""
    rows, draws = torch.zeros(8), 160
    for network in null_networks(policy, "shuffled_weights", draws=draws, seed=1):
        weights = network.network.get_parameter("features.2.weight")  # [8, 8, 4, 4]
        rows[weights.flatten(1).amax(dim=1).argmax()] += 1
    assert ((rows - draws / 8).square() / (draws / 8)).sum().item() < 24.3


def test_random_weights_are_those_of_an_untrained_network(policy):
    networks = null_networks(policy, "random_weights", draws=4, seed=0)
    for name in ("features.0.weight", "features.2.weight", "advantage.0.weight"):
        drawn = torch.stack([network.network.get_parameter(name) for network in networks])
        # PyTorch draws weights uniformly in ±1/√fan-in.
        limit = 1 / math.sqrt(drawn[0, 0].numel())
        assert drawn.abs().max() <= limit
        assert drawn.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)
    other = null_networks(toy_policy(FREEWAY, seed=9), "random_weights", draws=4, seed=0)
    assert all(same(one, two) for one, two in zip(networks, other, strict=True)), "they depend on the shape alone"


def test_a_draw_depends_on_kind_seed_and_number(policy):
    different = [policy]
    for kind in NULL_NETWORKS:
        torch.manual_seed(0)
        one = null_networks(policy, kind, draws=3, seed=5)
        torch.manual_seed(1)
        state = torch.get_rng_state()
        two = null_networks(policy, kind, draws=5, seed=5)
        assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
        assert all(same(a, b) and (a.sha256, a.card) == (b.sha256, b.card) for a, b in zip(one, two[:3], strict=True))
        different += [*two, *null_networks(policy, kind, draws=2, seed=6)]
    assert len({network.sha256 for network in different}) == len({network.card.identity for network in different}) == 15
    assert not any(same(a, b) for index, a in enumerate(different) for b in different[:index])


def test_identities_and_fields_name_the_shape_and_the_source(policy):
    wider = Policy(QNetwork(replace(policy.network.spec, hidden=33)), policy.env, policy.card)
    other = copy.deepcopy(policy)
    other.sha256 = "f" * 64

    (random, shuffled), of_other, of_wider = (
        [null_networks(source, kind, draws=1, seed=0)[0] for kind in NULL_NETWORKS] for source in (policy, other, wider)
    )
    assert of_other[0].card.identity == random.card.identity != of_wider[0].card.identity
    assert of_other[1].card.identity != shuffled.card.identity
    assert (random.card.parent_sha256, shuffled.card.parent_sha256) == (None, policy.sha256)
    for network, method, source in (
        (random, "random_weights", (None, None)),
        (shuffled, "shuffled_weights", ("toy", 3)),
    ):
        expected = {"game": "Freeway", "seed": None, "draw": 0, "method": method, "policy_sha256": network.sha256}
        expected |= {"source_method": source[0], "source_seed": source[1]}
        assert policy_fields(network) == expected
