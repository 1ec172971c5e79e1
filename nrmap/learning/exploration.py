"""εz-greedy exploration (Dabney et al. 2021): random actions that are repeated for several steps."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nrmap.learning.schedules import Linear
from nrmap.support.schema import Fraction, SomeSteps, schema


@schema
class ExplorationSpec:
    """Settings of εz-greedy exploration: ε falls linearly over `decay_steps` agent steps.

    Environment i of E has the rate ε^(1 + env_spread · i / (E − 1)) (Horgan et al. 2018); environments
    with low rates reach the states of a good policy. A random action is repeated for n steps, drawn from
    P(n) ∝ n^−2 with n ≤ `max_repeat` (Dabney et al. 2021). `max_repeat` = 1 is plain ε-greedy, which hardly ever
    finds a reward that takes dozens of equal actions, as in Freeway. Raises NrmapError for values out of range.
    """

    epsilon_initial: Fraction
    epsilon_final: Fraction
    decay_steps: SomeSteps
    env_spread: Annotated[float, Field(ge=0, le=1000)]
    max_repeat: Annotated[int, Field(ge=1, le=100_000)]

    def epsilons(self, agent_step: int, num_envs: int) -> NDArray[np.float64]:
        """The exploration rate of every environment at `agent_step`, [E], for E = `num_envs`."""
        epsilon = Linear(self.epsilon_initial, self.epsilon_final, 0, self.decay_steps)(agent_step)
        ranks = np.arange(num_envs) / max(num_envs - 1, 1)
        return epsilon ** (1 + self.env_spread * ranks)


class Explorer:
    """Draws random actions for E environments and repeats each for a random number of steps."""

    def __init__(self, *, num_envs: int, num_actions: int, max_repeat: int) -> None:
        self._num_actions = num_actions
        lengths = np.arange(1, max_repeat + 1)
        weights = lengths**-2.0
        self._cumulated = np.cumsum(weights / weights.sum())
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._remaining = np.zeros(num_envs, dtype=np.int64)

    def step(self, epsilons: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the random action of each environment, int64 [E], or −1 where the environment should act greedily.

        An environment i that repeats no action starts a random one with probability `epsilons[i]`, and repeats it for n
        steps, P(n) ∝ n^−2 with n ≤ `max_repeat`.
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
        """Return the last random action of every environment and its remaining steps, both [E]."""
        return {"actions": self._actions.copy(), "remaining": self._remaining.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state from `get_state`."""
        self._actions, self._remaining = state["actions"], state["remaining"]
