"""Episodes fed to a replay and to a list that never forgets and is read one step at a time."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from nrmap.learning.replay import Batch, Replay, ReplaySpec

DISCOUNT = 0.9


@dataclass
class Episode:
    """T + 1 frames, T actions and what they brought."""

    first_slot: int
    frames: list[np.ndarray]
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminal: list[bool] = field(default_factory=list)
    ended: bool = False

    def stack(self, step: int, frame_stack: int) -> np.ndarray:
        """The state after `step` actions: frames from before the episode are 0."""
        frames = [self.frames[k] if k >= 0 else self.frames[0] * 0 for k in range(step - frame_stack + 1, step + 1)]
        return np.stack(frames)

    def transition(self, step: int, n_step: int, frame_stack: int) -> tuple[np.ndarray, int, float, float, np.ndarray]:
        """(s, a, return, bootstrap discount, s') of the action at `step`, written as the textbook has it."""
        total, power = 0.0, 0
        discount = None
        for k in range(step, step + n_step):
            total += DISCOUNT**power * self.rewards[k]
            power += 1
            if self.terminal[k]:
                discount = 0.0
                break
            if self.ended and k == len(self.actions) - 1:
                break
        if discount is None:
            discount = DISCOUNT**power
        return (
            self.stack(step, frame_stack),
            self.actions[step],
            total,
            discount,
            self.stack(step + power, frame_stack),
        )


class EpisodeLists:
    """The oracle: every environment's episodes, each frame a number of its own."""

    def __init__(self, num_envs: int) -> None:
        self.episodes: list[list[Episode]] = [[] for _ in range(num_envs)]
        self.slots = [0] * num_envs
        self.frames = 0

    def new_frame(self) -> np.ndarray:
        """[1, 3], different from all others and never 0."""
        self.frames += 1
        return np.frombuffer(self.frames.to_bytes(3, "big"), dtype=np.uint8).reshape(1, 3).copy()

    def begin(self, env: int) -> np.ndarray:
        frame = self.new_frame()
        self.episodes[env].append(Episode(self.slots[env], [frame]))
        self.slots[env] += 1
        return frame

    def step(self, env: int, action: int, reward: float, *, terminal: bool, ended: bool) -> np.ndarray:
        episode, frame = self.episodes[env][-1], self.new_frame()
        episode.actions.append(action)
        episode.rewards.append(reward)
        episode.terminal.append(terminal)
        episode.frames.append(frame)
        episode.ended = ended
        self.slots[env] += 1
        return frame

    def sampleable(self, ring: int, n_step: int, frame_stack: int) -> dict[tuple[int, int], tuple[Episode, int]]:
        """(environment, absolute slot) → (episode, step) of every action that may be drawn.

        The n slots after it are written, and no slot that a stack at it could reach is overwritten
        (in a ring that is just full, the slots before the first count as the first overwritten).
        """
        drawable = {}
        for env, episodes in enumerate(self.episodes):
            newest = self.slots[env] - 1
            for episode in episodes:
                for step in range(len(episode.actions)):
                    slot = episode.first_slot + step
                    if slot + n_step <= newest and slot - (frame_stack - 1) > newest - ring:
                        drawable[env, slot] = (episode, step)
        return drawable


class Stream:
    """Feeds the same episodes to a replay and to the oracle."""

    def __init__(
        self, *, num_envs: int, frame_stack: int, n_step: int, ring: int, exponent: float = 0.0, kind=Replay
    ) -> None:
        self.spec = ReplaySpec(ring * num_envs, n_step, DISCOUNT, priority_exponent=exponent)
        self.replay = kind(self.spec, num_envs=num_envs, state_shape=(frame_stack, 1, 3))
        self.oracle = EpisodeLists(num_envs)
        self.frame_stack, self.num_envs = frame_stack, num_envs
        self.rng = np.random.default_rng(0)
        self._begin(list(range(num_envs)))

    def _begin(self, envs: list[int]) -> None:
        if envs:
            frames = [self.oracle.begin(env) for env in envs]
            self.replay.begin_episodes(np.array(envs), self._states(frames))

    def _states(self, frames: list[np.ndarray]) -> np.ndarray:
        # Only the newest frame of a stack may be used: the others are set to something absurd.
        states = np.full((len(frames), self.frame_stack, 1, 3), 255, dtype=np.uint8)
        states[:, -1] = frames
        return states

    def step(self, events: list[str]) -> None:
        envs = [env for env, event in enumerate(events) if event != "idle"]
        if not envs:
            return
        actions = self.rng.integers(18, size=len(envs))
        rewards = self.rng.normal(size=len(envs)).astype(np.float32)
        terminal = np.array([events[env] in ("life_loss", "terminated", "both") for env in envs])
        ended = np.array([events[env] in ("terminated", "truncated", "both") for env in envs])
        frames = [
            self.oracle.step(env, int(actions[k]), float(rewards[k]), terminal=terminal[k], ended=ended[k])
            for k, env in enumerate(envs)
        ]
        self.replay.append(
            np.array(envs),
            actions=actions,
            rewards=rewards,
            terminal=terminal,
            ended=ended,
            next_states=self._states(frames),
        )
        self._begin([env for k, env in enumerate(envs) if ended[k]])

    def drawable(self) -> dict[tuple[int, int], tuple[Episode, int]]:
        return self.oracle.sampleable(self.replay.slots, self.spec.n_step, self.frame_stack)

    def absolute(self, indices: np.ndarray) -> list[tuple[int, int]]:
        """(environment, absolute slot) of each of the batch's indices."""
        ring = self.replay.slots
        keys = []
        for env, slot in zip(*np.divmod(np.asarray(indices), ring), strict=True):
            newest = int(self.replay.newest[env])
            keys.append((int(env), newest - (newest - int(slot)) % ring))
        return keys

    def assert_drawn_right(self, batch: Batch) -> None:
        """Every transition of `batch` is drawable and equals the oracle's."""
        drawable = self.drawable()
        for b, key in enumerate(self.absolute(batch.indices)):
            episode, step = drawable[key]
            s, action, total, discount, s_next = episode.transition(step, self.spec.n_step, self.frame_stack)
            np.testing.assert_array_equal(batch.s_tm1[b].numpy(), s)
            assert int(batch.a_tm1[b]) == action
            assert float(batch.r_t[b]) == pytest.approx(total, rel=1e-6, abs=1e-6)
            assert float(batch.discount_t[b]) == pytest.approx(discount, rel=1e-6)
            np.testing.assert_array_equal(batch.s_t[b].numpy(), s_next)
