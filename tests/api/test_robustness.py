"""Attacks, certificates and roll-outs through the public API, against what they are made of and against samples."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_policies import FREEWAY, toy_policy

import nrmap
from nrmap.play.evaluation import AttackRun, EvaluationSettings
from nrmap.play.evaluation import evaluate as play_episodes
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork
from nrmap.policies.policy import Policy
from nrmap.robustness.attacks import StateNoise, attack_named

SHAPE = (2, 12, 14)
EPSILON = 2 / 255
CERTIFIED = 0.3 / 255


def some_states(number: int = 40) -> Tensor:
    return torch.randint(0, 256, (number, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def undecided(network: nn.Module, last: nn.Linear) -> nn.Module:
    """`network` with biases that make each action greedy in some of the states."""
    network.eval().requires_grad_(False)
    last.bias -= network(some_states() / 255).mean(dim=0)
    return network


def sequential() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(2, 4, 3, 2, bias=False), nn.ReLU(inplace=True))
    hidden = [nn.Conv2d(4, 6, (2, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 16), nn.Identity(), nn.ReLU()]
    network = nn.Sequential(convolutions, nn.Dropout(0.5), *hidden, nn.Linear(16, 3))
    return undecided(network, network[-1])


@pytest.mark.parametrize("name", ["noise", "fgsm", "pgd-10"])
def test_an_attack_is_the_one_on_the_scaled_states(name: str) -> None:
    network, states = sequential(), some_states()
    found = nrmap.attack(nrmap.Agent(network, SHAPE), states.numpy(), name, EPSILON, seed=3)
    noise = StateNoise(3, np.zeros(len(states), dtype=np.int64), np.arange(len(states)))
    expected = attack_named(name)(network, states / 255, attack_epsilon=EPSILON, noise=noise)
    torch.testing.assert_close(found.perturbed, expected.perturbed, rtol=0, atol=1e-6)
    assert torch.equal(found.actions, expected.actions)
    assert torch.equal(found.actions, network(found.perturbed).argmax(dim=1))
    assert found.flipped.any()


def test_neither_the_scale_of_the_function_nor_other_states_matter() -> None:
    states, scales = some_states(), (1 / 255, 1.0, 1 / 128)
    flips = [nrmap.attack(by_network(scale), states, epsilon=EPSILON).flipped for scale in scales]
    proven = [nrmap.certify(by_network(scale), states, CERTIFIED) for scale in scales]
    for found in (flips, proven):
        assert 0 < found[0].sum() < len(states)
        assert torch.equal(found[1], found[0])
        assert torch.equal(found[2], found[0])
    assert torch.equal(nrmap.attack(by_network(1.0), states[:13], epsilon=EPSILON).flipped, flips[0][:13])


def by_network(scale: float) -> nrmap.Agent:
    """Layers whose first takes inputs in [0, 255·scale]."""
    network = sequential()
    network[0][0].weight /= 255 * scale
    return nrmap.Agent(network, SHAPE, input_scale=scale)


def dueling() -> nrmap.Agent:
    torch.manual_seed(0)
    network = QNetwork(NetworkSpec(*SHAPE, 3, convs=(ConvSpec(4, 3, 2), ConvSpec(4, 2, 1)), hidden=12))
    return nrmap.Agent(undecided(network, network.advantage[2]), SHAPE)


@pytest.mark.parametrize(
    "make", [lambda: by_network(1 / 255), lambda: by_network(1.0), lambda: by_network(0.3), dueling]
)
def test_no_sampled_point_and_no_attack_flips_a_certified_state(make: Callable[[], nrmap.Agent]) -> None:
    agent, states, epsilon = make(), some_states(), CERTIFIED
    certified = nrmap.certify(agent, states, epsilon)
    assert 0 < certified.sum() < len(states)
    function, centres = agent.for_attacks(), states / 255
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        corner = torch.randint(-1, 2, centres.shape, generator=generator)
        flipped = function((centres + epsilon * corner).clamp(0, 1)).argmax(dim=1) != agent(states).argmax(dim=1)
        assert not (flipped & certified).any()
    assert not (nrmap.attack(agent, states, "pgd-50", epsilon).flipped & certified).any()


def no_gradient(states: Tensor) -> Tensor:
    return sequential()(states.detach())


@pytest.mark.parametrize(
    ("function", "scale", "why"),
    [
        (lambda states: states.float().mean(dim=(2, 3)), None, "input_scale=None"),
        (no_gradient, 1 / 255, "no gradient with respect to its states"),
    ],
)
def test_agents_without_a_gradient_cannot_be_attacked(
    function: Callable[[Tensor], Tensor], scale: float | None, why: str
) -> None:
    with pytest.raises(nrmap.NrmapError, match=why):
        nrmap.attack(nrmap.Agent(function, SHAPE, input_scale=scale), some_states())


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda states: sequential()(states), "no bounds for a function"),
        (
            nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(504, 3)),
            "no bounds for Conv2d.*padding",
        ),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(336, 3)).eval(), "no bounds for BatchNorm2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(336, 3), nn.ReLU()), "does not end in Linear"),
    ],
)
def test_networks_without_bounds_are_named(function: Callable[[Tensor], Tensor], why: str) -> None:
    with pytest.raises(nrmap.NrmapError, match=why):
        nrmap.certify(nrmap.Agent(function, SHAPE), some_states())


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda agent: nrmap.attack(agent, some_states(), "pdg-10"), "did you mean pgd-10"),
        (lambda agent: nrmap.attack(agent, some_states(), epsilon=2), "expected 0 < ε ≤ 1"),
        (lambda agent: nrmap.attack(agent, some_states(), seed=-1), "seed=-1"),
        (lambda agent: nrmap.attack(agent, some_states() / 255), "expected torch.uint8"),
        (lambda agent: nrmap.certify(agent, some_states(), 0), "expected 0 < ε ≤ 1"),
        (lambda agent: nrmap.evaluate(agent), "agent cannot play: it has no game"),
        (lambda agent: nrmap.collect_states(agent), "agent cannot play: it has no game"),
        (lambda agent: nrmap.evaluate(nrmap.Agent(agent.function, SHAPE, env=FREEWAY)), "takes states"),
    ],
)
def test_wrong_input_is_named(call: Callable[[nrmap.Agent], object], why: str) -> None:
    with pytest.raises(nrmap.NrmapError, match=why):
        call(nrmap.Agent(sequential(), SHAPE))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return toy_policy(FREEWAY)


def test_any_function_plays_as_the_policy_that_it_wraps(policy: Policy) -> None:
    """The states of both, and the numbers of both evaluations; names and hashes apart."""
    network = policy.network
    wrapped = nrmap.Agent(lambda states: network(states), FREEWAY.state_shape, env=FREEWAY, name="mine")
    states = [nrmap.collect_states(agent, 6, 2, progress=False) for agent in (policy, wrapped)]
    assert np.array_equal(states[0].states, states[1].states)
    assert states[1].origins[0].label == "Freeway/mine"
    maps = nrmap.compute_maps(policy, states[0], progress=False)
    assert maps.by_episode.states_per_episode.tolist() == [3, 3]
    found = nrmap.evaluate(wrapped, 2, ["fgsm"], 8 / 255, progress=False)
    settings = EvaluationSettings(2, 0, attack_runs=(AttackRun("fgsm", 8 / 255, 2),))
    expected = play_episodes(policy, settings, num_envs=2)
    assert [(record.metric, record.value) for record in found] == [(record.metric, record.value) for record in expected]
    assert found[0].method == "mine"


def test_an_evaluation_counts_certified_states(policy: Policy) -> None:
    records = nrmap.evaluate(policy, 1, certify_epsilons=[1e-4], progress=False)
    states = nrmap.collect_states(policy, FREEWAY.max_agent_steps, 1, progress=False)
    (rate,) = (record.value for record in records if record.metric == "certified_rate")
    assert rate == nrmap.certify(policy, states, 1e-4).double().mean()
