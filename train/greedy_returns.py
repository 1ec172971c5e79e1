"""Greedy returns on validation seeds, played by a background thread while a training runs."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.episode_seeds import VALIDATION_STREAM, episode_seeds
from nrmap.play.rollout import greedy, play
from nrmap.policies.network import QNetwork
from nrmap.policies.policy import Policy, PolicyCard
from nrmap.support.errors import check

NAME = "greedy_return"


@dataclass
class GreedyReturns:
    """Adds `greedy_return`, the mean unclipped return of `episodes` greedy episodes, to rows of a learning curve.

    A background thread plays the episodes, so a row gets its value some rows later. A kill loses the values of
    unfinished episodes, a roll-back perhaps some of them. The trained weights do not depend on these episodes.
    """

    env: EnvSpec
    run_seed: int
    every: int  # agent steps; 0 plays none
    episodes: int
    played_at: int = 0  # agent step of the last start, or of the state that a training resumed or rolled back to
    _pending: list[tuple[dict[str, float], "Future[float]"]] = field(default_factory=list)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _closed: bool = False

    def start_if_due(self, row: dict[str, float], copy_network: Callable[[], QNetwork]) -> None:
        """Start to play the network that `copy_network` makes, for `row`, if that is due.

        That is due once the agent step has reached another multiple of `every` since the last start.
        """
        agent_step = int(row["agent_step"])
        if self.every and agent_step // self.every != self.played_at // self.every:
            self.played_at = agent_step
            network = copy_network().requires_grad_(False).eval()
            self._pending.append((row, self._pool.submit(self._play, network, agent_step)))

    def finished(self, *, wait: bool = False) -> dict[str, float]:
        """Write the finished returns to their rows; return {"greedy_return": the latest one}, or {} if none finished.

        With `wait`, first wait for all episodes. Raises the error of an episode that could not be played.
        """
        metrics: dict[str, float] = {}
        while self._pending and (wait or self._pending[0][1].done()):
            row, future = self._pending.pop(0)
            row[NAME] = future.result()
            metrics = {NAME: row[NAME]}
        return metrics

    def close(self) -> None:
        """End the background thread at the next agent step of its episodes, which then have no return."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _go_on(self, *_: int) -> None:
        check(not self._closed, "the training has ended")

    def _play(self, network: QNetwork, agent_step: int) -> float:
        policy = Policy(network, self.env, PolicyCard("training", self.run_seed, agent_step, "unfinished"))
        seeds = episode_seeds(self.env, self.run_seed, self.episodes, VALIDATION_STREAM)
        episodes = play(greedy(policy), self.env, seeds, num_envs=self.episodes, progress=self._go_on)
        return float(np.mean([episode.total_reward for episode in episodes]))
