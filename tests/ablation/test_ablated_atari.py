"""Engines on real frames with Nature networks and trained policies, against float64."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import joined
from torch import Tensor

from bench.exactness import compare
from bench.map_cases import random_policy
from nrmap.ablation import AblationSpec, make_engine
from nrmap.ablation.rounding import ablate_pixels
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.policies.network import STATE_SCALE
from nrmap.policies.policy import Policy, load_policy

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"
REFERENCE_POLICIES = sorted(REFERENCE.glob("**/policy.safetensors"))
assert REFERENCE_POLICIES, "without them a test would have no cases, which is no failure"


@functools.cache
def played_states(env: EnvSpec, number: int) -> Tensor:
    """States 30 steps apart under random actions."""
    game, generator = SeededVectorEnv(env, 1), np.random.default_rng(0)
    game.begin(np.ones(1, dtype=bool), [7])
    frames = [game.step(generator.integers(game.num_actions, size=1)).states for _ in range(30 * number)]
    return torch.from_numpy(np.concatenate(frames[29::30]))


def assert_exact(policy: Policy, states: Tensor, pixels: Tensor, spec: AblationSpec, engine: str = "auto") -> None:
    """The Q-values of all `states` with each of the numbered `pixels` ablated equal those of the network in float64."""
    q_values = joined(make_engine(policy, spec=spec, engine=engine).ablate(states))[0].flatten(1, -2)[:, pixels]
    network = copy.deepcopy(policy.network).double()
    for state, found in zip(states, q_values, strict=True):
        parts = [ablate_pixels(state, part, spec).float() * STATE_SCALE for part in pixels.split(256)]
        exact = torch.cat([network(part.double()) for part in parts])
        result = compare(found, exact)
        assert result.exact, result
        assert len(exact[:, 0].unique()) > 50, "hardly any pixel of this state matters"


@pytest.mark.parametrize(
    ("game", "frame_stack", "dueling", "spec"),
    [
        ("Freeway", 1, True, AblationSpec()),
        ("Freeway", 4, True, AblationSpec()),
        ("Freeway", 1, False, AblationSpec(200)),
        ("Breakout", 2, True, AblationSpec(0, "each")),
    ],
)
def test_corners_edges_and_a_sample_of_all_pixels_are_exact(game, frame_stack, dueling, spec):
    policy = random_policy(EnvSpec(game, 84, 84, frame_stack=frame_stack), dueling=dueling).requires_grad_(False)
    grid = torch.arange(spec.ablated_shape(policy.env.state_shape).numel()).view(-1, 84, 84)
    edges = torch.cat([grid[:, [0, -1], ::9].flatten(), grid[:, ::9, [0, -1]].flatten(), grid[:, -1, -1]])
    sample = torch.randint(grid.numel(), (120,), generator=torch.Generator().manual_seed(0))
    assert_exact(policy, played_states(policy.env, 2), torch.cat([edges, sample]), spec)


@pytest.mark.parametrize(
    ("number", "count"),
    [(1, 200), pytest.param(2, 84 * 84, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
@pytest.mark.parametrize("path", REFERENCE_POLICIES, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_trained_policies_are_exact(path, number, count):
    policy = load_policy(path)
    pixels = torch.randperm(policy.env.height * policy.env.width, generator=torch.Generator().manual_seed(0))[:count]
    assert_exact(policy, played_states(policy.env, number), pixels, AblationSpec(), "incremental")
