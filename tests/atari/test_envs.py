"""The seeded vector environment against a single emulator stepped by hand."""

from dataclasses import replace

import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms

from nrmap.atari import envs
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
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
    assert env.action_names == tuple(action.name for action in game.actions)
    states, _ = env.begin(ALL, [7])
    np.testing.assert_array_equal(states[0, 0], game.ale.getScreenGrayscale())
    generator = np.random.default_rng(0)
    rewards, lives, steps_compared = [], set(), 0
    for _ in range(250):
        action = int(generator.integers(env.num_actions))
        transition = env.step(np.array([action]))
        screen, reward = game.step(action)
        found = transition.rewards[0], transition.terminated[0], transition.lives[0]
        assert found == (reward, game.ale.game_over(), game.ale.lives())
        rewards.append(reward)
        lives.add(int(transition.lives[0]))
        if transition.ended[0]:
            break
        np.testing.assert_array_equal(transition.states[0, 0], screen)
        steps_compared += 1
    assert steps_compared > 50
    assert max(rewards) > 1 or spec.game != "SpaceInvaders", "no reward above 1 was met: clipping would be unseen"
    assert lives == {5, 4, 3, 2, 1, 0} or spec.game != "Breakout", "a lost life is not the end"


def area_weights(size_in: int, size_out: int) -> np.ndarray:
    """[size_out, size_in]: fraction of each input pixel in each output pixel; rows sum to 1."""
    scale, (out, pixel) = size_in / size_out, np.mgrid[:size_out, :size_in]
    return np.maximum(np.minimum((out + 1) * scale, pixel + 1) - np.maximum(out * scale, pixel), 0) / scale


def test_states_are_the_screen_averaged_over_areas():
    """States are neither cropped nor transposed."""
    spec = replace(NATIVE, game="Freeway", height=70, width=84)
    big, small = SeededVectorEnv(replace(spec, height=210, width=160), 1), SeededVectorEnv(spec, 1)
    screens, _ = big.begin(ALL, [3])
    states, _ = small.begin(ALL, [3])
    rows, columns = area_weights(210, 70), area_weights(160, 84)
    for _ in range(20):
        expected = rows @ screens[0, 0].astype(float) @ columns.T
        assert np.abs(expected - states[0, 0]).max() <= 1
        screens, states = big.step(np.array([1])).states, small.step(np.array([1])).states


def rollout_frames(env, index, seed, actions):
    """States and rewards of one environment while the others act at random."""
    others = np.random.default_rng(seed + index)
    mask = np.zeros(env.num_envs, dtype=bool)
    mask[index] = True
    states, _ = env.begin(mask, [seed])
    seen = [(states[index].copy(), 0.0)]
    for action in actions:
        every = others.integers(env.num_actions, size=env.num_envs)
        every[index] = action
        transition = env.step(every)
        seen.append((transition.states[index].copy(), transition.rewards[index]))
    return [np.array(each) for each in zip(*seen, strict=True)]


@pytest.mark.parametrize("changes", [{}, {"sticky_actions": 0.25}, {"fire_reset": "step"}])
def test_an_episode_is_its_seed_and_its_actions(changes):
    """Also in an environment that another episode has left, and one of any seed."""
    spec = replace(SMALL, game="Breakout", frame_stack=2, **changes)
    actions = np.random.default_rng(1).integers(4, size=60)
    alone = SeededVectorEnv(spec, 1)
    frames, rewards = rollout_frames(alone, 0, 11, actions)
    other_frames, _ = rollout_frames(alone, 0, 12, actions)
    assert not np.array_equal(frames, other_frames)
    crowd = SeededVectorEnv(spec, 2)
    crowd.begin(np.ones(2, dtype=bool), [5, 6])
    for _ in range(9):
        crowd.step(np.array([1, 2]))
    crowd.begin(np.array([False, True]), [envs.ANY_SEED])
    crowd.step(np.array([1, 2]))
    for alone_again, crowded in zip((frames, rewards), rollout_frames(crowd, 1, 11, actions), strict=True):
        np.testing.assert_array_equal(alone_again, crowded)
