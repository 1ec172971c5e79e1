"""Exploration rates, and exploring actions that last: εz-greedy (Dabney et al. 2021)."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nrmap.learning.schedules import Linear
from nrmap.support.schema import Fraction, SomeSteps, schema


@schema
class ExplorationSpec:
    """ε-greedy: ε falls linearly over `decay_steps` agent steps; every environment has its own.

    Environment i of E explores with ε^(1 + env_spread · i / (E − 1)) (Horgan et al. 2018): those that
    explore less reach the states of a good policy. An exploring action is kept for a number of steps
    drawn from the zeta distribution P(n) ∝ n^−2, at most `max_repeat` (Dabney et al. 2021, εz-greedy);
    1 is plain ε-greedy. Plain ε-greedy hardly ever finds a reward
    that lies dozens of equal actions away, as in Freeway.
    """

    epsilon_initial: Fraction
    epsilon_final: Fraction
    decay_steps: SomeSteps
    env_spread: Annotated[float, Field(ge=0, le=1000)]
    max_repeat: Annotated[int, Field(ge=1, le=100_000)]

    def epsilons(self, agent_step: int, num_envs: int) -> NDArray[np.float64]:
        """The exploration rate of every environment, [E]."""
        epsilon = Linear(self.epsilon_initial, self.epsilon_final, 0, self.decay_steps)(agent_step)
        ranks = np.arange(num_envs) / max(num_envs - 1, 1)
        return epsilon ** (1 + self.env_spread * ranks)


class Explorer:
    """The exploring action of every environment and its remaining steps."""

    def __init__(self, *, num_envs: int, num_actions: int, max_repeat: int) -> None:
        self._num_actions = num_actions
        lengths = np.arange(1, max_repeat + 1)
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
