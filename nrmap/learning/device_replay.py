"""A replay in GPU memory: `draw` and `update_priorities` do not make the host wait for the GPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nrmap.learning.replay import Replay, ReplaySpec

# Weights are whole multiples of 1 / SCALE: sums of integers do not depend on the order in which a GPU adds.
SCALE = 2.0**32


class Weights:
    """The counterpart of `SumTree` on a device: `size` non-negative weights, to be drawn in proportion.

    Indices are found by the cumulative sum. Weights are rounded to multiples of 2⁻³².
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.scaled = torch.zeros(size, dtype=torch.int64, device=device)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.scaled.sum()) / SCALE

    @property
    def weights(self) -> NDArray[np.float64]:
        """A copy of all weights on the host, [size]."""
        return self.scaled.cpu().numpy() / SCALE

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.scaled[indices] / SCALE

    def __setitem__(self, indices: NDArray[np.int64] | Tensor, weights: Tensor | float) -> None:
        at = torch.as_tensor(indices, device=self.scaled.device)
        fixed = torch.as_tensor(weights, dtype=torch.float64, device=self.scaled.device) * SCALE
        self.scaled[at] = fixed.round().long()

    def fill(self, weights: NDArray[np.float64]) -> None:
        """Set all weights [size] at once."""
        self.scaled.copy_(torch.from_numpy(np.rint(weights * SCALE).astype(np.int64)))

    def find(self, shares: Tensor) -> Tensor:
        """Return the first indices [B] where the cumulative weight exceeds `shares` [B] of the total, all in [0, 1)."""
        cumulated = self.scaled.cumsum(0)  # [size]
        masses = (shares * cumulated[-1]).long()
        # Rounding may give the total itself, past the last weight. After a divergence (NaN) weights are arbitrary.
        found = torch.searchsorted(cumulated, torch.minimum(masses, cumulated[-1] - 1), right=True)
        return found.clamp(max=len(cumulated) - 1)


class DeviceReplay(Replay):
    """A `Replay` that stores the same transitions on a device; sampling weights are rounded to multiples of 2⁻³².

    The host also keeps actions, rewards, episode ends and ages, and finds from them which slots are complete.
    """

    def __init__(self, spec: ReplaySpec, *, device: torch.device, **of_replay: Any) -> None:
        self.device = device
        super().__init__(spec, **of_replay)
        self._back = self._on_device(self._back)

    def _allocate(self, height: int, width: int) -> None:
        slots = self.num_envs * self.slots
        self._frames = torch.zeros((slots, height, width), dtype=torch.uint8, device=self.device)
        # Columns: action, reward, terminal, final and age of each slot. One copy to the device writes all five.
        self._facts = torch.zeros((slots, 5), device=self.device)
        self.priorities = Weights(slots, self.device)
        self.max_priority = torch.ones((), dtype=torch.float64, device=self.device)

    def begin_episodes(self, envs: NDArray[np.int64], states: NDArray[np.uint8]) -> None:
        """Do what `Replay.begin_episodes` does, and write the new slots to the device."""
        super().begin_episodes(envs, states)
        self._copy_facts(envs, self.newest[envs])

    def append(self, envs: NDArray[np.int64], **step: Any) -> None:
        """Do what `Replay.append` does, and write the changed slots to the device."""
        super().append(envs, **step)
        self._copy_facts(np.tile(envs, 2), np.concatenate([self.newest[envs] - 1, self.newest[envs]]))

    def _copy_facts(self, envs: NDArray[np.int64], absolute_slots: NDArray[np.int64]) -> None:
        at = envs, absolute_slots % self.slots
        facts = [array[at] for array in (self._actions, self._rewards, self._terminal, self._final, self._age)]
        rows = torch.from_numpy(np.stack(facts, axis=1).astype(np.float32))
        self._facts[self._on_device(self._flat(*at))] = self._on_device(rows)

    def _store(self, envs: NDArray[np.int64], slots: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        self._frames[self._on_device(self._flat(envs, slots))] = self._on_device(frames)

    def _on_device(self, values: Any) -> Tensor:
        return torch.as_tensor(values).to(self.device, non_blocking=True)

    def _find(self, uniform: Any) -> Tensor:
        uniform = self._on_device(uniform)
        return self.priorities.find((torch.arange(len(uniform), device=self.device) + uniform) / len(uniform))

    def _returns(self, envs: Any, slots: Any, n_step: Any, discount: Any) -> tuple[Any, Any, Any, Any]:
        ahead = torch.arange(self.spec.n_step + 1, device=self.device)  # to the longest n: fixed shapes while n anneals
        facts = self._facts[self._flat(envs[:, None], slots[:, None] + ahead)]  # [B, N + 1, 5]
        rewards, terminal, final = facts[:, :-1, 1].double(), facts[:, :-1, 2] > 0, facts[:, 1:, 3] > 0  # [B, N] each
        ahead = ahead[:-1]
        goes_on = (~(terminal | final)).long().cumprod(dim=1)  # [B, N], 1 until the return ends
        running = torch.cat([torch.ones_like(goes_on[:, :1]), goes_on[:, :-1]], dim=1) * (ahead < n_step)
        steps = running.sum(dim=1)  # [B]
        terminated = (running.bool() & terminal).any(dim=1)  # [B]
        discount = torch.as_tensor(discount, dtype=torch.float64, device=self.device)
        returns = (running * discount**ahead * rewards).sum(dim=1)  # [B]
        discounts = torch.where(terminated, 0.0, discount**steps)  # [B]
        return facts[:, 0, 0].long(), returns.float(), discounts.float(), steps

    def _states(self, envs: Any, slots: Any) -> Any:
        envs, slots = self._on_device(envs), self._on_device(slots)
        age = self._facts[self._flat(envs, slots), 4, None].long()  # [B, 1]
        back = torch.minimum(self._back, age)  # [B, C]
        frames = self._frames[self._flat(envs[:, None], slots[:, None] - back)]  # [B, C, H, W]
        return frames * (self._back <= age)[:, :, None, None] if self._fills_with_zeros else frames

    def update_priorities(self, indices: Any, td_errors: Any) -> None:
        """Set the priorities as `Replay.update_priorities` does; arguments may be tensors."""
        if self.spec.priority_exponent == 0:
            return
        priorities = self._on_device(td_errors).double().abs() + self.spec.priority_floor
        self.max_priority.copy_(torch.maximum(self.max_priority, priorities.max()))
        self.priorities[self._on_device(indices)] = priorities**self.spec.priority_exponent

    def get_state(self) -> dict[str, Any]:
        """Return what `Replay.get_state` does."""
        return {**super().get_state(), "max_priority": float(self.max_priority)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state as `Replay.set_state` does, into the same tensors: a CUDA graph holds their addresses.

        Raises ValueError as `Replay.set_state` does.
        """
        kept = self.max_priority
        super().set_state(state)
        self.max_priority = kept.fill_(state["max_priority"])
