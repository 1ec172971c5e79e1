"""Exploring actions that last: εz-greedy (Dabney et al. 2021)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Explorer:
    """Per environment, the random action it is busy with and for how many more steps."""

    def __init__(self, *, num_envs: int, num_actions: int, longest_repeat: int) -> None:
        self._num_actions = num_actions
        lengths = np.arange(1, longest_repeat + 1)
        weights = lengths**-2.0
        self._cumulated = np.cumsum(weights / weights.sum())
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._remaining = np.zeros(num_envs, dtype=np.int64)

    def step(self, epsilons: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The exploring action of each environment, or −1 where it acts greedily, [E].

        An idle environment i starts a new random action with probability `epsilons[i]` and keeps
        it for n steps, P(n) ∝ n^−2 up to the longest repeat.
        """
        num_envs = len(epsilons)
        starts = (rng.random(num_envs) < epsilons) & (self._remaining == 0)
        actions = rng.integers(self._num_actions, size=num_envs)
        lengths = 1 + np.searchsorted(self._cumulated[:-1], rng.random(num_envs), side="right")
        self._actions = np.where(starts, actions, self._actions)
        self._remaining = np.where(starts, lengths, self._remaining)
        exploring = np.where(self._remaining > 0, self._actions, -1)
        self._remaining = np.maximum(self._remaining - 1, 0)
        return exploring

    def get_state(self) -> dict[str, Any]:
        """The actions under way."""
        return {"actions": self._actions.copy(), "remaining": self._remaining.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave."""
        self._actions, self._remaining = state["actions"], state["remaining"]
