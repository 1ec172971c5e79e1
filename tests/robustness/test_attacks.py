"""Evaluation attacks against closed forms of linear networks, and on cases where weak attacks fail."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork, frozen
from nrmap.robustness import attacks
from nrmap.robustness.attacks import OBJECTIVES, GradientAttack, StateNoise, attack_named, pgd
from nrmap.robustness.perturbations import other_action_margin, project

NAMES = ("noise", "fgsm", "pgd-3", "pgd-10")
SHAPE = (1, 6, 6)


def noise_for(count, seed=0):
    return StateNoise(seed, np.arange(count), np.arange(count) * 7)


class LinearNetwork:
    """Q(s, a) = scale·(w_a · (s − ½) + b_a), b ~ spread; its extremes over a box have a closed form."""

    def __init__(self, actions, seed, scale=1.0, spread=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.weights = scale * torch.randn((actions, *SHAPE), generator=generator)
        self.bias = scale * spread * torch.randn(actions, generator=generator) - self.weights.sum(dim=(1, 2, 3)) / 2
        self.batches = []

    def __call__(self, states):
        self.batches.append(len(states))
        return (states[:, None] * self.weights).sum(dim=(2, 3, 4)) + self.bias

    def largest_margins(self, states, actions, attack_epsilon):
        """max over the box of max_{a≠a*} Q(s', a) − Q(s', a*), in float64."""
        low, high = (states - attack_epsilon).clamp(0, 1).double(), (states + attack_epsilon).clamp(0, 1).double()
        weights, bias = self.weights.double(), self.bias.double()
        slopes, offsets = weights - weights[actions][:, None], bias - bias[actions][:, None]  # [N, A, …], [N, A]
        corners = torch.where(slopes > 0, slopes * high[:, None], slopes * low[:, None])
        margins = corners.sum(dim=(2, 3, 4)) + offsets
        return margins.scatter(1, actions[:, None], -torch.inf).amax(dim=1)


def random_states(count, seed=0):
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


def small_network(actions=4, seed=0):
    torch.manual_seed(seed)
    spec = NetworkSpec(1, 12, 12, actions, convs=(ConvSpec(4, 4, 2), ConvSpec(4, 3, 1)), hidden=16)
    return QNetwork(spec).requires_grad_(False)


def test_outputs_that_are_nan_are_no_flip():
    states = random_states(3)
    search = attacks._Search(states, torch.tensor([[1.0, 0.0]]).repeat(3, 1))
    search.see(states, torch.full((3, 2), torch.nan))
    assert not search.result().flipped.any()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), attack_epsilon=st.sampled_from([1 / 255, 3 / 255, 0.3, 1.0]), dark=st.floats(0, 1))
def test_every_attack_stays_in_the_ball_and_on_the_screen(name, seed, attack_epsilon, dark):
    network = small_network(seed=seed % 7)
    states = torch.rand((3, 1, 12, 12), generator=torch.Generator().manual_seed(seed))
    # Black and white pixels are where the ball sticks out of [0, 1].
    states = torch.where(states < dark / 2, 0.0, torch.where(states > 1 - dark / 2, 1.0, states))
    before = states.clone()
    attacked = attack_named(name)(frozen(network), states, attack_epsilon=attack_epsilon, noise=noise_for(3, seed))
    assert torch.equal(states, before)
    assert torch.equal(attacked.perturbed, project(attacked.perturbed, states, attack_epsilon))
    assert (attacked.perturbed.double() - states.double()).abs().max() <= attack_epsilon + 2.0**-24
    assert 0 <= attacked.perturbed.min() <= attacked.perturbed.max() <= 1
    margins = other_action_margin(network(attacked.perturbed), network(states).argmax(dim=1))
    torch.testing.assert_close(attacked.margins, margins, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attack_epsilon", [0.02, 0.1])
def test_with_two_actions_the_attack_finds_the_exact_optimum(attack_epsilon):
    """The optimum is a corner of the ball, known in closed form."""
    network, states = LinearNetwork(actions=2, seed=1), random_states(60)
    attacked = pgd(10)(network, states, attack_epsilon=attack_epsilon, noise=noise_for(60))
    best = network.largest_margins(states, attacked.clean_actions, attack_epsilon)
    assert torch.equal(attacked.flipped, best > 0)
    assert 0 < attacked.flipped.sum() < 60
    standing = ~attacked.flipped
    torch.testing.assert_close(attacked.margins[standing].double(), best[standing], atol=1e-5, rtol=0)
    assert (attacked.margins[attacked.flipped] > 0).all()


@pytest.mark.parametrize("name", ["fgsm", "pgd-10", "pgd-50"])
def test_with_many_actions_a_flip_is_found_wherever_there_is_one(name):
    network, states = LinearNetwork(actions=5, seed=2, spread=1.0), random_states(200)
    attacked = attack_named(name)(network, states, attack_epsilon=0.03, noise=noise_for(200))
    best = network.largest_margins(states, attacked.clean_actions, 0.03)
    assert not (attacked.flipped & (best <= 0)).any()
    assert (attacked.margins <= best + 1e-5).all()
    possible = best > 0
    assert 20 < possible.sum() < 180
    assert (attacked.flipped & possible).sum() >= 0.97 * possible.sum()


def test_the_result_is_never_worse_than_the_clean_state():
    """Even if every step decreases the margin."""
    wrong_way = lambda q_values, actions, worst_actions: -other_action_margin(q_values, actions)  # noqa: E731
    network, states = LinearNetwork(actions=3, seed=3, spread=3.0), random_states(50)
    clean = network(states)
    clean_margins = other_action_margin(clean, clean.argmax(dim=1))
    for name in ("pgd-5", "fgsm"):
        attack = replace(attack_named(name), objectives=(wrong_way,))
        attacked = attack(network, states, attack_epsilon=0.05, noise=noise_for(50))
        assert torch.equal(attacked.clean_margins, clean_margins)
        assert (attacked.margins >= clean_margins).all()
        assert (other_action_margin(network(attacked.perturbed), clean.argmax(dim=1)) >= clean_margins - 1e-6).all()
    # FGSM has no random start and no step helped, so the clean states themselves are its best points.
    assert torch.equal(attacked.perturbed, states)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_huge_scale_of_q_hides_nothing(objective):
    """Scaling Q by 10,000 changes no action and must not weaken the attack; the naive gradient vanishes."""
    plain, huge = (LinearNetwork(actions=3, seed=5, scale=scale) for scale in (1.0, 1e4))
    states = random_states(40)
    actions = huge(states).argmax(dim=1)
    point = states.clone().requires_grad_()
    (vanished,) = torch.autograd.grad(functional.cross_entropy(huge(point), actions, reduction="sum"), point)
    assert (vanished.abs().amax(dim=(1, 2, 3)) == 0).float().mean() > 0.9
    attack = replace(pgd(10), objectives=(objective,))
    attacked = attack(huge, states, attack_epsilon=0.3, noise=noise_for(40))
    assert torch.equal(attacked.clean_actions, plain(states).argmax(dim=1))
    possible = huge.largest_margins(states, actions, 0.3) > 0
    assert possible.sum() > 20
    assert (attacked.flipped & possible).sum() >= 0.8 * possible.sum()
    mild = attack(plain, states, attack_epsilon=0.3, noise=noise_for(40))
    assert attacked.flipped.sum() >= 0.9 * mild.flipped.sum()


def test_objectives_are_what_their_formulas_say():
    q_values = torch.tensor([[2.0, -1.0, 0.5], [0.0, 4.0, 4.5]], dtype=torch.float64)
    actions, worst = torch.tensor([0, 2]), torch.tensor([1, 0])
    probabilities = q_values.softmax(dim=1)
    chosen, least = (probabilities.gather(1, index[:, None]).squeeze(1) for index in (actions, worst))
    found = [of(q_values, actions, worst) for of in (attacks.cross_entropy_objective, attacks.worst_action_objective)]
    torch.testing.assert_close(found, [torch.log((1 - chosen) / chosen), torch.log(least / (1 - least))])
    assert attacks.margin_objective(q_values, actions, worst).tolist() == [-1.5, -0.5]


def test_a_state_drops_out_at_its_first_flip():
    """Flipped states leave the batch; the others take all steps of all three objectives."""
    network = LinearNetwork(actions=2, seed=6)
    network.weights[:] = torch.stack([torch.ones(SHAPE), torch.zeros(SHAPE)])
    # Q(s, 0) − Q(s, 1) = Σ s − 10: the first state leads by 0.3, the second by 26, beyond any attack of 0.1·36.
    network.bias[:] = torch.tensor([-10.0, 0.0])
    states = torch.stack([torch.full(SHAPE, 10.3 / 36), torch.ones(SHAPE)])
    network.batches.clear()
    attack = GradientAttack(steps=2, step_fraction=0.5, random_start=False)
    attacked = attack(network, states, attack_epsilon=0.1, noise=noise_for(2))
    assert attacked.flipped.tolist() == [True, False]
    # Clean; then both states for three objectives at the start and after step 1; step 2 with one state.
    assert network.batches == [2, 6, 6, 3]
    network.batches.clear()
    attack(network, states.repeat(10, 1, 1, 1), attack_epsilon=0.1, noise=noise_for(20))
    # In a larger batch the first objective goes alone; the other two share what it leaves.
    assert network.batches == [20, 20, 20, 10, 20, 20, 20]
    # The kept point is that of the first flip, half a radius away, and not a later one.
    torch.testing.assert_close(attacked.perturbed[0], states[0] - 0.05)


def test_a_tie_that_the_policy_breaks_otherwise_is_a_flip():
    """The policy takes the first of equal actions, so the action can flip at margin 0."""

    def network(states):
        # Actions 1 and 2 tie where the first pixel is 0.1; where it is 0, actions 0 and 1 do.
        first = states[:, 0, 0, 0]
        return torch.stack([-first, 0 * first, -functional.relu(0.1 - first)], dim=1)

    states = torch.full((1, *SHAPE), 0.1)
    attacked = attack_named("fgsm")(network, states, attack_epsilon=0.2, noise=noise_for(1))
    assert (attacked.clean_actions.tolist(), attacked.actions.tolist(), attacked.flipped.tolist()) == ([1], [0], [True])
    assert attacked.clean_margins.tolist() == attacked.margins.tolist() == [0.0]
    assert attacked.perturbed[0, 0, 0, 0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_attacked_the_same_way_alone_and_in_a_crowd(name):
    network, states = LinearNetwork(actions=4, seed=7, spread=1.0), random_states(12)
    noise = StateNoise(3, np.arange(12), np.arange(12) + 100)
    together = attack_named(name)(network, states, attack_epsilon=0.03, noise=noise)
    for row in (0, 5, 11):
        part = StateNoise(3, noise.episodes[[row]], noise.steps[[row]])
        alone = attack_named(name)(network, states[[row]], attack_epsilon=0.03, noise=part)
        assert torch.equal(alone.perturbed[0], together.perturbed[row])
        assert alone.actions[0] == together.actions[row]


def test_noise_is_uniform_and_follows_from_seed_episode_step_and_draw():
    like = torch.empty(6, 1, 40, 40)
    noise = StateNoise(0, np.array([0, 0, 1, 1, 2, 0]), np.array([0, 1, 0, 1, 5, 0]))
    values = noise.uniform(like, draw=0)
    assert torch.equal(values[0], values[5])
    of_seed_1 = StateNoise(1, noise.episodes, noise.steps).uniform(like, 0)
    draws = torch.stack([*values[:5], noise.uniform(like, draw=1)[0], of_seed_1[0]]).flatten(1)
    # Independent uniform numbers: the correlations over 1,600 pixels are 0 ± 0.025.
    assert np.abs(np.corrcoef(draws) - np.eye(7)).max() < 0.12
    assert -1 <= values.min() <= values.max() < 1
    # 8,000 numbers: mean 0 ± 0.0065, variance 1/3 ± 0.0033.
    assert abs(values[:5].double().mean()) < 0.03
    assert abs(values[:5].double().var() - 1 / 3) < 0.015
    assert torch.equal(StateNoise(0, noise.episodes[[4, 2]], noise.steps[[4, 2]]).uniform(like[:2], 0), values[[4, 2]])
    centre = torch.full_like(like, 0.5)
    attacked = attack_named("noise")(lambda x: x.flatten(1), centre, attack_epsilon=0.25, noise=noise)
    torch.testing.assert_close(attacked.perturbed, centre + 0.25 * values)


@pytest.mark.parametrize("count", [1, 7, 60])
@pytest.mark.parametrize("name", ["fgsm", "pgd-1", "pgd-4"])
def test_of_all_objectives_the_first_flip_counts_else_the_largest_margin(name, count):
    network, attack = small_network().double(), attack_named(name)
    with torch.no_grad():  # no action is greedy everywhere
        network.advantage[-1].bias -= network(torch.rand(60, 1, 12, 12, dtype=torch.float64)).mean(dim=0)
    states = torch.rand(60, 1, 12, 12, dtype=torch.float64)
    starts = attack.starts(states, attack_epsilon=0.01, noise=noise_for(60))
    single = zip((replace(attack, objectives=(objective,)) for objective in OBJECTIVES), starts, strict=True)
    alone = [one.in_one_batch(frozen(network), states, start[None], attack_epsilon=0.01) for one, start in single]
    assert (torch.stack([each.flipped for each in alone[1:]]).any(dim=0) & ~alone[0].flipped).any()
    for first in range(0, 60, count):
        few = slice(first, min(first + count, 60))
        noise = StateNoise(0, noise_for(60).episodes[few], noise_for(60).steps[few])
        found = [
            attack(frozen(network), states[few], attack_epsilon=0.01, noise=noise),
            attack.in_one_batch(frozen(network), states[few], starts[:, few], attack_epsilon=0.01),
        ]
        for n in range(60)[few]:
            flips = [each for each in alone if each.flipped[n]]
            expected = flips[0] if flips else max(alone, key=lambda each: each.margins[n])
            for together in found:
                assert together.actions[n - first] == expected.actions[n]
                for field in ("perturbed", "margins"):
                    torch.testing.assert_close(getattr(together, field)[n - first], getattr(expected, field)[n])


def test_one_batch_reads_no_value_on_the_host():
    network, attack = frozen(small_network()), pgd(3)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        states, starts = mode.from_tensor(torch.rand(4, 1, 12, 12)), mode.from_tensor(torch.rand(3, 4, 1, 12, 12))
        assert attack.in_one_batch(network, states, starts, attack_epsilon=0.1).actions.shape == (4,)
        with pytest.raises(Exception, match="nonzero"):
            attack(network, states, attack_epsilon=0.1, noise=noise_for(4))


@pytest.mark.cuda
def test_an_attack_on_a_cuda_network_gives_the_same_points():
    network, states = small_network(), torch.rand(4, 1, 12, 12)
    here = pgd(3)(frozen(network), states, attack_epsilon=0.1, noise=noise_for(4))
    there = pgd(3)(frozen(network.cuda()), states.cuda(), attack_epsilon=0.1, noise=noise_for(4))
    assert there.perturbed.is_cuda
    assert torch.equal(there.actions.cpu(), here.actions)
    torch.testing.assert_close(there.margins.cpu(), here.margins, atol=1e-4, rtol=0)
