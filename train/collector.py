"""Act in E environments and fill the replay, in a way that can be repeated exactly.

An emulator cannot be saved, but its state follows from a seed and the actions since. The collector
logs both for every episode that still has a frame in the replay. To resume, it plays those episodes again.
"""

import struct
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.atari.envs import SeededVectorEnv, Transition
from nrmap.atari.episode_seeds import TRAINING_STREAM, episode_seed
from nrmap.learning.replay import Replay
from nrmap.learning.settings import TrainSettings
from nrmap.support.errors import check


@dataclass
class EpisodeLog:
    """One episode of one environment: its number, first slot in the replay, actions and unclipped return so far.

    `checksum` is the CRC-32 of every frame, reward and number of lives that the emulator gave.
    """

    number: int
    first_slot: int
    checksum: int
    actions: bytearray = field(default_factory=bytearray)
    undiscounted_return: float = 0.0


@dataclass(frozen=True)
class FinishedEpisode:
    """A finished training episode: its environment, unclipped return, and length in agent steps."""

    env: int
    undiscounted_return: float
    length: int


class Collector:
    """The running episodes of E environments, their current `states` (uint8 [E, C, H, W]), and the replay they fill."""

    def __init__(self, settings: TrainSettings, replay: Replay) -> None:
        self.num_envs = settings.num_envs
        self.replay = replay
        self._settings = settings
        self._env = SeededVectorEnv(settings.env, self.num_envs)
        self._newest_frame = 0 if settings.env.newest_first else -1  # its place in a state
        self.num_actions = self._env.num_actions
        self.states = np.zeros((self.num_envs, *settings.env.state_shape), dtype=np.uint8)
        self._lives = np.zeros(self.num_envs, dtype=np.int32)
        self._logs: list[deque[EpisodeLog]] = [deque() for _ in range(self.num_envs)]
        self._sent: NDArray[np.int64] | None = None

    def begin(self) -> None:
        """Start the first episode of every environment."""
        self._begin_episodes(np.arange(self.num_envs), numbers=[0] * self.num_envs)

    def _begin_episodes(self, envs: NDArray[np.int64], numbers: list[int]) -> None:
        mask = np.zeros(self.num_envs, dtype=bool)
        mask[envs] = True
        begun = list(zip(envs.tolist(), numbers, strict=True))
        seeds = [episode_seed(self._settings.seed, TRAINING_STREAM, env, number) for env, number in begun]
        states, lives = self._env.begin(mask, seeds)
        self.states[envs], self._lives[envs] = states[envs], lives[envs]
        self.replay.begin_episodes(envs, states[envs])
        for env, number in begun:
            checksum = self._extended(0, states[env], reward=0.0, lives=lives[env])
            self._logs[env].append(EpisodeLog(number, int(self.replay.newest[env]), checksum))
            oldest_kept = self.replay.newest[env] - self.replay.slots
            while len(self._logs[env]) > 1 and self._logs[env][1].first_slot <= oldest_kept:
                self._logs[env].popleft()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin one agent step of every environment with `actions` [E]; the emulators run on their own threads."""
        self._sent = actions
        self._env.send(actions)

    def receive(self) -> list[FinishedEpisode]:
        """Wait for the step that `send` began and store it; where an episode ended, begin the next one.

        Returns the episodes that ended.
        """
        assert self._sent is not None, "receive without send"
        step = self._env.recv()
        finished = self._write(np.arange(self.num_envs), self._sent, step)
        self._sent = None
        ended = np.flatnonzero(step.ended)
        if len(ended):
            self._begin_episodes(ended, numbers=[self._logs[env][-1].number + 1 for env in ended])
        return finished

    def _write(self, envs: NDArray[np.int64], actions: NDArray[np.int64], step: Transition) -> list[FinishedEpisode]:
        terminal = step.terminated.copy()
        if self._settings.life_loss_ends_return:
            terminal |= step.lives < self._lives
        rewards = np.clip(step.rewards, -1, 1) if self._settings.clip_rewards else step.rewards
        self.replay.append(
            envs,
            actions=actions[envs], rewards=rewards[envs], terminal=terminal[envs], ended=step.ended[envs],
            next_states=step.states[envs], restarted=step.restarted[envs],
        )  # fmt: skip
        self.states[envs], self._lives[envs] = step.states[envs], step.lives[envs]
        finished = []
        for env in envs:
            log = self._logs[env][-1]
            log.actions.append(int(actions[env]))
            log.undiscounted_return += float(step.rewards[env])
            log.checksum = self._extended(
                log.checksum, step.states[env], reward=step.rewards[env], lives=step.lives[env]
            )
            if step.ended[env]:
                finished.append(FinishedEpisode(int(env), log.undiscounted_return, len(log.actions)))
        return finished

    def _extended(self, checksum: int, state: NDArray[np.uint8], *, reward: float, lives: int) -> int:
        """Extend `checksum` by the newest frame of `state` [C, H, W], the reward and the lives."""
        return zlib.crc32(struct.pack("<fi", reward, lives), zlib.crc32(state[self._newest_frame], checksum))

    def get_state(self) -> dict[str, Any]:
        """Return the logged episodes and the state of the replay."""
        episodes = [
            {"env": env, "number": log.number, "first_slot": log.first_slot, "checksum": log.checksum,
             "actions": np.frombuffer(bytes(log.actions), dtype=np.uint8)}
            for env, logs in enumerate(self._logs)
            for log in logs
        ]  # fmt: skip
        return {"episodes": episodes, "replay": self.replay.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a `state` of `get_state` in a new collector: play the logged episodes again, then set priorities.

        Takes as long as acting took for the frames in the replay. Raises NrmapError if an episode ends at another
        step than in the log, or has other frames, rewards or lives. Raises ValueError if the replay has other slots.
        """
        plans: list[deque[dict[str, Any]]] = [deque() for _ in range(self.num_envs)]
        for episode in state["episodes"]:
            plans[episode["env"]].append(episode)
        lengths = np.array([sum(len(episode["actions"]) for episode in plan) for plan in plans])
        waits = lengths.max() - lengths  # environments with less to play start later, so that all end together
        remaining: list[deque[int]] = [deque() for _ in range(self.num_envs)]
        for env, plan in enumerate(plans):
            self.replay.newest[env] = plan[0]["first_slot"] - 1
        idle = np.ones(self.num_envs, dtype=bool)
        self._env.begin(idle, [0] * self.num_envs)
        for tick in range(int(lengths.max()) + 1):
            due = [env for env in range(self.num_envs) if waits[env] <= tick and not remaining[env] and plans[env]]
            if due:
                begun = [plans[env].popleft() for env in due]
                self._begin_episodes(np.array(due), numbers=[episode["number"] for episode in begun])
                idle[due] = False
                for env, episode in zip(due, begun, strict=True):
                    remaining[env].extend(episode["actions"].tolist())
            if tick == lengths.max():
                break
            actions = np.array([queue.popleft() if queue else 0 for queue in remaining], dtype=np.int64)
            step = self._env.step(actions)
            busy = np.flatnonzero(~idle)
            for env in busy.tolist():
                ended_then = not remaining[env] and bool(plans[env])  # another episode followed
                check(bool(step.ended[env]) == ended_then, _another_episode(env, self._logs[env][-1]))
            self._write(busy, actions, step)
            if (idle & step.ended).any():
                ended_idle = idle & step.ended
                self._env.begin(ended_idle, [0] * int(ended_idle.sum()))
        checksums = {(episode["env"], episode["number"]): episode["checksum"] for episode in state["episodes"]}
        for env, logs in enumerate(self._logs):
            for log in logs:
                check(log.checksum == checksums[env, log.number], _another_episode(env, log))
        self.replay.set_state(state["replay"])


def _another_episode(env: int, log: EpisodeLog) -> str:
    return (
        f"cannot resume: episode {log.number} of environment {env} is another one when played again, "
        "perhaps with another ale-py"
    )
