"""Certificates in roll-outs: certified rate, greedy worst-case return, skipped attacks."""

import numpy as np
import pytest
import torch
from summed_networks import lead_of
from toy_policies import FREEWAY, toy_policy

from nrmap.atari.episode_seeds import episode_seeds
from nrmap.play.evaluation import WORST_CASE, AttackRun, EvaluationSettings, evaluate
from nrmap.play.players import AttackedPlayer
from nrmap.play.rollout import play
from nrmap.policies.policy import Policy
from nrmap.robustness.attacks import attack_named
from nrmap.robustness.certify import IntervalCertifier
from nrmap.support.errors import NrmapError
from nrmap.support.records import select

# A toy policy's weights are those of an untrained network, whose bounds grow a hundredfold at every layer.
RADIUS = 0.003 / 255


@pytest.fixture(scope="module")
def policy() -> Policy:
    return toy_policy(FREEWAY)


def test_the_worst_case_is_played_as_by_hand(policy):
    """Against a roll-out written by hand with one environment."""
    certifier = IntervalCertifier(policy.network)
    run = EvaluationSettings(
        episodes=2, run_seed=1, certify_epsilons=(RADIUS,), attack_runs=(AttackRun(WORST_CASE, RADIUS, 2),)
    )
    records = evaluate(policy, run, num_envs=2, certify=certifier)
    others, certified = [], []

    def worst(states, numbers, steps):
        (state,) = torch.from_numpy(states).float() / 255
        (q_values,) = policy(torch.from_numpy(states)).tolist()
        bounds = certifier.difference_bounds(state[None], RADIUS)[0]
        actions = range(len(q_values))
        left = [a for a in actions if all(bounds[a, b] >= 0 for b in actions if b != a)]
        chosen = min(left, key=lambda action: q_values[action])
        others.append(chosen != q_values.index(max(q_values)))
        return np.array([chosen])

    def greedy(states, numbers, steps):
        seen = torch.from_numpy(states)
        actions = policy(seen).argmax(dim=1)
        certified.extend(certifier(seen.float() / 255, actions, RADIUS).tolist())
        return actions.numpy()

    by_hand = play(worst, policy.env, episode_seeds(policy.env, 1, 2), num_envs=1)
    ours = select(records, attack=WORST_CASE, attack_epsilon=RADIUS)
    assert [r.value for r in select(ours, metric="return")] == [episode.total_reward for episode in by_hand]
    (flips,) = select(ours, metric="flip_rate")
    assert flips.value == pytest.approx(np.mean(others))
    assert 0 < flips.value < 1, "the bound should decide something in some states and nothing in others"
    play(greedy, policy.env, episode_seeds(policy.env, 1, 2), num_envs=1)
    (rate,) = select(records, metric="certified_rate", attack_epsilon=RADIUS)
    assert rate.value == pytest.approx(np.mean(certified))
    assert 0 < rate.value < 1


def test_proofs_save_attacks_and_change_no_record():
    """Some states are certified and others flip: equal records with fewer attacked states."""
    policy = toy_policy(FREEWAY)
    lead_of(policy.network, 1, 1.0)
    run = EvaluationSettings(episodes=2, run_seed=1, attack_runs=(AttackRun("pgd-3", RADIUS, 2),))
    plain = evaluate(policy, run, num_envs=2)
    assert evaluate(policy, run, num_envs=2, certify=IntervalCertifier(policy.network)) == plain
    (flips,) = select(plain, metric="flip_rate")
    assert flips.value > 0

    attacked, seen = [], []

    def watched(q_values, states, *, attack_epsilon, noise):
        attacked.append(len(states))
        return attack_named("pgd-3")(q_values, states, attack_epsilon=attack_epsilon, noise=noise)

    def certify(states, actions, attack_epsilon):
        proven = IntervalCertifier(policy.network)(states, actions, attack_epsilon)
        seen.extend(proven.tolist())
        return proven

    play(AttackedPlayer(policy, watched, RADIUS, 1, certify=certify), FREEWAY, episode_seeds(FREEWAY, 1, 2), num_envs=2)
    assert 0 < sum(attacked) == seen.count(False) < len(seen)


def test_a_worst_case_needs_something_that_certifies(policy):
    run = EvaluationSettings(episodes=1, run_seed=1, attack_runs=(AttackRun(WORST_CASE, RADIUS, 1),))
    with pytest.raises(NrmapError, match="greedy_worst_case is to be played, but nothing certifies"):
        evaluate(policy, run, num_envs=1)
    with pytest.raises(NrmapError, match="certify_epsilons are set, but nothing certifies"):
        evaluate(policy, EvaluationSettings(1, 1, certify_epsilons=(RADIUS,)), num_envs=1)
    with pytest.raises(NrmapError, match="unknown attack 'worst_case'"):
        AttackRun("worst_case", RADIUS, 1)
