"""Engines on real frames with Nature networks and trained policies, against float64."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.exactness import compare
from nrmap.ablation import AblationSpec, make_engine
from nrmap.ablation.rounding import ablate_pixels
from nrmap.atari.envs import EnvSpec, SeededVectorEnv
from nrmap.policies.network import STATE_SCALE, NetworkSpec, QNetwork
from nrmap.policies.policy import Policy, PolicyCard, load_policy

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"
REFERENCE_POLICIES = sorted(REFERENCE.glob("**/policy.safetensors"))
assert REFERENCE_POLICIES, "without them a test would have no cases, which is no failure"


def nature_policy(game: str, frame_stack: int = 1, *, side: int = 84, dueling: bool = True) -> Policy:
    env = EnvSpec(game, side, side, frame_stack=frame_stack)
    torch.manual_seed(0)
    network = QNetwork(NetworkSpec(*env.state_shape, actions=3, dueling=dueling)).requires_grad_(False)
    return Policy(network, env, PolicyCard("random", 0, 0, "random")).eval()


@functools.cache
def played_states(env: EnvSpec, number: int) -> Tensor:
    """States 30 steps apart under random actions."""
    game, generator = SeededVectorEnv(env, 1), np.random.default_rng(0)
    game.begin(np.ones(1, dtype=bool), [7])
    frames = [game.step(generator.integers(game.num_actions, size=1)).states for _ in range(30 * number)]
    return torch.from_numpy(np.concatenate(frames[29::30]))


def exact_q_values(policy: Policy, states: Tensor) -> Tensor:
    return copy.deepcopy(policy.network).double()((states.float() * STATE_SCALE).double())


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
    policy = nature_policy(game, frame_stack, dueling=dueling)
    states = played_states(policy.env, 2)
    q_values = torch.cat([chunk.q_values for chunk in make_engine(policy, spec=spec).ablate(states)]).flatten(1, -2)
    generator = torch.Generator().manual_seed(0)
    grid = torch.arange(q_values.shape[1]).view(-1, 84, 84)
    edges = torch.cat([grid[:, [0, -1], ::9].flatten(), grid[:, ::9, [0, -1]].flatten(), grid[:, -1, -1]])
    sample = torch.cat([edges, torch.randint(q_values.shape[1], (120,), generator=generator)])
    for state, found in zip(states, q_values, strict=True):
        exact = exact_q_values(policy, ablate_pixels(state, sample, spec))
        result = compare(found[sample], exact)
        assert result.exact, result
        # The ablations do matter: what is compared is not one number over and over.
        assert len(exact[:, 0].unique()) > 50


def test_the_rounding_floor_is_small_and_covers_the_error():
    policy = nature_policy("Freeway", side=44)
    states = played_states(policy.env, 1)
    sample = torch.arange(0, 44 * 44, 19)
    exact = exact_q_values(policy, ablate_pixels(states[0], sample, AblationSpec())) - exact_q_values(policy, states)
    for name in ("incremental", "dense"):
        engine = make_engine(policy, spec=AblationSpec(), engine=name)
        (chunk,) = engine.ablate(states)
        change = chunk.q_values[0].flatten(0, 1)[sample] - chunk.clean_q_values.double()
        assert (change - exact).abs().max() <= engine.rounding_floor
        assert engine.rounding_floor <= 1e-5 * max(1.0, float(exact_q_values(policy, states).abs().max()))
        assert engine.rounding_floor < change.abs().max() / 100


@pytest.mark.parametrize(
    ("number", "count"),
    [(1, 200), pytest.param(2, 84 * 84, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
@pytest.mark.parametrize("path", REFERENCE_POLICIES, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_trained_policies_are_exact(path, number, count):
    policy = load_policy(path)
    states = played_states(policy.env, number)
    pixels = torch.randperm(policy.env.height * policy.env.width, generator=torch.Generator().manual_seed(0))[:count]
    chunks = list(make_engine(policy, spec=AblationSpec(), engine="incremental").ablate(states))
    found = torch.cat([chunk.q_values for chunk in chunks]).flatten(1, 2)[:, pixels]  # [2, count, A]
    assert len(states) == len(found) == number
    for state, of_state in zip(states, found, strict=True):
        parts = [exact_q_values(policy, ablate_pixels(state, part, AblationSpec())) for part in pixels.split(256)]
        exact = torch.cat(parts)
        result = compare(of_state, exact)
        assert result.exact, result
        assert len(exact[:, 0].unique()) > 50, "no pixel of this state matters"
