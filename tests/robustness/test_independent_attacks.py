"""Our attack and certificates against the attacks of another library (ART) on reference policies.

AutoPGD (Croce and Hein 2020) adapts its step sizes and restarts; Square uses no gradients, so it
would reveal useless gradients.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
from numpy.typing import NDArray
from toy_policies import FREEWAY, toy_policy

from bench.independent_attacks import AutoPgdPlayer, main
from nrmap.play.states import collect_states
from nrmap.policies.network import STATE_SCALE, frozen
from nrmap.policies.policy import load_policy, save_policy
from nrmap.robustness.attacks import StateNoise, attack_named
from nrmap.robustness.bounds import margins_of
from nrmap.robustness.certify import IntervalCertifier

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference" / "quick" / "Freeway"
NUM_STATES = 32
ATTACK_EPSILON = 1 / 255
Mask = NDArray[np.bool_]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def flips(name: str) -> tuple[Mask, Mask, Mask]:
    """Masks [N] of the states that our PGD-50 flips, that any of ART's attacks flips, and that are certified."""
    policy = load_policy(REFERENCE / name / "policy.safetensors")
    sample = collect_states(policy, num_states=NUM_STATES, episodes=8, run_seed=77)
    states = torch.from_numpy(sample.states).float() * STATE_SCALE  # [N, C, H, W]
    noise = StateNoise(0, sample.episode_ids, sample.positions)
    ours = attack_named("pgd-50")(frozen(policy.network), states, attack_epsilon=ATTACK_EPSILON, noise=noise)
    certifier = IntervalCertifier(policy.network)
    certified = certifier(states, ours.clean_actions, ATTACK_EPSILON)
    bounds = margins_of(certifier.difference_bounds(states, ATTACK_EPSILON), ours.clean_actions)
    assert (ours.margins <= bounds).all()
    assert certifier.possible_actions(states, ATTACK_EPSILON).gather(1, ours.actions[:, None]).all()
    actions = ours.clean_actions.numpy()
    classifier = AutoPgdPlayer(policy, attack_epsilon=ATTACK_EPSILON, steps=1).classifier
    ball: dict[str, Any] = {"norm": np.inf, "eps": ATTACK_EPSILON, "batch_size": NUM_STATES, "verbose": False}
    steps: dict[str, Any] = {"eps_step": 2 * ATTACK_EPSILON, "max_iter": 100, "nb_random_init": 3}
    attacks: list[Callable[..., NDArray[np.float32]]] = [
        AutoProjectedGradientDescent(classifier, loss_type="cross_entropy", **steps, **ball).generate,
        AutoProjectedGradientDescent(classifier, loss_type="difference_logits_ratio", **steps, **ball).generate,
        SquareAttack(classifier, max_iter=500, **ball).generate,
    ]
    theirs = np.zeros(NUM_STATES, dtype=bool)
    np.random.seed(0)  # ART draws from numpy's global generator
    for attack in attacks:
        perturbed = torch.from_numpy(attack(states.numpy(), actions))
        assert (perturbed - states).abs().max() <= ATTACK_EPSILON + 1e-6
        with torch.no_grad():
            theirs |= policy.network(perturbed).argmax(dim=1).numpy() != actions
    return ours.flipped.numpy(), theirs, certified.numpy()


@pytest.mark.parametrize(
    "name", [*(f"sa_ddqn/seed{seed}" for seed in range(5)), "sa_ddqn_ibp/seed0", "sa_ddqn_ibp/seed1"]
)
def test_robust_policies_are_as_robust_against_attacks_that_are_not_ours(name: str) -> None:
    ours, theirs, certified = flips(name)
    assert not ((theirs | ours) & certified).any()
    assert (theirs & ~ours).sum() <= 1
    assert theirs.mean() <= 0.2


def test_a_policy_that_is_not_robust_is_not_so_against_them_either() -> None:
    ours, theirs, certified = flips("ddqn/seed0")
    assert not certified.any()
    assert min(ours.mean(), theirs.mean()) >= 0.4


@pytest.mark.parametrize(("epsilon", "least", "most"), [(0.2, 90, 100), (1e-6, 0, 0)])
def test_their_attack_is_played_within_its_radius(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    epsilon: float, least: float, most: float,
) -> None:  # fmt: skip
    save_policy(tmp_path / "policy.safetensors", toy_policy(FREEWAY))
    options = ["--episodes", "1", "--steps", "5", "--attack-epsilon", str(epsilon)]
    monkeypatch.setattr(sys, "argv", ["bench.independent_attacks", str(tmp_path / "policy.safetensors"), *options])
    main()
    *_, row = capsys.readouterr().out.splitlines()
    assert least <= float(row.split("|")[-2].strip().rstrip("%")) <= most
