"""Perturbations in the ℓ∞ ball against brute force and closed forms of linear networks."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nrmap.robustness.perturbations import other_action_margin, project, projected_gradient_ascent, random_start

RADII = st.floats(2.0**-20, 1.0, width=32)
SHAPE = (2, 1, 3, 4)


def pixels(low=0.0, high=1.0):
    return npst.arrays(np.float32, SHAPE, elements=st.floats(low, high, width=32))


@given(
    npst.arrays(np.float32, (4, 5), elements=st.floats(-1e6, 1e6, width=32)),
    npst.arrays(np.int64, 4, elements=st.integers(0, 4)),
)
def test_margin_is_the_best_other_action_less_the_chosen_one(q_values, actions):
    margins = other_action_margin(torch.from_numpy(q_values), torch.from_numpy(actions))
    for row, action, margin in zip(q_values, actions, margins, strict=True):
        others = [q for a, q in enumerate(row) if a != action]
        assert margin.item() == np.float32(max(others) - row[action])


@given(pixels(-0.5, 1.5), pixels(), RADII)
def test_projection_is_the_nearest_point_of_ball_and_screen(perturbed, states, attack_epsilon):
    """Exact per coordinate in float32; inner points do not move."""
    projected = project(torch.from_numpy(perturbed), torch.from_numpy(states), attack_epsilon).numpy()
    radius = np.float32(attack_epsilon)
    low, high = np.maximum(states - radius, 0), np.minimum(states + radius, 1)
    np.testing.assert_array_equal(projected, np.minimum(np.maximum(perturbed, low), high))
    assert 0 <= projected.min() <= projected.max() <= 1
    # One rounding of s ± ε is all that separates the float32 ball from the real one.
    distance = np.abs(projected.astype(np.float64) - states.astype(np.float64)).max()
    assert distance <= attack_epsilon + 2.0**-24


def test_random_starts_fill_the_ball_uniformly_and_follow_from_the_generator():
    states = torch.full((400, 1, 5, 5), 0.5)
    starts = random_start(states, 0.1, torch.Generator().manual_seed(0))
    offsets = (starts - states).flatten().double() / 0.1
    assert offsets.abs().max() <= 1 + 1e-5
    # 10,000 uniform numbers on [−1, 1]: mean 0 ± 0.0058, variance 1/3 ± 0.003 (one standard error).
    assert abs(offsets.mean()) < 0.03
    assert abs(offsets.var() - 1 / 3) < 0.015
    assert torch.equal(starts, random_start(states, 0.1, torch.Generator().manual_seed(0)))
    assert not torch.equal(starts, random_start(states, 0.1, torch.Generator().manual_seed(1)))


@given(pixels(-1, 1), pixels(), st.floats(0.01, 0.5))
def test_ascent_on_a_linear_objective_reaches_the_best_corner(weights, states, attack_epsilon):
    """The maximum is the corner given by the signs of the weights."""
    centre, slope = torch.from_numpy(states), torch.from_numpy(weights)
    start = random_start(centre, attack_epsilon, torch.Generator().manual_seed(0))
    points, _, _ = projected_gradient_ascent(
        lambda points: (points * slope).sum(dim=(1, 2, 3)), centre,
        attack_epsilon=attack_epsilon, steps=8, step_size=attack_epsilon / 4, start=start,
    )  # fmt: skip
    best = points[-1].numpy()
    low, high = np.maximum(states - attack_epsilon, 0), np.minimum(states + attack_epsilon, 1)
    corner = np.where(weights > 0, high, low)
    moved = weights != 0
    np.testing.assert_allclose(best[moved], corner[moved], atol=1e-6)
    np.testing.assert_array_equal(best[~moved], start.numpy()[~moved])
