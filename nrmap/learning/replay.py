"""Experience replay: one ring buffer of frames per environment; n-step returns are computed when sampling.

A slot holds a frame, the action taken there, its reward, and whether the return ends there. The last
frame of an episode has a slot of its own without an action: a truncated episode bootstraps from it,
and no transition leads into the next episode. A slot may be sampled once the n slots after it are written.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nrmap.learning.sum_tree import SumTree
from nrmap.support.schema import Fraction, Positive, Steps, expect, schema


@schema
class ReplaySpec:
    """Settings of a replay: `capacity` in frames over all environments, n-step returns with discount γ.

    Over `anneal_steps` agent steps (0: never) n and 1 − γ change geometrically to `n_step_final` and
    1 − `discount_final`, as in BBF (Schwarzer et al. 2023). A final value of 0 keeps the first one.

    Slot i is drawn with probability p_i^α / Σ p^α, where p_i = |TD error| + `priority_floor` and α =
    `priority_exponent`; α = 0 draws uniformly. The importance exponent β rises linearly from
    `importance_initial` to 1 over the training (Schaul et al. 2016). Raises NrmapError for values out of range.
    """

    capacity: Annotated[int, Field(ge=1, le=10**12)]
    n_step: Annotated[int, Field(ge=1, le=10_000)]
    discount: Fraction
    priority_exponent: Annotated[float, Field(ge=0, le=100)]
    importance_initial: Fraction = 0.4
    priority_floor: Positive = 1e-3
    anneal_steps: Steps = 0
    n_step_final: Annotated[int, Field(ge=0, le=10_000)] = 0
    discount_final: Fraction = 0.0

    def __post_init__(self) -> None:
        if not self.anneal_steps:
            for name in ("n_step_final", "discount_final"):
                expect(getattr(self, name) == 0, self, name, "0 where anneal_steps is 0")
        else:
            changes = self.n_step_final or self.discount_final
            expect(bool(changes), self, "anneal_steps", "0 where n_step_final and discount_final are 0")
            expect(self.n_step_final <= self.n_step, self, "n_step_final", f"from 1 to n_step={self.n_step}, or 0")
            for name in ("discount", "discount_final"):
                expect(getattr(self, name) < 1, self, name, "less than 1 to anneal")

    def horizon(self, agent_step: int) -> tuple[int, float]:
        """Return n and γ of the updates at `agent_step`."""
        if not self.anneal_steps:
            return self.n_step, self.discount
        fraction = min(agent_step / self.anneal_steps, 1.0)
        n_step = self.n_step * ((self.n_step_final or self.n_step) / self.n_step) ** fraction
        factor = ((1 - (self.discount_final or self.discount)) / (1 - self.discount)) ** fraction
        return round(n_step), 1 - (1 - self.discount) * factor


@dataclass(frozen=True)
class Batch:
    """B transitions from step t − n (named tm1) to step t, with states of shape [C, H, W]."""

    s_tm1: Tensor  # [B, C, H, W] uint8
    a_tm1: Tensor  # [B] int64
    r_t: Tensor  # [B] float32, Σ_k γ^k r_k over these steps
    discount_t: Tensor  # [B] float32, γ^n; γ^k if the episode was truncated after k steps; 0 after a terminal step
    s_t: Tensor  # [B, C, H, W] uint8
    weights: Tensor  # [B] float32, importance weights, the largest is 1
    indices: Any  # [B], for `update_priorities` of the replay that the batch is from

    def to(self, device: torch.device) -> "Batch":
        """Return a copy with all tensors but `indices` on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if name != "indices"}
        return replace(self, **moved)


class Replay:
    """Stores the newest frames of E environments, one ring buffer each, and stacks them to states when sampling."""

    def __init__(
        self,
        spec: ReplaySpec,
        *,
        num_envs: int,
        state_shape: tuple[int, int, int],
        newest_first: bool = False,
        stack_fill: str = "zeros",
    ) -> None:
        """`state_shape` is (frame_stack, height, width); for `newest_first` and `stack_fill` see `EnvSpec`."""
        self.spec = spec
        self.num_envs = num_envs
        self.frame_stack, height, width = state_shape
        back = np.arange(self.frame_stack)
        self._back: Any = back if newest_first else back[::-1].copy()  # [C], the age of each frame of a state
        self._newest_frame = 0 if newest_first else -1  # its place in a state
        self._fills_with_zeros = stack_fill == "zeros"
        self.slots = spec.capacity // num_envs
        shape = (num_envs, self.slots)
        self._allocate(height, width)
        self._actions = np.zeros(shape, dtype=np.int64)
        self._rewards = np.zeros(shape, dtype=np.float32)
        self._terminal = np.zeros(shape, dtype=bool)  # the return ends with this slot's action
        self._final = np.zeros(shape, dtype=bool)  # the last frame of an episode: no action follows
        self._age = np.zeros(shape, dtype=np.int32)  # steps since the frame stack began
        self.newest = np.full(num_envs, -1, dtype=np.int64)  # absolute number of each ring's newest slot

    def _allocate(self, height: int, width: int) -> None:
        """Allocate the frames and the priorities; `DeviceReplay` does so on its device."""
        self._frames: Any = np.zeros((self.num_envs, self.slots, height, width), dtype=np.uint8)
        self.priorities: Any = SumTree(self.num_envs * self.slots)
        self.max_priority: Any = 1.0

    def begin_episodes(self, envs: NDArray[np.int64], states: NDArray[np.uint8]) -> None:
        """Store the first frame of a new episode in each of `envs` [K], from its `states` [K, C, H, W]."""
        self._write_frames(envs, states, age=np.zeros(len(envs), dtype=np.int32))

    def append(
        self,
        envs: NDArray[np.int64],
        *,
        actions: NDArray[np.integer],
        rewards: NDArray[np.float32],
        terminal: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        next_states: NDArray[np.uint8],
        restarted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Store one step of each of `envs` [K]: action and reward in the newest slot, the next frame in a new one.

        `terminal`: the return ends here (game over, or a life lost in training). `ended`: the episode is
        over; call `begin_episodes` before the next `append`. `restarted`: the frame stack of the next state
        was filled anew (None: nowhere). All [K]; `next_states` [K, C, H, W].
        """
        slot = self.newest[envs] % self.slots
        self._actions[envs, slot] = actions
        self._rewards[envs, slot] = rewards
        self._terminal[envs, slot] = terminal
        age = self._age[envs, slot] + 1
        self._write_frames(envs, next_states, age=age if restarted is None else np.where(restarted, 0, age))
        self._final[envs, self.newest[envs] % self.slots] = ended

    def _write_frames(self, envs: NDArray[np.int64], states: NDArray[np.uint8], age: NDArray[np.int32]) -> None:
        self.newest[envs] += 1
        newest = self.newest[envs]
        slot = newest % self.slots
        self._store(envs, slot, states[:, self._newest_frame])
        self._age[envs, slot] = age
        self._terminal[envs, slot] = False
        self._final[envs, slot] = False
        # The new frame overwrites the oldest, which the next few slots need for their stacks: none may be drawn.
        ahead = np.arange(self.frame_stack)[:, None]
        self.priorities[self._flat(envs, newest + ahead).ravel()] = 0.0
        complete = newest - self.spec.n_step
        ready = (complete >= 0) & ~self._final[envs, complete % self.slots]
        weight = self.max_priority**self.spec.priority_exponent
        self.priorities[self._flat(envs[ready], complete[ready])] = weight

    def _store(self, envs: NDArray[np.int64], slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        self._frames[envs, slots] = frames

    def _flat(self, envs: NDArray[np.int64], absolute_slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return envs * self.slots + absolute_slots % self.slots

    def sample(self, batch_size: int, *, importance: float, rng: np.random.Generator, agent_step: int = 0) -> Batch:
        """Sample B = `batch_size` transitions; `importance` is β, `agent_step` sets n and γ.

        Raises ValueError while no transition is complete.
        """
        if self.priorities.total <= 0:
            raise ValueError("the replay holds no complete transition yet")
        n_step, discount = self.spec.horizon(agent_step)
        return self.draw(rng.random(batch_size), importance=importance, n_step=n_step, discount=discount)

    def draw(self, uniform: Any, *, importance: Any, n_step: Any, discount: Any) -> Batch:
        """Draw a transition from each of B equal parts of the total priority, at fractions `uniform` [B] in [0, 1).

        `importance` is β, `n_step` n and `discount` γ of `ReplaySpec`. In a `DeviceReplay` they may be tensors, so that
        they can change in a CUDA graph.
        """
        indices = self._find(uniform)
        envs, slots = indices // self.slots, indices % self.slots
        actions, rewards, discounts, steps = self._returns(envs, slots, n_step, discount)
        # Constant factors of the probabilities cancel, because the largest weight is made 1.
        weights = self.priorities[indices] ** -importance
        return Batch(
            s_tm1=torch.as_tensor(self._states(envs, slots)),
            a_tm1=torch.as_tensor(actions),
            r_t=torch.as_tensor(rewards),
            discount_t=torch.as_tensor(discounts),
            s_t=torch.as_tensor(self._states(envs, (slots + steps) % self.slots)),
            weights=torch.as_tensor(weights / weights.max()).float(),
            indices=indices,
        )

    def _find(self, uniform: Any) -> Any:
        shares = (np.arange(len(uniform)) + uniform) / len(uniform)
        return self.priorities.find(shares * self.priorities.total)

    def _returns(self, envs: Any, slots: Any, n_step: Any, discount: Any) -> tuple[Any, Any, Any, Any]:
        """Return the action, the n-step return, its bootstrap discount and its length, each [B]."""
        rewards = np.zeros(len(envs))
        steps = np.zeros(len(envs), dtype=np.int64)
        running = np.ones(len(envs), dtype=bool)
        terminated = np.zeros(len(envs), dtype=bool)
        for k in range(n_step):
            slot = (slots + k) % self.slots
            rewards += np.where(running, discount**k * self._rewards[envs, slot], 0.0)
            steps += running
            terminated |= running & self._terminal[envs, slot]
            # The slot after an episode's last action is its final frame, from which a truncated episode bootstraps.
            running &= ~self._terminal[envs, slot] & ~self._final[envs, (slot + 1) % self.slots]
        discounts = np.where(terminated, 0.0, discount**steps)
        return self._actions[envs, slots], rewards.astype(np.float32), discounts.astype(np.float32), steps

    def latest_states(self, per_env: int, spacing: int) -> Tensor:
        """Return `per_env` states of each environment, `spacing` agent steps apart, back from the newest.

        The result is uint8 [per_env · E, C, H, W]. An environment with fewer states repeats its oldest.
        """
        back = np.minimum(
            spacing * np.arange(per_env)[:, None], np.minimum(self.newest, self.slots - self.frame_stack)
        )  # [per_env, E]
        envs = np.tile(np.arange(self.num_envs), per_env)
        return torch.as_tensor(self._states(envs, ((self.newest - back) % self.slots).ravel()))

    def _states(self, envs: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Stack frames to states [B, C, H, W]; at an episode's start missing frames are filled as the emulator does."""
        if self.frame_stack == 1:
            return self._frames[envs, slots][:, None]
        age = self._age[envs, slots][:, None]
        back = np.minimum(self._back, age)  # [B, C]
        frames = self._frames[envs[:, None], (slots[:, None] - back) % self.slots]  # [B, C, H, W]
        if self._fills_with_zeros:
            frames[self._back > age] = 0
        return frames

    def update_priorities(self, indices: NDArray[np.int64], td_errors: NDArray[np.float32]) -> None:
        """Set the priorities at `indices` [B] from the TD errors [B] of their batch; call before the next `append`.

        Does nothing if `priority_exponent` is 0.
        """
        if self.spec.priority_exponent == 0:
            return
        priorities = np.abs(td_errors.astype(np.float64)) + self.spec.priority_floor
        self.max_priority = max(self.max_priority, float(priorities.max()))
        self.priorities[indices] = priorities**self.spec.priority_exponent

    def get_state(self) -> dict[str, Any]:
        """Return the priorities and slot numbers, but no frames, because `Collector` plays their episodes again."""
        return {"newest": self.newest.copy(), "weights": self.priorities.weights, "max_priority": self.max_priority}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the priorities after the same frames were stored again. Raises ValueError if the slots differ."""
        if not np.array_equal(self.newest, state["newest"]):
            raise ValueError(f"slots written again {self.newest.tolist()}: expected {state['newest'].tolist()}")
        self.priorities.fill(state["weights"])
        self.max_priority = state["max_priority"]
