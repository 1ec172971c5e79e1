"""Attacks, certificates and roll-outs through the public API, against what they are made of and against samples."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from toy_policies import FREEWAY, SMALL_FREEWAY, real_states, toy_policy

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
    expected = attack_named(name)(network, states * (1 / 255), attack_epsilon=EPSILON, noise=noise)
    assert torch.equal(found.perturbed, expected.perturbed)
    assert torch.equal(found.actions, expected.actions)
    assert torch.equal(found.actions, network(found.perturbed).argmax(dim=1))
    assert found.flipped.any()


@pytest.mark.parametrize("name", ["noise", "fgsm", "pgd-10"])
def test_an_attack_stays_in_the_ball_where_the_function_changes_its_input(name: str) -> None:
    network, states = sequential(), some_states()

    def changing(inputs: Tensor) -> Tensor:
        inputs.data.mul_(0.9)
        return network(inputs)

    functions = changing, lambda states: network(states * 0.9)
    found, expected = (nrmap.attack(agent(function), states, name, EPSILON) for function in functions)
    assert (found.perturbed - states / 255).abs().max() <= EPSILON + 1e-6
    assert torch.equal(found.actions, expected.actions)
    torch.testing.assert_close(found.margins, expected.margins)


def by_network(scale: float) -> nrmap.Agent:
    """Layers whose first takes inputs in [0, 255·scale]."""
    network = sequential()
    network[0][0].weight /= 255 * scale
    return nrmap.Agent(network, SHAPE, input_scale=scale)


def dueling() -> nrmap.Agent:
    torch.manual_seed(0)
    network = QNetwork(NetworkSpec(*SHAPE, 3, convs=(ConvSpec(4, 3, 2), ConvSpec(4, 2, 1)), hidden=12))
    return nrmap.Agent(undecided(network, network.advantage[2]), SHAPE)


@pytest.mark.parametrize("make", [*(partial(by_network, scale) for scale in (1 / 255, 1.0, 0.3)), dueling])
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


def test_states_beyond_the_first_batch_have_noise_and_proofs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    network, states = by_network(1 / 255), some_states()
    results = []
    for size in (256, 7):
        monkeypatch.setattr("nrmap.api.BATCH_SIZE", size)
        noisy = nrmap.attack(network, states, "noise", EPSILON).perturbed
        results.append((noisy, nrmap.certify(network, states, CERTIFIED)))
    assert all(map(torch.equal, *results))
    assert 0 < results[0][1][7:].sum() < 33


def agent(function: Callable[[Tensor], Tensor], **options: Any) -> nrmap.Agent:
    return nrmap.Agent(function, SHAPE, **options)


def root_of_zero(states: Tensor) -> Tensor:
    return states + (states - states).sqrt()


PADDED = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(504, 3))
NESTED = nn.Sequential(QNetwork(NetworkSpec(*SHAPE, 3, convs=(ConvSpec(4, 3, 2),), hidden=4)), nn.Linear(3, 3))
MANY = nn.Sequential(nn.Flatten(), nn.Linear(336, 20_000))
CHANGED = QNetwork(NetworkSpec(*SHAPE, 3, convs=(ConvSpec(4, 3, 2),), hidden=4)).eval()
CHANGED.features[1] = nn.Identity()
NOT_LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(336, 3), nn.ReLU())


class Wrapping(nn.Sequential):
    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states * 700 % 1)


class SineLinear(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return torch.sin(super().forward(features) * 200)


class Shifting(nn.Identity):
    def forward(self, features: Tensor) -> Tensor:
        return 50 * (features - 0.1)


def on_last(change: Callable[[nn.Module], object]) -> Callable[[nrmap.Agent], object]:
    return lambda agent: change(agent.function[-1])


WITHOUT_BOUNDS = {
    "hook": lambda a: a.function[1].register_forward_hook(lambda layer, inputs, outputs: 50 * (outputs - 0.1)),
    "hook before": lambda a: a.function[0][0].register_forward_pre_hook(lambda layer, inputs: (1 - inputs[0],)),
    "hook of a container": lambda a: a.function[0].register_forward_hook(lambda layer, inputs, outputs: 1 - outputs),
    "hook of the agent": lambda a: a.register_forward_hook(lambda agent, inputs, outputs: -outputs),
    "forward": on_last(lambda last: setattr(last, "forward", lambda seen: functional.linear(seen, -last.weight))),
    "convolution": lambda a: setattr(
        a.function[0][0], "_conv_forward", lambda inputs, weight, bias: functional.conv2d(1 - inputs, weight, bias, 2)
    ),
    "subclass": lambda a: a.function.__setitem__(-1, SineLinear(16, 3)),
    "subclass of Identity": lambda a: a.function.__setitem__(1, Shifting()),
    "subclass of Sequential": lambda a: setattr(a, "function", Wrapping(*a.function)),
    "pruned": on_last(lambda last: prune.l1_unstructured(last, "weight", 0.5)),
    "weight norm": on_last(nn.utils.weight_norm),
    "spectral norm": on_last(nn.utils.spectral_norm),
    "parametrised": on_last(nn.utils.parametrizations.weight_norm),
}


@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of:FutureWarning")
@pytest.mark.parametrize("change", WITHOUT_BOUNDS.values(), ids=WITHOUT_BOUNDS)
def test_layers_that_act_otherwise_than_their_types_have_no_bounds_but_maps(change: Callable) -> None:
    changed, states = agent(sequential()), some_states(3)
    change(changed)
    changed.eval()
    with pytest.raises(nrmap.NrmapError, match=r"^no bounds for the \w+ at '.*no subclass, no hook"):
        nrmap.certify(changed, states)
    maps = [nrmap.compute_maps(changed, states, engine=engine, progress=False) for engine in ("auto", "dense")]
    for kind in maps[0].kinds:
        np.testing.assert_allclose(maps[0][kind], maps[1][kind], rtol=1e-4, atol=1e-4)


CHANGES = {
    "tanh": lambda network: network.features.__setitem__(1, nn.Tanh()),
    "weight norm": lambda network: nn.utils.parametrizations.weight_norm(network.advantage[0]),
    "hook": lambda network: network.advantage.register_forward_hook(lambda layer, inputs, outputs: outputs.flip(1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_attack_is_on_a_loaded_policy_as_it_was_changed(change: Callable[[QNetwork], object]) -> None:
    policy, (states, _) = toy_policy(SMALL_FREEWAY), real_states(SMALL_FREEWAY)
    change(policy.network)
    found = nrmap.attack(policy, states, "pgd-10", 0.1)
    assert torch.equal(found.clean_actions, policy(torch.from_numpy(states)).argmax(dim=1))
    assert torch.equal(found.actions, policy.network(found.perturbed).argmax(dim=1))
    assert found.flipped.any()


def test_a_hook_of_all_modules_leaves_no_bounds() -> None:
    def flip_linear(layer: nn.Module, inputs: Any, outputs: Tensor) -> Tensor | None:
        return -outputs if isinstance(layer, nn.Linear) else None

    handle = nn.modules.module.register_module_forward_hook(flip_linear)
    try:
        with pytest.raises(nrmap.NrmapError, match="no bounds for the Agent"):
            nrmap.certify(agent(sequential()), some_states())
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: nrmap.attack(agent(sequential()), some_states(), "pdg-10"), "did you mean pgd-10"),
        (lambda: nrmap.attack(agent(sequential()), some_states(), epsilon=2), "^epsilon=2: expected"),
        (lambda: nrmap.attack(agent(sequential()), some_states(), seed=-1), "seed=-1"),
        (
            lambda: nrmap.attack(agent(lambda s: s.float().mean((2, 3)), input_scale=None), some_states()),
            "input_scale=None",
        ),
        (lambda: nrmap.attack(agent(lambda s: sequential()(s.detach())), some_states()), "no gradient with respect to"),
        (lambda: nrmap.attack(agent(lambda s: sequential()(root_of_zero(s))), some_states()), "gradient .* is NaN"),
        (lambda: nrmap.attack(agent(sequential()), some_states(), "pgd-99999"), "expected 1 to 10000"),
        (lambda: nrmap.certify(agent(lambda s: sequential()(s)), some_states()), "no bounds for a function"),
        (lambda: nrmap.certify(agent(MANY), some_states()), "bounds for all pairs of 20,000 actions"),
        (lambda: nrmap.certify(agent(PADDED), some_states()), "no bounds for the Conv2d.* without padding"),
        (lambda: nrmap.certify(agent(NESTED), some_states()), "no bounds for the QNetwork at 'function.0'"),
        (lambda: nrmap.certify(agent(CHANGED), some_states()), "no bounds for a QNetwork whose layers were changed"),
        (lambda: nrmap.certify(agent(NOT_LINEAR), some_states()), "does not end in Linear"),
        (lambda: nrmap.certify(agent(sequential()), some_states(), 0), "^epsilon=0: expected"),
        (lambda: nrmap.evaluate(agent(sequential())), "agent cannot play: it has no game"),
        (lambda: nrmap.evaluate(agent(sequential(), env=FREEWAY)), "takes states"),
    ],
)
def test_wrong_input_and_networks_without_gradient_or_bounds_are_named(call: Callable[[], object], why: str) -> None:
    with pytest.raises(nrmap.NrmapError, match=why):
        call()


def test_any_function_plays_as_the_policy_that_it_wraps(toy: Policy) -> None:
    """The states of both, and the numbers of both evaluations; names and hashes apart."""
    network = toy.network
    wrapped = nrmap.Agent(lambda states: network(states), FREEWAY.state_shape, env=FREEWAY, name="mine")
    states = [nrmap.collect_states(agent, 6, 2, progress=False) for agent in (toy, wrapped)]
    assert np.array_equal(states[0].states, states[1].states)
    assert states[1].origins[0].label == "Freeway/mine"
    maps = nrmap.compute_maps(toy, states[0], progress=False)
    assert maps.by_episode.states_per_episode.tolist() == [3, 3]
    found = nrmap.evaluate(wrapped, 1, ["fgsm"], 8 / 255, progress=False)
    settings = EvaluationSettings(1, 0, attack_runs=(AttackRun("fgsm", 8 / 255, 1),))
    expected = play_episodes(toy, settings, num_envs=2)
    assert [(record.metric, record.value) for record in found] == [(record.metric, record.value) for record in expected]
    assert found[0].method == "mine"


@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta")],
    ids=["inference", "no gradient", "autocast", "default device"],
)
def test_the_modes_of_the_caller_change_nothing(toy: Policy, mode: Callable[[], Any]) -> None:
    network = toy.network
    agent, states = nrmap.Agent(lambda states: network(states), FREEWAY.state_shape, env=FREEWAY), some_states(2)
    states = states[:, :1].repeat(1, 1, 4, 3).contiguous()[:, :, : FREEWAY.state_shape[1]]

    def results() -> list[Any]:
        maps = nrmap.compute_maps(agent, states, progress=False)
        attacked, proven = nrmap.attack(agent, states), nrmap.certify(toy, states, CERTIFIED)
        records = nrmap.evaluate(agent, 1, ["fgsm"], progress=False)
        found = [maps[key].tolist() for key in maps.kinds]
        return [*found, attacked.perturbed.tolist(), proven.tolist(), [record.value for record in records]]

    expected = results()
    with mode():
        assert results() == expected


def test_an_evaluation_counts_certified_states(toy: Policy) -> None:
    records = nrmap.evaluate(toy, 1, certify_epsilons=[1e-4], progress=False)
    states = nrmap.collect_states(toy, FREEWAY.max_agent_steps, 1, progress=False)
    (rate,) = (record.value for record in records if record.metric == "certified_rate")
    assert rate == nrmap.certify(toy, states, 1e-4).double().mean()


def test_an_agent_in_training_mode_cannot_play() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(28 * 28, 3))
    agent = nrmap.Agent(network.eval(), SMALL_FREEWAY.state_shape, env=SMALL_FREEWAY)
    play_episodes(agent, EvaluationSettings(1, 0), num_envs=1)
    network.train()
    with pytest.raises(nrmap.NrmapError, match=r"Dropout at .* is in training mode"):
        nrmap.evaluate(agent, episodes=1, attacks=[], certify_epsilons=[])
