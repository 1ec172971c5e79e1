"""Every preset frame by frame against the wrappers of its library.

stable-baselines3's are run themselves. The others are built here after their published definitions, on
stable-baselines3's copies of the wrappers that they share with it (those of OpenAI's baselines).
"""

from collections import deque
from dataclasses import replace

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common import atari_wrappers as sb3
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage

from nrmap.atari.envs import SeededVectorEnv
from nrmap.atari.eyes import EYES, env_with_eyes
from nrmap.support.errors import NrmapError

gymnasium.register_envs(ale_py)
ONE = np.ones(1, dtype=bool)
LIMIT = 130  # steps of an episode


class Wrapped:
    """A game in the wrappers that all three share, with the emulator's seed and the number of no-ops in our hands."""

    def __init__(self, game: str, *, life_loss: bool = False, fire: bool = True) -> None:
        self.raw = gymnasium.make(f"{game}NoFrameskip-v4")
        self.no_op_reset = sb3.NoopResetEnv(self.raw)
        env = sb3.MaxAndSkipEnv(self.no_op_reset, skip=4)
        env = sb3.EpisodicLifeEnv(env) if life_loss else env
        has_fire = fire and "FIRE" in self.raw.unwrapped.get_action_meanings()
        self.env = sb3.FireResetEnv(env) if has_fire else env

    def reset(self, seed: int, no_ops: int) -> np.ndarray:
        seed_emulator(self.raw, seed)
        self.no_op_reset.override_num_noops = no_ops
        return self.start(self.env.reset()[0])

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        screen, reward, terminated, _, _ = self.env.step(action)
        if terminated and not self.raw.unwrapped.ale.game_over():
            return self.start(self.env.reset()[0]), reward, True
        return self.next(screen), reward, terminated


class CleanRL(Wrapped):
    """cleanrl/dqn_atari.py: ResizeObservation, GrayScaleObservation, FrameStack of gym."""

    def __init__(self, game: str) -> None:
        super().__init__(game, life_loss=True)

    def seen(self, screen: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)

    def start(self, screen: np.ndarray) -> np.ndarray:
        self.frames = deque([self.seen(screen)] * 4, maxlen=4)
        return np.array(self.frames)

    def next(self, screen: np.ndarray) -> np.ndarray:
        self.frames.append(self.seen(screen))
        return np.array(self.frames)


class Pfrl(CleanRL):
    """pfrl/wrappers/atari_wrappers.py, as its examples test: grey first, no FIRE, lives end nothing."""

    def __init__(self, game: str) -> None:
        Wrapped.__init__(self, game, fire=False)

    def seen(self, screen: np.ndarray) -> np.ndarray:
        return cv2.resize(cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY), (84, 84), interpolation=cv2.INTER_AREA)


class Tianshou(Pfrl):
    """examples/atari/atari_wrapper.py: its FireResetEnv returns the screen after FIRE itself."""

    def reset(self, seed: int, no_ops: int) -> np.ndarray:
        super().reset(seed, no_ops)
        return self.start(self.env.step(1)[0])


class SaDqn(Wrapped):
    """common/wrappers.py of SA_DQN: the central crop, one frame, and the swap of ImageToPyTorch."""

    def __init__(self, game: str) -> None:
        super().__init__(game)
        self.shift = {"Pong": 10, "RoadRunner": 20}.get(game, 0)

    def start(self, screen: np.ndarray) -> np.ndarray:
        wide = np.zeros((210, 168), dtype=np.uint8)
        wide[:, 4:164] = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(wide[21 + self.shift : 189 + self.shift], (84, 84), interpolation=cv2.INTER_AREA)
        return np.swapaxes(small[:, :, None], 2, 0)

    next = start


class StableBaselines3:
    """make_atari_env's AtariWrapper, then VecFrameStack and VecTransposeImage."""

    def __init__(self, game: str) -> None:
        self.raw = gymnasium.make(f"{game}NoFrameskip-v4")
        wrapped = sb3.AtariWrapper(self.raw)
        self.env = VecTransposeImage(VecFrameStack(DummyVecEnv([lambda: wrapped]), n_stack=4))
        while not isinstance(wrapped, sb3.NoopResetEnv):
            wrapped = wrapped.env
        self.no_op_reset = wrapped

    def reset(self, seed: int, no_ops: int) -> np.ndarray:
        seed_emulator(self.raw, seed)
        self.no_op_reset.override_num_noops = no_ops
        return self.env.reset()[0]

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        states, rewards, dones, _ = self.env.step(np.array([action]))
        return states[0], rewards[0], dones[0]


class Dopamine:
    """discrete_domains/atari_lib.py: greys of the emulator, a buffer of two, a stack that begins with zeros."""

    def __init__(self, game: str) -> None:
        self.raw = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.25)

    def reset(self, seed: int, no_ops: int) -> np.ndarray:
        assert no_ops == 0
        seed_emulator(self.raw, seed)
        self.raw.reset()
        self.buffer = [self.raw.unwrapped.ale.getScreenGrayscale(), np.zeros((210, 160), dtype=np.uint8)]
        self.state = np.zeros((84, 84, 4), dtype=np.uint8)
        return self.pooled()

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        total = 0.0
        for frame in range(4):
            _, reward, over, _, _ = self.raw.step(action)
            total += reward
            if frame >= 2:
                self.buffer[frame - 2] = self.raw.unwrapped.ale.getScreenGrayscale()
            if over:
                break
        return self.pooled(), total, over

    def pooled(self) -> np.ndarray:
        seen = cv2.resize(np.maximum(*self.buffer), (84, 84), interpolation=cv2.INTER_AREA)
        self.state = np.roll(self.state, -1, axis=-1)
        self.state[..., -1] = seen
        return self.state.transpose(2, 0, 1)


def seed_emulator(env: gymnasium.Env, seed: int) -> None:
    """An emulator takes over its seed when it loads the game."""
    env.unwrapped.ale.setInt("random_seed", seed)
    env.unwrapped.load_game()


ORIGINALS = {
    "sb3": StableBaselines3, "cleanrl": CleanRL, "sa_dqn": SaDqn, "dopamine": Dopamine, "pfrl": Pfrl,
    "tianshou": Tianshou,
}  # fmt: skip
assert {"nrmap", *ORIGINALS} == EYES.keys()
# The steps: beyond LIMIT there is a second episode. Seaquest's first lives last longer.
CASES = [
    ("sb3", "Pong", 100), ("sb3", "Breakout", 160), ("sb3", "Freeway", 100), ("sb3", "Seaquest", 300),
    ("cleanrl", "Breakout", 160), ("cleanrl", "Seaquest", 300),
    ("sa_dqn", "Freeway", 160), ("sa_dqn", "Pong", 100), ("sa_dqn", "RoadRunner", 100), ("sa_dqn", "BankHeist", 100),
    ("dopamine", "Breakout", 100), ("dopamine", "Freeway", 160),
    ("pfrl", "Pong", 160),
    ("tianshou", "Breakout", 160),
]  # fmt: skip


@pytest.mark.parametrize(("eyes", "game", "steps"), CASES)
def test_a_preset_shows_what_the_librarys_own_wrappers_show(eyes, game, steps):
    spec = env_with_eyes(game, eyes, max_agent_steps=LIMIT)
    ours, generator = SeededVectorEnv(spec, 1), np.random.default_rng(0)
    compared, lives_lost, episode = 0, 0, 0
    while compared < steps:
        episode += 1
        theirs = ORIGINALS[eyes](game)
        assert ours.action_names == tuple(theirs.raw.unwrapped.get_action_meanings()[: spec.first_actions or None])
        states, _ = ours.begin(ONE, [episode])
        np.testing.assert_array_equal(states[0], theirs.reset(episode, int(ours.no_op_frames[0])))
        ended, length = False, 0
        while not ended and compared < steps:
            action = int(generator.integers(ours.num_actions))
            step = ours.step(np.array([action]))
            state, reward, done = theirs.step(action)
            ended, length = bool(step.ended[0]), length + 1
            assert done == (step.terminated[0] or step.restarted[0])
            assert step.truncated[0] == (length == LIMIT and not step.terminated[0])
            lives_lost += int(step.restarted[0])
            if not done:
                assert reward == (np.sign(step.rewards[0]) if eyes == "sb3" else step.rewards[0])
            if not ended:
                np.testing.assert_array_equal(step.states[0], state)
            compared += 1
    if eyes in ("sb3", "cleanrl") and game in ("Breakout", "Seaquest"):
        assert lives_lost > 1, "no life was lost: this run says nothing of the restart"


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_transposed_and_newest_first_only_move_what_is_seen(frame_stack):
    spec = env_with_eyes("Pong", "sb3", height=50, width=60, frame_stack=frame_stack)
    moved = replace(spec, height=60, width=50, transposed=True, newest_first=True)
    plain, other = SeededVectorEnv(spec, 1), SeededVectorEnv(moved, 1)
    states, changed = plain.begin(ONE, [3])[0], other.begin(ONE, [3])[0]
    for step in range(20):
        np.testing.assert_array_equal(states, changed[:, ::-1].swapaxes(2, 3))
        torch.from_numpy(changed)  # which refuses views with negative strides
        states, changed = (env.step(np.array([step % 6])).states for env in (plain, other))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eyes": "sb33"}, "unknown eyes 'sb33': did you mean sb3"),
        ({"noop_min": 30}, "noop_min=30: expected less than noop_max=30"),
        ({"grey_after_resize": True}, "grey_after_resize=true: expected false with pooling=grey"),
        # What only the game can tell is named when it starts.
        ({"first_actions": 7}, "first_actions=7: Pong has 6 actions"),
        ({"crop_top": 200, "crop_bottom": 10}, "crop_top=200, crop_bottom=10: Pong's screen has 210 rows"),
    ],
)
def test_eyes_that_contradict_themselves_or_the_game_are_named(fields, message):
    with pytest.raises(NrmapError, match=message):
        SeededVectorEnv(env_with_eyes("Pong", **{"eyes": "nrmap", **fields}), 1)
