"""Published policies, their evaluations and baselines keep their identities, so that nothing is repeated."""

import numpy as np
import pytest
import torch
from commands import ROOT

from analyze.study import baselines_settings
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.policies.policy import load_policy, save_policy
from nrmap.support.files import read_json
from nrmap.support.identity import stage_identity

REFERENCE = ROOT / "outputs" / "reference"
POLICIES = sorted(REFERENCE.glob("**/policy.safetensors"))
# The first characters of each policy's sha256 and identity.
PINNED = {
    "quick/Freeway/ddqn/seed0": ("9cecfe58ccf8", "0c87b55d67ef"),
    "quick/Freeway/ddqn/seed1": ("b352eed31064", "d89d62710ded"),
    "quick/Freeway/ddqn/seed2": ("653031e9fd86", "9e73156c89fe"),
    "quick/Freeway/ddqn/seed3": ("3672eb98731b", "91ee399ad1b3"),
    "quick/Freeway/ddqn/seed4": ("6bb22209f920", "3d2538be1523"),
    "quick/Freeway/ddqn_continued/seed0": ("91126b21e107", "eff65c09f099"),
    "quick/Freeway/sa_ddqn/seed0": ("45080ff63c67", "159bfbe480c6"),
    "quick/Freeway/sa_ddqn/seed1": ("bbda86c764f3", "fdca044e9da8"),
    "quick/Freeway/sa_ddqn/seed2": ("efcf3557bd84", "aaa4be3f5874"),
    "quick/Freeway/sa_ddqn/seed3": ("b8066267108c", "a00e41f22dcd"),
    "quick/Freeway/sa_ddqn/seed4": ("684d0620d5ef", "8a6373b79be3"),
    "quick/Freeway/sa_ddqn_ibp/seed0": ("87c98db4d019", "b3317f9f9225"),
    "quick/Freeway/sa_ddqn_ibp/seed1": ("acee33d10250", "0ce20672527a"),
    "quick/Pong/ddqn/seed0": ("fcbb060f4e60", "cc1fd8e673e7"),
    "standard/Freeway/ddqn/seed0": ("1b07bff2be9f", "7df8f41d3d5f"),
    "standard/Freeway/ddqn_continued/seed0": ("5d69ecfc5e22", "61f1609a249c"),
    "standard/Freeway/sa_ddqn/seed0": ("d904944bef5b", "7ffa93c97d53"),
    "standard/Freeway/sa_ddqn_ibp/seed0": ("6627d1677e43", "f4495de1e2c6"),
}


def test_the_pinned_policies_are_there():
    found = {}
    for path in POLICIES:
        policy = load_policy(path)
        found[path.parent.relative_to(REFERENCE).as_posix()] = (str(policy.sha256)[:12], policy.card.identity)
    assert PINNED.items() <= found.items()


def test_a_reference_policy_that_is_saved_again_keeps_its_hash(tmp_path):
    policy = load_policy(POLICIES[0])
    save_policy(tmp_path / "again.safetensors", policy, torch.float16)
    assert load_policy(tmp_path / "again.safetensors").sha256 == policy.sha256


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("**/baseline/*/metrics.json")), ids=str)
def test_published_baselines_are_found(path):
    settings = read_json(path)["settings"]
    assert baselines_settings(EnvSpec(**settings["env"]), settings) == settings
    assert stage_identity("baselines", **settings) == path.parent.name


def test_our_own_eyes_see_what_the_published_policies_saw():
    """The checksum was made before EnvSpec had other eyes."""
    env = SeededVectorEnv(EnvSpec("Breakout", 84, 84, frame_stack=2), 2)
    states, _ = env.begin(np.ones(2, dtype=bool), [5, 6])
    generator, total = np.random.default_rng(0), int(states.sum())
    for _ in range(100):
        total = (31 * total + int(env.step(generator.integers(4, size=2)).states.sum())) % 2**31
    assert total == 703450353
