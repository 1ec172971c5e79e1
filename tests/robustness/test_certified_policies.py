"""Many points and attacks against the bounds of untrained networks and of all reference policies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_policies import FREEWAY, toy_policy

from nrmap.atari.envs import EnvSpec, SeededVectorEnv
from nrmap.policies.network import frozen
from nrmap.policies.policy import Policy, load_policy
from nrmap.robustness.attacks import StateNoise, attack_named
from nrmap.robustness.bounds import margins_of
from nrmap.robustness.certify import IntervalCertifier


def game_states(policy: Policy, count: int) -> torch.Tensor:
    """Scaled states of the policy's game under random actions, five steps apart."""
    env, rng, start = SeededVectorEnv(policy.env, 1), np.random.default_rng(0), np.ones(1, dtype=bool)
    frames, _ = env.begin(start, [7])
    kept = []
    for step in range(5 * count):
        if step % 5 == 0:
            kept.append(frames)
        transition = env.step(rng.integers(env.num_actions, size=1))
        frames = env.begin(start, [step])[0] if transition.ended[0] else transition.states
    return torch.from_numpy(np.concatenate(kept)).float() / 255


REFERENCE_POLICIES = sorted(Path(__file__).parents[2].glob("outputs/reference/**/*.safetensors"))


def attacked_policies() -> list[Policy]:
    untrained = toy_policy(EnvSpec("Freeway", 84, 84))
    steady = toy_policy(FREEWAY)
    for parameter in steady.network.features.parameters():
        parameter.mul_(0.1)
    return [*map(load_policy, REFERENCE_POLICIES), untrained, steady]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("attack", ["pgd-50", "fgsm", "noise"])
def test_no_attack_flips_what_is_certified(attack):
    proven = 0
    for policy in attacked_policies():
        certifier, states = IntervalCertifier(policy.network), game_states(policy, count=24)
        for attack_epsilon in (1 / 255, 3 / 255):
            noise = StateNoise(0, np.zeros(len(states), dtype=np.int64), np.arange(len(states)))
            result = attack_named(attack)(frozen(policy.network), states, attack_epsilon=attack_epsilon, noise=noise)
            certified = certifier(states, result.clean_actions, attack_epsilon)
            assert not (certified & result.flipped).any()
            bounds = margins_of(certifier.difference_bounds(states, attack_epsilon), result.clean_actions)
            assert (result.margins <= bounds).all()
            possible = certifier.possible_actions(states, attack_epsilon)
            assert possible.gather(1, result.actions[:, None]).all()
            proven += int(certified.sum())
    assert proven > 0
