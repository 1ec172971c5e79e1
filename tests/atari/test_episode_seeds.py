"""Episode seeds: different starts, and skipped seeds only repeat earlier episodes."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from toy_policies import FREEWAY, toy_policy

from nrmap.atari.envs import EVALUATION_STREAM, VALIDATION_STREAM, SeededVectorEnv, episode_seed
from nrmap.atari.episode_seeds import episode_seeds
from nrmap.play.rollout import greedy, play
from nrmap.support.errors import NrmapError

RUN_SEED = 0


def in_a_row(run_seed, count, stream=EVALUATION_STREAM):
    return [episode_seed(run_seed, stream, 0, number) for number in range(count)]


def first_screens(seeds):
    env = SeededVectorEnv(FREEWAY, 1)
    for seed in seeds:
        yield env.begin(np.ones(1, dtype=bool), [seed])[0].tobytes()


@pytest.mark.slow
def test_every_episode_has_a_start_of_its_own():
    # Freeway's cars drive on with every no-op, so starts differ where first screens do.
    candidates, first = in_a_row(RUN_SEED, 16), {}
    for seed, screen in zip(candidates, first_screens(candidates), strict=True):
        first.setdefault(screen, seed)
    expected = list(first.values())
    assert 9 <= len(expected) < 16, "some seed should repeat another's start, or this shows nothing"
    for episodes in (1, 9):
        assert list(episode_seeds(FREEWAY, RUN_SEED, episodes)) == expected[:episodes]
    others = set(episode_seeds(FREEWAY, RUN_SEED, 4, VALIDATION_STREAM))
    assert others <= set(in_a_row(RUN_SEED, 20, VALIDATION_STREAM))
    assert others.isdisjoint(candidates)


def test_an_episode_that_is_passed_over_repeats_an_earlier_one():
    candidates, seen, policy = in_a_row(RUN_SEED, 16), {}, toy_policy(FREEWAY)
    for again, screen in zip(candidates, first_screens(candidates), strict=True):
        if screen in seen:
            break
        seen[screen] = again
    one, other = play(greedy(policy), FREEWAY, [seen[screen], again], num_envs=2)
    assert one.seed != other.seed
    assert (one.actions.tolist(), one.rewards.tolist()) == (other.actions.tolist(), other.rewards.tolist())
    assert len(set(one.actions.tolist())) > 1


def test_where_there_are_too_few_starts_a_warning_says_that_episodes_repeat(caplog, monkeypatch):
    monkeypatch.setattr("nrmap.atari.episode_seeds.TRIES_PER_START", 2)
    with caplog.at_level(logging.WARNING):
        seeds = episode_seeds(replace(FREEWAY, noop_max=1), RUN_SEED, 3)
    assert sorted(seeds) == sorted(in_a_row(RUN_SEED, 3))
    assert "the rest of 3 episodes repeat them" in caplog.text


def test_sticky_actions_make_every_seed_another_episode():
    assert list(episode_seeds(replace(FREEWAY, sticky_actions=0.25), RUN_SEED, 20)) == in_a_row(RUN_SEED, 20)


@pytest.mark.parametrize(("run_seed", "episodes", "message"), [(0, 0, "episodes=0"), (-1, 2, "run_seed=-1")])
def test_wrong_numbers_are_named(run_seed, episodes, message):
    with pytest.raises(NrmapError, match=message):
        episode_seeds(FREEWAY, run_seed, episodes)
