"""Exploring actions that last, against εz-greedy played for one environment at a time."""

import math

import numpy as np
import pytest

from nrmap.learning.exploration import Explorer


def redrawn(epsilons: list[float], num_actions: int, longest: int, steps: int, seed: int) -> np.ndarray:
    """Algorithm 1 of εz-greedy for each environment alone, from the draws that an explorer of that seed makes, [T, E].

    A step draws for all environments whether one begins, which action and how long; nothing here knows an Explorer.
    """
    rng, num_envs = np.random.default_rng(seed), len(epsilons)
    one_step = lambda: (rng.random(num_envs), rng.integers(num_actions, size=num_envs), rng.random(num_envs))  # noqa: E731
    draws = [one_step() for _ in range(steps)]
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


@pytest.mark.parametrize("longest", [1, 6, 50])  # 1 is plain ε-greedy
def test_every_environment_explores_by_algorithm_1(longest):
    epsilons, steps = [1.0, 0.2, 0.0, 1.0], 3_000
    explorer, rng = Explorer(num_envs=4, num_actions=18, max_repeat=longest), np.random.default_rng(5)
    found = np.stack([explorer.step(np.array(epsilons), rng) for _ in range(steps)])
    np.testing.assert_array_equal(found, redrawn(epsilons, 18, longest, steps, seed=5))


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
