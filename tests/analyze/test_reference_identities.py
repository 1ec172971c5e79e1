"""Published policies keep their hashes, and see what they saw."""

import numpy as np
import torch
from commands import ROOT

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.policies.policy import load_policy, save_policy

REFERENCE = ROOT / "outputs" / "reference"
POLICIES = sorted(REFERENCE.glob("**/policy.safetensors"))


def test_a_reference_policy_that_is_saved_again_keeps_its_hash(tmp_path):
    policy = load_policy(POLICIES[0])
    save_policy(tmp_path / "again.safetensors", policy, torch.float16)
    assert load_policy(tmp_path / "again.safetensors").sha256 == policy.sha256


def test_our_own_eyes_see_what_the_published_policies_saw():
    """The checksum was made before EnvSpec had other eyes."""
    env = SeededVectorEnv(EnvSpec("Breakout", 84, 84, frame_stack=2), 2)
    states, _ = env.begin(np.ones(2, dtype=bool), [5, 6])
    generator, total = np.random.default_rng(0), int(states.sum())
    for _ in range(100):
        total = (31 * total + int(env.step(generator.integers(4, size=2)).states.sum())) % 2**31
    assert total == 703450353
