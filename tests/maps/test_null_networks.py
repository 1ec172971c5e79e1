"""Controls: the same shapes and values without what was learned, the same again from the same seed."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from toy_policies import BREAKOUT, FREEWAY, toy_policy

from nrmap.maps.null_networks import CONTROL_KINDS, control_policies, policy_fields
from nrmap.policies.network import QNetwork
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.errors import NrmapError


@pytest.fixture(scope="module")
def policy() -> Policy:
    return toy_policy(FREEWAY, seed=3)


def weights_of(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}


def same(one: Policy, two: Policy) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))


def test_shuffling_keeps_the_values_of_every_layer_and_not_their_places(policy):
    before = weights_of(policy)
    for control in control_policies(policy, "shuffled_weights", draws=3, seed=0):
        for name, weights in control.network.state_dict().items():
            assert weights.shape == before[name].shape
            assert torch.equal(weights.flatten().sort().values, before[name].flatten().sort().values)
            if weights.numel() > 8:
                moved = (weights != before[name]).double().mean().item()
                assert moved > 0.7, f"most entries of {name} should have moved"
    assert all(torch.equal(weights, before[name]) for name, weights in policy.network.state_dict().items())


def test_every_place_is_as_likely_as_any_other(policy):
    """Where the largest weight of a layer lands, over many draws: a χ² test on the 8 rows of the second convolution."""
    rows = torch.zeros(8)
    draws = 160
    for control in control_policies(policy, "shuffled_weights", draws=draws, seed=1):
        weights = control.network.get_parameter("features.2.weight")  # [8, 8, 4, 4]
        rows[weights.flatten(1).amax(dim=1).argmax()] += 1
    statistic = ((rows - draws / 8).square() / (draws / 8)).sum().item()
    assert statistic < 24.3, f"χ² with 7 degrees of freedom, 99.9%: {rows.tolist()}"


def test_random_weights_are_those_of_an_untrained_network(policy):
    controls = control_policies(policy, "random_weights", draws=4, seed=0)
    for name in ("features.0.weight", "features.2.weight", "advantage.0.weight"):
        drawn = torch.stack([control.network.get_parameter(name) for control in controls])
        # PyTorch draws weights uniformly in ±1/√fan-in.
        limit = 1 / math.sqrt(drawn[0, 0].numel())
        assert drawn.abs().max() <= limit
        assert drawn.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)
    assert not any(same(control, policy) for control in controls)
    other = control_policies(toy_policy(FREEWAY, seed=9), "random_weights", draws=4, seed=0)
    assert all(same(one, two) for one, two in zip(controls, other, strict=True)), "they know nothing of the policy"


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_a_draw_follows_from_seed_kind_and_number(policy, kind):
    torch.manual_seed(0)
    one = control_policies(policy, kind, draws=3, seed=5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    two = control_policies(policy, kind, draws=5, seed=5)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers are used up"
    for a, b in zip(one, two[:3], strict=True):
        assert same(a, b)
        assert (a.sha256, a.card) == (b.sha256, b.card)
    others = [*two, *control_policies(policy, kind, draws=2, seed=6)]
    assert len({control.sha256 for control in others}) == len({control.card.identity for control in others}) == 7
    assert not any(same(others[i], others[j]) for i in range(7) for j in range(i))


def test_the_kinds_are_different_networks(policy):
    random, shuffled = (control_policies(policy, kind, draws=1, seed=0)[0] for kind in CONTROL_KINDS)
    assert not same(random, shuffled)
    assert random.card.identity != shuffled.card.identity


def test_cards_say_what_the_controls_are(policy):
    random = control_policies(policy, "random_weights", draws=2, seed=0)
    assert [control.label for control in random] == [f"Freeway/random_weights/seed{draw}" for draw in (0, 1)]
    assert {control.card.parent_sha256 for control in random} == {None}
    shuffled = control_policies(policy, "shuffled_weights", draws=2, seed=0)
    of_toy = {"game": "Freeway", "method": "shuffled_weights", "seed": None, "source_method": "toy", "source_seed": 3}
    assert [policy_fields(control) for control in shuffled] == [
        {**of_toy, "draw": draw, "policy_sha256": shuffled[draw].sha256} for draw in (0, 1)
    ]
    assert {control.card.parent_sha256 for control in shuffled} == {policy.sha256}
    assert all(control.env == policy.env and control.outputs == "q_values" for control in (*random, *shuffled))


def test_identities_follow_the_network_and_the_policy(policy):
    wider = Policy(QNetwork(replace(policy.network.spec, hidden=33)), policy.env, policy.card)
    other = copy.deepcopy(policy)
    other.sha256 = "f" * 64

    def identity(of: Policy, kind: str) -> str:
        return control_policies(of, kind, draws=1, seed=0)[0].card.identity

    assert identity(policy, "random_weights") == identity(other, "random_weights")
    assert identity(policy, "random_weights") != identity(wider, "random_weights")
    assert identity(policy, "random_weights") != identity(toy_policy(BREAKOUT), "random_weights")
    assert identity(policy, "shuffled_weights") != identity(other, "shuffled_weights")


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_a_control_is_a_policy_like_any_other(policy, kind, tmp_path):
    (control,) = control_policies(policy, kind, draws=1, seed=0)
    states = torch.randint(256, (4, *FREEWAY.state_shape), dtype=torch.uint8)
    q_values = control(states)
    assert q_values.shape == (4, policy.network.spec.actions)
    assert not q_values.requires_grad
    save_policy(tmp_path / "control.safetensors", control)
    loaded = load_policy(tmp_path / "control.safetensors")
    assert torch.equal(loaded(states), q_values)
    assert loaded.card == control.card


def test_mistakes_are_named(policy):
    with pytest.raises(NrmapError, match="unknown control 'shuffled': did you mean shuffled_weights"):
        control_policies(policy, "shuffled", draws=1, seed=0)
    with pytest.raises(NrmapError, match="draws=0: expected at least 1"):
        control_policies(policy, "random_weights", draws=0, seed=0)
    with pytest.raises(NrmapError, match="seed=-1: expected at least 0"):
        control_policies(policy, "random_weights", draws=1, seed=-1)
