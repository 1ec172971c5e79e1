"""Episodes fed to a replay and to lists that never forget and are read one step at a time."""

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
        total, power, over = 0.0, 0, False
        for k in range(step, step + n_step):
            total += DISCOUNT**power * self.rewards[k]
            power += 1
            over = self.terminal[k]
            if over or (self.ended and k == len(self.actions) - 1):
                break
        states = (self.stack(at, frame_stack) for at in (step, step + power))
        return next(states), self.actions[step], total, 0.0 if over else DISCOUNT**power, next(states)


class Stream:
    """Feeds the same episodes to a replay and to the oracle `episodes`, one list for each environment."""

    def __init__(self, *, num_envs: int, frame_stack: int, n_step: int, ring: int, exponent: float = 0.0, kind=Replay):
        self.spec = ReplaySpec(ring * num_envs, n_step, DISCOUNT, priority_exponent=exponent)
        self.replay = kind(self.spec, num_envs=num_envs, state_shape=(frame_stack, 1, 3))
        self.episodes: list[list[Episode]] = [[] for _ in range(num_envs)]
        self.slots = [0] * num_envs  # that each environment has written
        self.frame_stack, self.frames, self.rng = frame_stack, 0, np.random.default_rng(0)
        self._begin(list(range(num_envs)))

    def _new_frame(self) -> np.ndarray:
        """[1, 3], different from all others and never 0."""
        self.frames += 1
        return np.frombuffer(self.frames.to_bytes(3, "big"), dtype=np.uint8).reshape(1, 3).copy()

    def _begin(self, envs: list[int]) -> None:
        for env in envs:
            self.episodes[env].append(Episode(self.slots[env], [self._new_frame()]))
            self.slots[env] += 1
        if envs:
            self.replay.begin_episodes(np.array(envs), self._newest_states(envs))

    def _newest_states(self, envs: list[int]) -> np.ndarray:
        # Only the newest frame of a stack may be used: the others are set to something absurd.
        states = np.full((len(envs), self.frame_stack, 1, 3), 255, dtype=np.uint8)
        states[:, -1] = [self.episodes[env][-1].frames[-1] for env in envs]
        return states

    def step(self, events: list[str]) -> None:
        envs = [env for env, event in enumerate(events) if event != "idle"]
        if not envs:
            return
        actions = self.rng.integers(18, size=len(envs))
        rewards = self.rng.normal(size=len(envs)).astype(np.float32)
        terminal = np.array([events[env] in ("life_loss", "terminated", "both") for env in envs])
        ended = np.array([events[env] in ("terminated", "truncated", "both") for env in envs])
        for k, env in enumerate(envs):
            episode = self.episodes[env][-1]
            episode.frames.append(self._new_frame())
            episode.actions.append(int(actions[k]))
            episode.rewards.append(float(rewards[k]))
            episode.terminal.append(bool(terminal[k]))
            episode.ended = bool(ended[k])
            self.slots[env] += 1
        self.replay.append(
            np.array(envs), actions=actions, rewards=rewards, terminal=terminal, ended=ended,
            next_states=self._newest_states(envs),
        )  # fmt: skip
        self._begin([env for k, env in enumerate(envs) if ended[k]])

    def drawable(self) -> dict[tuple[int, int], tuple[Episode, int]]:
        """(environment, absolute slot) → (episode, step) of every action that may be drawn.

        The n slots after it are written, and no slot that a stack at it could reach is overwritten
        (in a ring that is just full, the slots before the first count as the first overwritten).
        """
        found = {}
        for env, episodes in enumerate(self.episodes):
            newest = self.slots[env] - 1
            for episode in episodes:
                for step in range(len(episode.actions)):
                    slot = episode.first_slot + step
                    whole_stack = slot - (self.frame_stack - 1) > newest - self.replay.slots
                    if slot + self.spec.n_step <= newest and whole_stack:
                        found[env, slot] = (episode, step)
        return found

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
