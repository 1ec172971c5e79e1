"""The dense engine: run the whole network on every ablated state."""

from functools import cached_property

import torch
from torch import Tensor

from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.rounding import ablate_pixels, rounding_floor, sampled_ablations, synthetic_states
from nrmap.ablation.spec import AblationSpec, Engine
from nrmap.policies.agent import Agent
from nrmap.support.runtime import seconds_of

# Larger batches fill a GPU; on a CPU they leave its caches.
BATCH_SIZE = {"cpu": 128, "cuda": 2048}


class DenseEngine(Engine):
    """An engine that runs the agent on every ablated copy of a state, in batches."""

    name = "dense"

    def __init__(
        self,
        agent: Agent,
        *,
        spec: AblationSpec,
        batch_size: int | None = None,
        skip_unchanged: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
        exact: NetworkParts | None = None,
    ) -> None:
        """Prepare to run `batch_size` copies at a time; None means 128 on a CPU and 2,048 on a GPU.

        With `skip_unchanged`, pixels that already have the ablated value get the clean Q-values without a run.
        `memory_format` is the layout of the copies in memory. `exact` is the agent's network in float64, against which
        the rounding floor is measured. With None the floor is a fixed multiple of the outputs' precision, see
        `nrmap.ablation.rounding.rounding_floor`.
        """
        super().__init__(agent, spec)
        self._batch_size = batch_size or BATCH_SIZE[agent.device.type]
        self._skip_unchanged = skip_unchanged
        self._memory_format = memory_format
        self._exact = exact

    @cached_property
    def rounding_floor(self) -> float:
        """The approximate upper limit of the rounding error of an ablation's change in Q, found on synthetic states.

        Raises NrmapError for NaN or infinite Q-values, and as a call of the agent does.
        """
        states = synthetic_states(self._state_shape, self._device)
        numbers = sampled_ablations(self._spec, self._state_shape).to(self._device)
        with torch.inference_mode():
            ablated = torch.stack([self._scores(ablate_pixels(state, numbers, self._spec)) for state in states])
            outputs = self._agent(states)
            clean = self._in_float32(outputs)
            return rounding_floor(clean, ablated, self._exact, self._spec, states, dtype=outputs.dtype)

    @torch.inference_mode()
    def seconds_per_state(self) -> float:
        """Estimate the seconds that all ablations of one state take, by timing one batch."""
        batch = torch.zeros(self._batch_size, *self._state_shape, dtype=torch.uint8, device=self._device)
        seconds = seconds_of(lambda: self._agent(batch), self._device)
        return seconds * self._spec.ablated_shape(self._state_shape).numel() / len(batch)

    @torch.inference_mode()
    def _ablate(self, states: Tensor) -> tuple[Tensor, Tensor]:
        shape, (state,) = self._spec.ablated_shape(self._state_shape), states
        clean = self._scores(states)  # [1, A]
        q_values = clean.repeat(shape.numel(), 1)  # [ablations, A]
        if self._skip_unchanged:
            differs = state != self._spec.value  # [C, H, W]
            differs = differs.flatten() if self._spec.channels == "each" else differs.any(0).flatten()
            numbers = differs.nonzero(as_tuple=True)[0]
        else:
            numbers = torch.arange(len(q_values), device=self._device)
        for batch in numbers.split(self._batch_size) if len(numbers) else ():  # none in a state of the ablated value
            copies = ablate_pixels(state, batch, self._spec).contiguous(memory_format=self._memory_format)
            q_values[batch] = self._scores(copies)
        return q_values.unflatten(0, shape)[None], clean

    def _scores(self, states: Tensor) -> Tensor:
        return self._in_float32(self._agent(states))

    @staticmethod
    def _in_float32(outputs: Tensor) -> Tensor:
        """Return the agent's outputs [N, A] in float32.

        From float64 outputs each state's largest is subtracted first, which keeps their precision and changes no map.
        """
        return (outputs - outputs.amax(dim=1, keepdim=True) if outputs.dtype == torch.float64 else outputs).float()
