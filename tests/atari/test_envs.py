"""The seeded vector environment against a single emulator stepped by hand."""

from dataclasses import replace

import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms

from nrmap.atari.envs import (
    EVALUATION_STREAM,
    TRAINING_STREAM,
    VALIDATION_STREAM,
    EnvSpec,
    SeededVectorEnv,
    episode_seed,
)
from nrmap.atari.games import rom_id

NATIVE = EnvSpec("Breakout", 210, 160, noop_max=0)
SMALL = EnvSpec("Freeway", 42, 42)
ALL = np.ones(1, dtype=bool)


class HandSteppedGame:
    """One emulator with the papers' preprocessing: frame skip, maximum of the last two screens, summed reward."""

    def __init__(self, spec: EnvSpec, seed: int) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setInt("random_seed", seed)
        self.ale.setFloat("repeat_action_probability", spec.sticky_actions)
        self.ale.loadROM(roms.get_rom_path(rom_id(spec.game)))
        self.actions = self.ale.getLegalActionSet() if spec.full_action_space else self.ale.getMinimalActionSet()
        self.frame_skip = spec.frame_skip
        self.ale.reset_game()
        fire = [action for action in self.actions if action.name == "FIRE"]
        if fire:
            self.ale.act(fire[0])

    @property
    def names(self):
        return tuple(action.name for action in self.actions)

    def step(self, action):
        reward, screens = 0, [self.ale.getScreenGrayscale()]
        for _ in range(self.frame_skip):
            reward += self.ale.act(self.actions[action])
            screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                break
        return np.maximum(screens[-1], screens[-2]), reward


@pytest.mark.parametrize(
    "spec",
    [
        NATIVE,
        replace(NATIVE, game="Freeway", frame_skip=3),
        replace(NATIVE, game="SpaceInvaders"),
        replace(NATIVE, game="RoadRunner", full_action_space=True),
    ],
    ids=lambda spec: spec.game,
)
def test_frames_rewards_and_game_over_are_the_emulators_own(spec):
    env, game = SeededVectorEnv(spec, 1), HandSteppedGame(spec, seed=7)
    assert env.action_names == game.names
    assert env.num_actions == len(game.names)
    states, _ = env.begin(ALL, [7])
    np.testing.assert_array_equal(states[0, 0], game.ale.getScreenGrayscale())
    generator = np.random.default_rng(0)
    rewards, steps_compared = [], 0
    for _ in range(250):
        action = int(generator.integers(env.num_actions))
        transition = env.step(np.array([action]))
        screen, reward = game.step(action)
        assert transition.rewards[0] == reward
        assert transition.terminated[0] == game.ale.game_over()
        assert transition.lives[0] == game.ale.lives()
        rewards.append(reward)
        if transition.ended[0]:
            break
        np.testing.assert_array_equal(transition.states[0, 0], screen)
        steps_compared += 1
    assert steps_compared > 50
    if spec.game == "SpaceInvaders":
        assert max(rewards) > 1, "no reward above 1 was met, so this run cannot see clipping"


def area_weights(size_in: int, size_out: int) -> np.ndarray:
    """[size_out, size_in]: fraction of each input pixel in each output pixel; rows sum to 1."""
    weights = np.zeros((size_out, size_in))
    scale = size_in / size_out
    for out in range(size_out):
        for pixel in range(size_in):
            weights[out, pixel] = max(0.0, min((out + 1) * scale, pixel + 1) - max(out * scale, pixel))
    return weights / scale


def test_states_are_the_screen_averaged_over_areas():
    """States are neither cropped nor transposed."""
    spec = replace(NATIVE, game="Freeway", height=70, width=84)
    big, small = SeededVectorEnv(replace(spec, height=210, width=160), 1), SeededVectorEnv(spec, 1)
    screens, _ = big.begin(ALL, [3])
    states, _ = small.begin(ALL, [3])
    for _ in range(20):
        expected = area_weights(210, 70) @ screens[0, 0].astype(float) @ area_weights(160, 84).T
        assert np.abs(expected - states[0, 0]).max() <= 1
        screens, states = big.step(np.array([1])).states, small.step(np.array([1])).states


def rollout_frames(env, index, seed, actions):
    """States and rewards of one environment while the others act at random."""
    others = np.random.default_rng(seed + index)
    mask = np.zeros(env.num_envs, dtype=bool)
    mask[index] = True
    states, _ = env.begin(mask, [seed])
    frames, rewards = [states[index].copy()], []
    for action in actions:
        every = others.integers(env.num_actions, size=env.num_envs)
        every[index] = action
        transition = env.step(every)
        frames.append(transition.states[index].copy())
        rewards.append(transition.rewards[index])
    return np.array(frames), np.array(rewards)


@pytest.mark.parametrize("sticky_actions", [0.0, 0.25])
def test_an_episode_is_its_seed_and_its_actions(sticky_actions):
    spec = replace(SMALL, game="Breakout", sticky_actions=sticky_actions, frame_stack=2)
    actions = np.random.default_rng(1).integers(4, size=60)
    alone = SeededVectorEnv(spec, 1)
    frames, rewards = rollout_frames(alone, 0, 11, actions)
    other_frames, _ = rollout_frames(alone, 0, 12, actions)
    assert not np.array_equal(frames, other_frames)
    crowd = SeededVectorEnv(spec, 3)
    crowd.begin(np.ones(3, dtype=bool), [5, 6, 7])
    for _ in range(9):
        crowd.step(np.array([1, 2, 3]))
    again, rewards_again = rollout_frames(crowd, 2, 11, actions)
    np.testing.assert_array_equal(frames, again)
    np.testing.assert_array_equal(rewards, rewards_again)


def test_beginning_one_environment_leaves_the_others_alone():
    together, alone = SeededVectorEnv(SMALL, 2), SeededVectorEnv(SMALL, 1)
    together.begin(np.ones(2, dtype=bool), [1, 2])
    expected, _ = alone.begin(ALL, [2])
    for step in range(12):
        if step == 6:
            states, _ = together.begin(np.array([True, False]), [9])
            np.testing.assert_array_equal(states[1], expected[0])
        transition = together.step(np.array([2, 1]))
        expected = alone.step(np.array([1])).states
        np.testing.assert_array_equal(transition.states[1], expected[0])


@pytest.mark.parametrize("noop_max", [0, 30])
def test_the_step_limit_truncates_and_does_not_terminate(noop_max):
    env = SeededVectorEnv(replace(SMALL, max_agent_steps=12, noop_max=noop_max), 2)
    env.begin(np.ones(2, dtype=bool), [1, 2])
    lengths = np.zeros(2, dtype=int)
    for step in range(1, 13):
        transition = env.step(np.zeros(2, dtype=int))
        assert not transition.terminated.any()
        lengths[transition.truncated & (lengths == 0)] = step
        if transition.ended.any():
            env.begin(transition.ended, [0] * int(transition.ended.sum()))
    np.testing.assert_array_equal(lengths, 12)


def test_a_lost_life_is_not_the_end():
    env = SeededVectorEnv(replace(SMALL, game="Breakout"), 1)
    _, lives_before = env.begin(ALL, [1])
    lives = [int(lives_before[0])]
    for step in range(400):
        transition = env.step(np.array([1 if step % 5 == 0 else 0]))
        lives.append(int(transition.lives[0]))
        if transition.ended[0]:
            break
        assert lives[-1] > 0
    assert transition.terminated[0]
    assert sorted(set(lives), reverse=True) == [5, 4, 3, 2, 1, 0]


def test_a_stack_is_the_last_screens_oldest_first():
    stacked, single = SeededVectorEnv(replace(SMALL, frame_stack=3), 1), SeededVectorEnv(SMALL, 1)
    stacked.begin(ALL, [4])
    screens = [single.begin(ALL, [4])[0][0, 0]]
    for step in range(10):
        states = stacked.step(np.array([1])).states
        screens.append(single.step(np.array([1])).states[0, 0])
        if step >= 2:
            np.testing.assert_array_equal(states[0], np.array(screens[-3:]))


def test_stepping_an_ended_episode_is_caught():
    env = SeededVectorEnv(replace(SMALL, max_agent_steps=1, noop_max=0), 1)
    env.begin(ALL, [1])
    assert env.step(np.array([0])).ended[0]
    with pytest.raises(AssertionError, match="call begin before send"):
        env.step(np.array([0]))


def test_seeds_differ_between_runs_streams_environments_and_episodes():
    seeds = [
        episode_seed(run, stream, env, episode)
        for run in range(5)
        for stream in (TRAINING_STREAM, EVALUATION_STREAM, VALIDATION_STREAM)
        for env in range(8)
        for episode in range(50)
    ]
    assert all(0 <= seed < 2**31 for seed in seeds)
    # 6000 draws out of 2^31 collide about 0.008 times on average.
    assert len(set(seeds)) == len(seeds)
    assert episode_seed(3, 1, 4, 1) == episode_seed(3, 1, 4, 1)
