"""The incremental engine: propagate changes instead of recomputing every ablated state."""

from functools import cached_property

import torch
from torch import Tensor

from nrmap.ablation.carry import CleanLayer, first_changes, next_changes
from nrmap.ablation.geometry import strips
from nrmap.ablation.hidden import ABLATIONS_AT_A_TIME, CleanHidden, HiddenLayer
from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.rounding import agrees, rounding_floor, sampled_ablations, synthetic_states
from nrmap.ablation.spec import AblationSpec, Engine
from nrmap.ablation.whole_strips import WeightCache, WholeStrip
from nrmap.policies.agent import Agent, usual_actions
from nrmap.support.errors import NrmapError, check
from nrmap.support.runtime import keep_freed_memory, seconds_of

# Larger matrix products are faster up to about this number of states at a time. A GPU needs more
# states until launching the operations takes less time than the operations.
MOST_STATES = {"cpu": 64, "cuda": 512}
CPU_MEMORY_BUDGET = 512 * 2**20
FRACTION_OF_FREE_GPU_MEMORY = 0.8


class IncrementalEngine(Engine):
    """An engine that carries the exact changes of all ablations through the parts of a traced network.

    See docs/ablation.md.
    """

    def __init__(
        self,
        agent: Agent,
        parts: NetworkParts,
        *,
        spec: AblationSpec,
        memory_budget: int | None = None,
        differences_only: bool = False,
        whole_strips: bool | None = None,
    ) -> None:
        """Prepare to ablate: `agent` gives the clean Q-values, and `parts`, traced from the agent, give the changes.

        With `differences_only` the Q-values of an ablated state may all be shifted by the same number. `memory_budget`
        in bytes limits the number of states ablated at a time. None means 512 MiB on a CPU and 80% of the free memory
        on a GPU. `whole_strips` says whether to compute by `nrmap.ablation.whole_strips` or by `nrmap.ablation.carry`.
        None means by the former on a GPU only. On a CPU the process keeps freed memory from now on, see
        `keep_freed_memory`.
        Raises NrmapError if the budget is too small for one state.
        """
        super().__init__(agent, spec)
        self.name = "incremental-differences" if differences_only else "incremental"
        self._differences_only = differences_only
        self._parts = parts = parts.differences_only() if differences_only else parts
        state_shape = agent.state_shape
        if self._device.type == "cpu":
            keep_freed_memory()  # otherwise page faults take a third of the time
        self._hidden_layer = HiddenLayer(parts, *state_shape[1:])
        self._strips = strips(parts.convolutions[0].vertical, state_shape[1])
        self._whole_strips: list[WholeStrip] = []
        whole = self._device.type == "cuda" if whole_strips is None else whole_strips
        if whole:
            cache: WeightCache = {}
            self._whole_strips = [
                WholeStrip(parts, self._hidden_layer, rows, state_shape[1:], cache) for rows in self._strips
            ]
        budget = _free_memory(self._device) if memory_budget is None else memory_budget
        fixed, per_state = _working_memory(parts, spec, state_shape, self._strips, whole=whole)
        check(fixed + per_state <= budget, f"memory budget of {budget:,} bytes: one state takes {fixed + per_state:,}")
        self.states_at_once = min(MOST_STATES[self._device.type], (budget - fixed) // per_state)

    @cached_property
    def rounding_floor(self) -> float:
        """The approximate upper limit of the rounding error of an ablation's change in Q, measured on synthetic states.

        Raises NrmapError for NaN or infinite Q-values, and as a call of the agent does.
        """
        states = synthetic_states(self._state_shape, self._device)
        ablated, scored = zip(*map(self._ablate, states.split(self.states_at_once)), strict=True)
        q_values, clean = torch.cat(ablated), torch.cat(scored)
        sample = q_values.flatten(1, -2)[:, sampled_ablations(self._spec, self._state_shape).to(self._device)]
        return rounding_floor(clean, sample, self._parts.double(), self._spec, states)

    @torch.inference_mode()
    def seconds_per_state(self) -> float:
        """Estimate the seconds that one state takes, by timing the first strip.

        The engine must use `nrmap.ablation.whole_strips`.
        """
        states = torch.zeros(self.states_at_once, *self._state_shape, dtype=torch.uint8, device=self._device)
        pre_activations, hidden = self._parts.pre_activations(states)
        clean, clean_hidden = [CleanLayer.of(z) for z in pre_activations], CleanHidden(hidden, self._parts.tail(hidden))
        strip = self._whole_strips[0]
        differences = self._differences(states)[:, strip.rows]
        seconds = seconds_of(lambda: strip.q_changes(clean, clean_hidden, differences), self._device)
        return seconds * len(self._whole_strips) / len(states)

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
        q_values = clean_q[:, None].repeat(1, ablated_shape.numel(), 1)  # [S, ablations, A]
        by_pixel = q_values.unflatten(1, (-1, *self._state_shape[1:]))  # [S, M, H, W, A]
        for strip in self._whole_strips:
            q_changes = strip.q_changes(clean, clean_hidden, differences[:, strip.rows])  # [W, I, M, S, A]
            by_pixel[:, :, strip.rows] += q_changes.permute(3, 2, 1, 0, 4)
        if not self._whole_strips:
            self._carry(clean, clean_hidden, differences, q_values)
        return q_values.unflatten(1, ablated_shape), clean_q

    def _carry(self, clean: list[CleanLayer], hidden: CleanHidden, differences: Tensor, q_values: Tensor) -> None:
        """Add each ablation's change to `q_values` [S, ablations, A]; skip ablations and units that change nothing."""
        first, *others = self._parts.convolutions
        numbers = torch.arange(q_values.shape[1], device=self._device).view(-1, *self._state_shape[1:])  # [M, H, W]
        numbers = numbers.permute(2, 1, 0)  # [W, H, M]
        for strip in self._strips:
            rows = slice(strip.start, strip.stop)
            ablations, changes = first_changes(first, clean[0], differences[:, rows], strip, numbers[:, rows])
            for layer, clean_layer in zip(others, clean[1:], strict=True):
                if changes.columns:
                    changes = next_changes(layer, clean_layer, ablations, changes)
            if changes.columns:
                q_changes = self._hidden_layer.q_changes(hidden, ablations, changes)  # [R, A]
                q_values[ablations.states, ablations.pixels] += q_changes

    def _agrees(self, found: Tensor, expected: Tensor) -> bool:
        if not self._differences_only:
            return agrees(found, expected)
        missing = (expected - found)[:, usual_actions(expected)].mean(dim=1, keepdim=True)  # [S, 1], common to all
        return agrees(found + missing, expected, roundings=4)

    def _differences(self, states: Tensor) -> Tensor:
        """Compute the change of the scaled input by each ablation, [W, H, M, S, K]; see `first_changes`."""
        levels = self._parts.scaled_values  # [256, C]
        channels = torch.arange(levels.shape[1], device=self._device)[:, None, None]
        before = levels[states.long(), channels]  # [S, C, H, W]
        differences = levels[self._spec.value][:, None, None] - before
        differences = differences.permute(3, 2, 1, 0)  # [W, H, C, S]
        return differences.unsqueeze(4) if self._spec.channels == "each" else differences.mT.unsqueeze(2)


def _free_memory(device: torch.device) -> int:
    """The default memory budget in bytes."""
    if device.type == "cpu":
        return CPU_MEMORY_BUDGET
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(FRACTION_OF_FREE_GPU_MEMORY * (torch.cuda.mem_get_info(device)[0] + unused))


def _working_memory(
    parts: NetworkParts, spec: AblationSpec, state_shape: tuple[int, int, int], blocks: list[range], *, whole: bool
) -> tuple[int, int]:
    """Return upper limits of the working memory in bytes: a fixed part, and a part for each state ablated at a time.

    `blocks` are the strips of image rows. `whole` says whether `nrmap.ablation.whole_strips` computes them.
    """
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
    per_state = 3 * clean + 2 * carried + 2 * output + 3 * each * channels * state_shape[1] * state_shape[2]
    if whole:  # the hidden layer of all ablations of a strip
        per_state += each * max(map(len, blocks)) * state_shape[2] * (units + 2 * parts.actions)
    return 4 * fixed, 4 * per_state
