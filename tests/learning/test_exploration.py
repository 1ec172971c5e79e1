"""Exploring actions that last, against their distribution and against one environment at a time."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from nrmap.learning.exploration import Explorer


def run_lengths(exploring: np.ndarray) -> list[int]:
    """The lengths of the runs of one environment's exploring steps, an idle step between any two."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], exploring >= 0, [0]]).astype(int)))
    return (edges[1::2] - edges[::2]).tolist()


def test_lengths_follow_the_zeta_distribution():
    longest, num_envs = 6, 200
    explorer, rng = Explorer(num_envs=num_envs, num_actions=3, max_repeat=longest), np.random.default_rng(0)
    counts = np.zeros(longest)
    for _ in range(100):
        # ε = 1 for one step starts an action everywhere, ε = 0 until it is over tells its length.
        actions = [explorer.step(np.ones(num_envs), rng)]
        actions += [explorer.step(np.zeros(num_envs), rng) for _ in range(longest)]
        steps = np.stack(actions)  # [T, E]
        assert (steps[0] >= 0).all()
        assert (steps[-1] == -1).all()
        for env in range(num_envs):
            (length,) = run_lengths(steps[:, env])
            assert (steps[:length, env] == steps[0, env]).all()
            counts[length - 1] += 1
    probabilities = np.arange(1, longest + 1) ** -2.0
    probabilities /= probabilities.sum()
    assert stats.chisquare(counts, counts.sum() * probabilities).pvalue > 0.01


def test_a_max_repeat_of_one_is_plain_epsilon_greedy():
    explorer, rng = Explorer(num_envs=4, num_actions=5, max_repeat=1), np.random.default_rng(1)
    epsilons = np.array([0.0, 0.2, 0.7, 1.0])
    steps = np.stack([explorer.step(epsilons, rng) for _ in range(5_000)])  # [T, E]
    exploring = steps >= 0
    assert not exploring[:, 0].any()
    assert exploring[:, 3].all()
    for env in (1, 2):
        assert stats.binomtest(int(exploring[:, env].sum()), 5_000, epsilons[env]).pvalue > 0.01
        successes = exploring[:-1, env] & exploring[1:, env]
        assert successes.mean() == pytest.approx(epsilons[env] ** 2, abs=0.03)  # independent of the step before
    assert stats.chisquare(np.bincount(steps[:, 3], minlength=5)).pvalue > 0.01


def redrawn(epsilons: list[float], num_actions: int, longest: int, steps: int, seed: int) -> np.ndarray:
    """Algorithm 1 of εz-greedy for each environment alone, from the draws that an explorer of that seed makes, [T, E].

    A step draws for all environments whether one begins, which action and how long; nothing here knows an Explorer.
    """
    rng, num_envs = np.random.default_rng(seed), len(epsilons)
    draws = [
        (rng.random(num_envs), rng.integers(num_actions, size=num_envs), rng.random(num_envs)) for _ in range(steps)
    ]
    norm = math.fsum(1 / n**2 for n in range(1, longest + 1))
    expected = np.full((steps, num_envs), -1)
    for env, epsilon in enumerate(epsilons):
        step = 0
        while step < steps:
            begins, actions, quantiles = (draw[env] for draw in draws[step])
            if begins >= epsilon:
                step += 1
                continue
            length, below = 1, 1 / norm
            while below <= quantiles and length < longest:
                length += 1
                below += 1 / length**2 / norm
            expected[step : step + length, env] = actions
            step += length
    return expected


def test_an_action_under_way_is_not_replaced():
    epsilons, longest, steps = [1.0, 0.2, 0.0, 1.0], 50, 3_000
    explorer, rng = Explorer(num_envs=4, num_actions=18, max_repeat=longest), np.random.default_rng(5)
    found = np.stack([explorer.step(np.array(epsilons), rng) for _ in range(steps)])
    expected = redrawn(epsilons, 18, longest, steps, seed=5)
    np.testing.assert_array_equal(found, expected)
    # With 18 actions two in a row are rarely the same: long runs are single actions that lasted.
    assert max(len(list(run)) for _, run in itertools.groupby(found[:, 0])) > 10


def test_state_brings_an_explorer_back():
    explorer, rng = Explorer(num_envs=3, num_actions=4, max_repeat=30), np.random.default_rng(2)
    epsilons = np.full(3, 0.3)
    for _ in range(17):
        explorer.step(epsilons, rng)
    state, rng_state = explorer.get_state(), rng.bit_generator.state
    rest = [explorer.step(epsilons, rng) for _ in range(50)]
    other, other_rng = Explorer(num_envs=3, num_actions=4, max_repeat=30), np.random.default_rng()
    other.set_state(state)
    other_rng.bit_generator.state = rng_state
    np.testing.assert_array_equal([other.step(epsilons, other_rng) for _ in range(50)], rest)
