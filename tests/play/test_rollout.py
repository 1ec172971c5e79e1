"""Whole episodes, one per seed, independent of the number of environments."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_policies import BREAKOUT, FREEWAY, toy_policy

from nrmap.atari.envs import SeededVectorEnv
from nrmap.atari.episode_seeds import episode_seeds
from nrmap.atari.eyes import env_with_eyes, frame_of
from nrmap.play import rollout
from nrmap.play.rollout import env_of, even_positions, greedy, play, replay_rgb, replay_states
from nrmap.policies.agent import Agent
from nrmap.support.errors import NrmapError


@pytest.fixture(scope="module")
def breakout_policy():
    return toy_policy(BREAKOUT)


SPACE_INVADERS = replace(BREAKOUT, game="SpaceInvaders", max_agent_steps=150)


def constant(action):
    return lambda states, episodes, steps: np.full(len(states), action)


def indifferent(actions):
    return lambda states: torch.zeros(len(states), actions)


def play_by_hand(policy, seed):
    """One episode in one environment, state by state."""
    env = SeededVectorEnv(policy.env, 1)
    states, _ = env.begin(np.ones(1, dtype=bool), [seed])
    seen, actions, rewards = [], [], []
    while True:
        seen.append(states[0])
        q_values = policy(torch.from_numpy(states))[0].tolist()
        actions.append(q_values.index(max(q_values)))
        transition = env.step(np.array(actions[-1:]))
        rewards.append(float(transition.rewards[0]))
        states = transition.states
        if transition.ended[0]:
            return seen, actions, rewards, transition.terminated[0]


@pytest.fixture(scope="module")
def by_hand(breakout_policy):
    """The policy's first four episodes of run 6, each played alone; three terminate, one is truncated."""
    return [play_by_hand(breakout_policy, seed) for seed in episode_seeds(breakout_policy.env, 6, 4)]


@pytest.fixture(scope="module")
def played(breakout_policy):
    """The same episodes played two at a time."""
    return play(greedy(breakout_policy), breakout_policy.env, episode_seeds(breakout_policy.env, 6, 4), num_envs=2)


def test_episodes_do_not_depend_on_how_many_are_played_at_a_time(breakout_policy, by_hand, played):
    """Breakout's episodes have different lengths, so environments go on to another episode at different times."""
    seeds = episode_seeds(breakout_policy.env, run_seed=6, episodes=4)
    for episodes in (played, play(greedy(breakout_policy), breakout_policy.env, seeds, num_envs=5)):
        assert [episode.seed for episode in episodes] == list(seeds)
        assert len({episode.length for episode in episodes}) == 4
        assert {episode.truncated for episode in episodes} == {True, False}
        for episode, (_, *expected) in zip(episodes, by_hand, strict=True):
            assert [episode.actions.tolist(), episode.rewards.tolist(), episode.terminated] == expected
            assert episode.truncated != episode.terminated
            assert len(set(episode.actions.tolist())) > 1
        assert sum(episode.total_reward for episode in episodes) > 0


def test_the_first_of_equal_actions_is_taken():
    agent = Agent(indifferent(3), FREEWAY.state_shape, env=FREEWAY)
    (episode,) = play(greedy(agent), FREEWAY, [1], num_envs=1)
    assert set(episode.actions.tolist()) == {0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: play(constant(0), FREEWAY, [], num_envs=1), "no episodes"),
        (lambda: play(constant(0), FREEWAY, [1], num_envs=0), "num_envs=0"),
        (lambda: play(constant(3), FREEWAY, [1], num_envs=1), "action 3: Freeway has actions 0 to 2"),
        (lambda: even_positions([5, 5, 5], 2), "num_states=2.*3 episodes"),
        (lambda: even_positions([5, 2], 8), "episode 1 has only 2 steps: cannot take 4"),
        (lambda: replay_rgb(FREEWAY, 1, [0, 0], [2]), "position 2: the episode has steps 0 to 1"),
        (lambda: replay_rgb(FREEWAY, 1, [3, 0], [1]), "action 3: Freeway has actions 0 to 2"),
        (lambda: replay_rgb(FREEWAY, 1, [0] * 60, [59]), "ends after 40 steps"),
        (
            lambda: env_of(Agent(indifferent(4), FREEWAY.state_shape, env=FREEWAY)),
            "scores 4 actions, but Freeway has 3",
        ),
        (lambda: env_of(Agent(indifferent(3), (1, 50, 42), env=FREEWAY)), r"takes states \(1, 50, 42\), but those of"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(NrmapError, match=message):
        call()


@given(st.lists(st.integers(0, 300), min_size=1, max_size=12), st.integers(0, 200))
def test_positions_are_spread_evenly(spare, extra):
    num_states = len(spare) + extra
    lengths = [steps + -(-num_states // len(spare)) for steps in spare]
    positions = even_positions(lengths, num_states)
    counts = [len(steps) for steps in positions]
    assert sum(counts) == num_states
    assert max(counts) - min(counts) <= 1
    for episode, (steps, length) in enumerate(zip(positions, lengths, strict=True)):
        bits = f"{episode:b}"
        place = (Fraction(1, 2) + Fraction(int(bits[::-1], 2), 2 ** len(bits))) % 1  # van der Corput, reversed bits
        # That place of the k-th of equal parts, rounded down to a step of the episode.
        assert steps.tolist() == [floor((k + place) * Fraction(length, len(steps))) for k in range(len(steps))]
        assert len(set(steps.tolist())) == len(steps)
        assert 0 <= steps[0] <= steps[-1] < length


def test_replayed_states_are_those_that_were_seen(breakout_policy, by_hand, played):
    positions = even_positions([episode.length for episode in played], 10)
    states = replay_states(breakout_policy.env, played, positions, num_envs=3)
    expected = [seen[step] for (seen, *_), steps in zip(by_hand, positions, strict=True) for step in steps]
    np.testing.assert_array_equal(states, np.array(expected))


def test_an_episode_that_does_not_come_back_is_reported():
    (episode,) = play(constant(1), SPACE_INVADERS, [1], num_envs=1)
    rewards, actions = episode.rewards, episode.actions
    assert rewards.any()
    replay_states(SPACE_INVADERS, [episode], [np.array([5])], num_envs=1)
    for changed in (
        replace(episode, rewards=np.roll(rewards, 1)),
        replace(episode, rewards=rewards[:-1], actions=actions[:-1]),
        replace(episode, rewards=np.append(rewards, 0), actions=np.append(actions, 0)),
    ):
        with pytest.raises(NrmapError, match=r"episode 0 \(seed 1\) gives other rewards"):
            replay_states(SPACE_INVADERS, [changed], [np.array([5])], num_envs=1)


def luminance(screens):
    return screens.astype(float) @ [0.299, 0.587, 0.114]


def test_colour_screens_are_those_of_the_same_episode(breakout_policy):
    spec = replace(breakout_policy.env, height=210, width=160)
    (episode,) = play(greedy(breakout_policy), breakout_policy.env, [8], num_envs=1)
    positions = [0, 1, 17, episode.length - 1, 17]
    screens = replay_rgb(breakout_policy.env, episode.seed, episode.actions, positions)
    assert (screens.shape, screens.dtype) == ((5, 210, 160, 3), np.uint8)
    grey = replay_states(spec, [episode], [np.array(positions)], num_envs=1)[:, 0]
    # The emulator takes the maximum of two screens in each colour or in grey, which differ where something moved.
    differs = np.abs(luminance(screens) - grey) > 2
    assert differs.mean(axis=(1, 2)).max() < 0.01
    shifted = replay_rgb(breakout_policy.env, episode.seed, episode.actions, [18])
    assert (np.abs(luminance(shifted) - grey[2]) > 2).sum() > differs[2].sum()
    np.testing.assert_array_equal(screens[2], screens[4])
    spread = screens.max(axis=3).astype(int) - screens.min(axis=3)
    assert spread.max() > 50, "the screens are grey"


def test_screen_sizes_are_the_games_own():
    shapes = [replay_rgb(replace(FREEWAY, game=game), 0, [0], [0]).shape for game in ("Freeway", "AirRaid")]
    assert shapes == [(1, 210, 160, 3), (1, 250, 160, 3)]


def test_unfinished_episodes_are_expected_to_last_as_long_as_three_of_four_others_or_a_bit_more():
    assert rollout.expected_steps([], [100, 0], limit=500) is None
    # The quartile is 115, unless 15% more than the steps so far is more, or the limit is less.
    assert rollout.expected_steps([90, 100, 110, 130], [0, 50, 200, 490], limit=500) == 430 + 115 + 115 + 230 + 500


def test_colour_screens_of_other_eyes_are_what_their_states_were_made_of():
    spec = env_with_eyes("Breakout", "sb3", max_agent_steps=40)
    env = SeededVectorEnv(spec, 1)
    states = [env.begin(np.ones(1, dtype=bool), [3])[0][0]]
    actions = np.random.default_rng(0).integers(4, size=30)
    for action in actions:
        states.append(env.step(np.array([action])).states[0])
    screens = replay_rgb(spec, 3, actions, [0, 7, 29])
    for screen, position in zip(screens, (0, 7, 29), strict=True):
        np.testing.assert_array_equal(frame_of(screen, spec), states[position][-1])
