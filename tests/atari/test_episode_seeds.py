"""Episode seeds: different starts, and skipped seeds only repeat earlier episodes."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from toy_policies import FREEWAY, toy_policy

from nrmap.atari.envs import SeededVectorEnv
from nrmap.atari.episode_seeds import (
    EVALUATION_STREAM,
    TRAINING_STREAM,
    VALIDATION_STREAM,
    episode_seed,
    episode_seeds,
)
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


def test_seeds_differ_between_runs_streams_environments_and_episodes():
    seeds = [
        episode_seed(run, stream, env, episode)
        for run in range(5)
        for stream in (TRAINING_STREAM, EVALUATION_STREAM, VALIDATION_STREAM)
        for env in range(8)
        for episode in range(50)
    ]
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    assert len(set(seeds)) == len(seeds)  # 6000 draws out of 2^31 collide about 0.008 times on average
