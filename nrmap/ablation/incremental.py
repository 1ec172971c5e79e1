"""The incremental engine: propagate changes instead of recomputing every ablated state."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from nrmap.ablation.carry import CleanLayer, first_changes, next_changes
from nrmap.ablation.geometry import strips
from nrmap.ablation.hidden import ABLATIONS_AT_A_TIME, CleanHidden, HiddenLayer
from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.rounding import agrees, rounding_floor, sampled_ablations, synthetic_states
from nrmap.ablation.spec import AblatedChunk, AblationSpec, check_finite
from nrmap.policies.agent import Agent, check_states
from nrmap.support.errors import NrmapError, check
from nrmap.support.runtime import keep_freed_memory

# Larger matrix products are faster up to about this number of states at a time, on a CPU.
MOST_STATES = 64


class IncrementalEngine:
    """Propagates the changes of all ablations through the parts of a traced network."""

    def __init__(
        self,
        agent: Agent,
        parts: NetworkParts,
        *,
        spec: AblationSpec,
        memory_budget: int,
        differences_only: bool = False,
    ) -> None:
        """`agent` gives the clean Q-values; `parts`, traced from it, give the changes.

        With `differences_only` the Q-values of an ablated state are exact up to a common number.
        `memory_budget` in bytes limits the number of states ablated at a time. Raises NrmapError
        if it is too small for one state.
        """
        self.name = "incremental-differences" if differences_only else "incremental"
        self._agent = agent
        self._differences_only = differences_only
        self._parts = parts = parts.differences_only() if differences_only else parts
        self._spec = spec
        self._state_shape = state_shape = agent.state_shape
        self._device = parts.hidden_weight.device
        if self._device.type == "cpu":
            keep_freed_memory()  # otherwise page faults take a third of the time
        self._hidden_layer = HiddenLayer(parts, *parts.feature_sides(*state_shape[1:]))
        self._strips = strips(parts.convolutions[0].vertical, state_shape[1])
        fixed, per_state = _working_memory(parts, spec, state_shape, self._strips)
        check(
            fixed + per_state <= memory_budget,
            f"memory budget of {memory_budget:,} bytes: one state takes {fixed + per_state:,}",
        )
        self.states_at_once = min(MOST_STATES, (memory_budget - fixed) // per_state)

    @cached_property
    def rounding_floor(self) -> float:
        """Approximate upper limit of rounding errors in ΔQ, measured against float64 on synthetic states."""
        states = synthetic_states(self._state_shape, self._device)[: self.states_at_once]
        q_values, clean = self._ablate(states)
        sample = q_values.flatten(1, -2)[:, sampled_ablations(self._spec, self._state_shape).to(self._device)]
        return rounding_floor(clean, sample, self._parts.double(), self._spec, states)

    def ablate(self, states: Tensor) -> Iterator[AblatedChunk]:
        """Ablate uint8 `states` [N, C, H, W]; yields chunks of `states_at_once` states."""
        check_states(states, self._state_shape)
        for start in range(0, len(states), self.states_at_once):
            q_values, clean = self._ablate(states[start : start + self.states_at_once].to(self._device))
            # Inference tensors refuse gradients and in-place changes, so hand out ordinary copies.
            chunk = AblatedChunk(start, q_values.cpu().clone(), clean.cpu().clone())
            check_finite(chunk)
            yield chunk

    @torch.inference_mode()
    def _ablate(self, states: Tensor) -> tuple[Tensor, Tensor]:
        parts = self._parts
        clean_q = self._agent(states).float()  # [S, A]
        pre_activations, hidden = parts.pre_activations(states)
        clean_hidden = CleanHidden(hidden, parts.tail(hidden))
        if not self._agrees(clean_hidden.q_values, clean_q):
            raise NrmapError("the agent has changed since the engine was made: make a new engine")
        clean = [CleanLayer.of(z) for z in pre_activations]
        differences = self._differences(states)  # [W, H, M, S, K]
        ablated_shape = self._spec.ablated_shape(self._state_shape)
        numbers = torch.arange(ablated_shape.numel(), device=self._device).view(-1, *self._state_shape[1:])  # [M, H, W]
        numbers = numbers.permute(2, 1, 0)  # [W, H, M]
        q_values = clean_q[:, None].repeat(1, ablated_shape.numel(), 1)  # [S, ablations, A]
        for strip in self._strips:
            rows = slice(strip.start, strip.stop)
            ablations, changes = first_changes(
                parts.convolutions[0], clean[0], differences[:, rows], strip, numbers[:, rows]
            )
            for layer, clean_layer in zip(parts.convolutions[1:], clean[1:], strict=True):
                if changes.columns:
                    changes = next_changes(layer, clean_layer, ablations, changes)
            if changes.columns:
                q_changes = self._hidden_layer.q_changes(clean_hidden, ablations, changes)  # [R, A]
                q_values[ablations.states, ablations.pixels] += q_changes
        return q_values.unflatten(1, ablated_shape), clean_q

    def _agrees(self, found: Tensor, expected: Tensor) -> bool:
        if not self._differences_only:
            return agrees(found, expected)
        missing = (expected - found).mean(dim=1, keepdim=True)  # [S, 1], common to all actions
        return agrees(found + missing, expected, roundings=4)

    def _differences(self, states: Tensor) -> Tensor:
        """The change of the scaled input by each ablation, [W, H, M, S, K]; see `first_changes`."""
        levels = self._parts.scaled_values  # [256, C]
        channels = torch.arange(levels.shape[1], device=self._device)[:, None, None]
        before = levels[states.long(), channels]  # [S, C, H, W]
        differences = levels[self._spec.value][:, None, None] - before
        differences = differences.permute(3, 2, 1, 0)  # [W, H, C, S]
        return differences.unsqueeze(4) if self._spec.channels == "each" else differences.mT.unsqueeze(2)


def _working_memory(
    parts: NetworkParts, spec: AblationSpec, state_shape: tuple[int, int, int], blocks: list[range]
) -> tuple[int, int]:
    """Upper limits of memory in bytes: the fixed part, and the part per state."""
    channels, height, width = state_shape
    each = channels if spec.channels == "each" else 1
    clean, carried = 0, 0
    windows = [list(blocks), [range(j, j + 1) for j in range(width)]]
    for layer in parts.convolutions:
        height, width = layer.outputs(height, width)
        windows = [
            [axis.readers(reached, size) if reached else reached for reached in before]
            for before, axis, size in zip(windows, (layer.vertical, layer.horizontal), (height, width), strict=True)
        ]
        clean += len(layer.weight) * height * width
        reached_down = max(len(block) * len(window) for block, window in zip(blocks, windows[0], strict=True))
        carried += each * len(layer.weight) * reached_down * sum(len(window) for window in windows[1])
    units, features = parts.hidden_weight.shape
    output = each * state_shape[1] * state_shape[2] * parts.actions
    hidden_weights = units * features * max(len(window) for window in windows[0]) // height
    fixed = 2 * hidden_weights + 3 * ABLATIONS_AT_A_TIME * units
    return 4 * fixed, 4 * (3 * clean + 2 * carried + 2 * output + 3 * each * channels * state_shape[1] * state_shape[2])
