"""Contenders of the map benchmark: the incremental engine, dense batches and captum; checks of exactness.

Each computes Q-values of states with one pixel at a time set to zero in all frames. Captum computes
one action per call, so its contenders skip the other actions.
"""

import copy
import itertools
import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.exactness import Exactness, compare
from bench.map_cases import Case
from bench.paired import Work
from nrmap.ablation import AblationSpec, hidden, make_engine
from nrmap.ablation import incremental as incremental_engine
from nrmap.ablation.carry import Ablations, Changes
from nrmap.ablation.dense import DenseEngine
from nrmap.ablation.hidden import HiddenLayer
from nrmap.ablation.parts import Convolution
from nrmap.ablation.rounding import ablate_pixels
from nrmap.policies.network import unit_states
from nrmap.policies.policy import Policy
from nrmap.support.runtime import keep_freed_memory, peak_memory_mb

SPEC = AblationSpec(value=0, channels="all")
EXACT_BATCH = 64

Ablates = Callable[[Tensor], Tensor]  # from one uint8 state, [1, C, H, W]


def incremental(case: Case, differences_only: bool = False) -> Work:
    """Make the work of the incremental engine: `run(amount)` ablates `amount` states in one call."""
    policy, states = case.load()
    engine = make_engine(policy, spec=SPEC, engine="incremental", differences_only=differences_only)

    def run(amount: int) -> int:
        for _ in engine.ablate(_cycled(states, amount)):
            pass
        return amount

    run(2)
    return Work(run)


def _cycled(states: Tensor, amount: int) -> Tensor:
    """Return the first `amount` states [amount, C, H, W], from the beginning again where there are fewer."""
    return states.repeat(-(-amount // len(states)), 1, 1, 1)[:amount]


def operations_by_layer(case: Case, differences_only: bool = False) -> dict[str, float]:
    """Count the average floating-point operations per state in the engine's matrix products and convolutions.

    Keys are "conv2" and later convolutions, "hidden" for the hidden and last layers, and "sum" for all layers.
    """
    policy, states = case.load()
    engine = make_engine(policy, spec=SPEC, engine="incremental", differences_only=differences_only)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_operations})
    found: Counter[str] = Counter()
    layers: dict[int, str] = {}

    def counted(function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            before = counter.get_total_flops()
            result = function(*arguments)
            found[name(*arguments)] += counter.get_total_flops() - before
            return result

        return call

    def name_of_layer(layer: Convolution, *_: object) -> str:
        return layers.setdefault(id(layer), f"conv{len(layers) + 2}")

    carry = counted(incremental_engine.next_changes, name_of_layer)
    read = counted(HiddenLayer.q_changes, lambda *_: "hidden")
    of_carry = mock.patch.object(incremental_engine, "next_changes", carry)
    of_read = mock.patch.object(HiddenLayer, "q_changes", read)
    with of_carry, of_read, counter:
        list(engine.ablate(states))
    return {name: number / len(states) for name, number in (*found.items(), ("sum", counter.get_total_flops()))}


def units_left(case: Case, differences_only: bool = False) -> dict[str, float]:
    """Return the average fraction of units that the engine keeps, by layer, in the rows that an ablation reaches.

    The engine ablates strips of image rows. It drops units of a convolution that no ablation of a strip
    changes, and units of the "hidden" layer that keep their sign under all ablations of a strip.
    """
    policy, states = case.load()
    engine = make_engine(policy, spec=SPEC, engine="incremental", differences_only=differences_only)
    found: dict[str, list[int]] = {}
    layers: dict[int, str] = {}
    sort = hidden.sorted_units

    def note(name: str, left: int, units: int) -> None:
        of_layer = found.setdefault(name, [0, 0])
        of_layer[0] += left
        of_layer[1] += units

    def noted(carry: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: Convolution, *arguments: Any) -> Any:
            result = carry(layer, *arguments)
            changes: Changes = result[1] if isinstance(result, tuple) else result
            name = layers.setdefault(id(layer), f"conv{len(layers) + 1}")
            for column in changes.columns.values():
                note(name, column.changes.numel(), len(column.changes) * len(changes.window) * changes.channels)
            return result

        return call

    def sort_noted(weights: Any, pre_activations: Tensor, ablations: Ablations, features: Any) -> tuple[Tensor, Tensor]:
        linear, undecided = sort(weights, pre_activations, ablations, features)
        note("hidden", len(ablations) * len(undecided), len(ablations) * len(linear))
        return linear, undecided

    with (
        mock.patch.object(incremental_engine, "first_changes", noted(incremental_engine.first_changes)),
        mock.patch.object(incremental_engine, "next_changes", noted(incremental_engine.next_changes)),
        mock.patch.object(hidden, "sorted_units", sort_noted),
    ):
        list(engine.ablate(states))
    return {name: left / units for name, (left, units) in found.items()}


def _addmm_operations(sums: Sequence[int], one: Sequence[int], two: Sequence[int], **_: object) -> int:
    """Operations of sums += one @ two; torch's own counter ignores the in-place variant."""
    return 2 * one[0] * one[1] * two[1]


def dense(policy: Policy, batch_size: int, *, skip_unchanged: bool) -> Ablates:
    """Make a function that ablates a state in dense batches, channels last, and returns all Q-values, [1, H, W, A]."""
    keep_freed_memory()  # as in the engine, but not for captum, whose memory would then grow without limit
    engine = DenseEngine(
        policy, spec=SPEC, batch_size=batch_size, skip_unchanged=skip_unchanged, memory_format=torch.channels_last
    )

    def ablate(state: Tensor) -> Tensor:
        (chunk,) = engine.ablate(state)
        return chunk.q_values

    return ablate


def feature_ablation(policy: Policy, perturbations_per_eval: int) -> Ablates:
    """Make a function from a state to its drops in Q(s, 0), [1, C, H, W]: captum's FeatureAblation, pixel by pixel."""
    from captum.attr import FeatureAblation

    channels, height, width = policy.env.state_shape
    pixels = torch.arange(height * width, device=policy.device).view(1, 1, height, width)
    pixels = pixels.expand(1, channels, height, width)
    return _drops(FeatureAblation(policy.network), perturbations_per_eval, feature_mask=pixels)


def occlusion(policy: Policy, perturbations_per_eval: int) -> Ablates:
    """Make a function from a state to its drops in Q(s, 0), [1, C, H, W]: captum's Occlusion, one pixel a window."""
    from captum.attr import Occlusion

    window = (policy.env.state_shape[0], 1, 1)
    return _drops(Occlusion(policy.network), perturbations_per_eval, sliding_window_shapes=window, strides=window)


def _drops(method: Any, perturbations_per_eval: int, **options: Any) -> Ablates:
    options |= {"target": 0, "perturbations_per_eval": perturbations_per_eval}
    return lambda state: method.attribute(unit_states(state), **options)


def one_by_one(rival: Callable[[Policy, int], Ablates], case: Case, batch_size: int) -> Work:
    """Make the work of `rival`, which cycles through the states of `case`, one at a time."""
    policy, states = case.load()
    ablate, turns = rival(policy, batch_size), itertools.cycle(states.split(1))

    def run(amount: int) -> int:
        with torch.inference_mode():
            for _ in range(amount):
                ablate(next(turns))
        return amount

    return Work(run)


def best_batch_size(prepare: Callable[[Case, int], Work], case: Case, sizes: Sequence[int]) -> int:
    """Return the batch size with the shortest time per state; the better of two tries counts."""
    works = {size: prepare(case, size) for size in sizes}
    seconds = dict.fromkeys(sizes, math.inf)
    for _ in range(2):
        for size, work in works.items():
            begun = time.perf_counter()
            work.run(1)
            seconds[size] = min(seconds[size], time.perf_counter() - begun)
    return min(seconds, key=seconds.__getitem__)


def peak_memory(case: Case, num_states: int, engine: Literal["incremental", "dense"]) -> tuple[float, float]:
    """Ablate `num_states` states; return this process's peak resident MiB, and the growth after loading the states."""
    policy, states = case.load()
    states = _cycled(states, num_states)
    policy(states[:1])
    before = _resident_mb()
    for _ in make_engine(policy, spec=SPEC, engine=engine).ablate(states):
        pass
    peak = peak_memory_mb()
    return peak, peak - before


def _resident_mb() -> float:
    statm = Path("/proc/self/statm")
    if not statm.is_file():  # not Linux: assume that loading took the most memory so far
        return peak_memory_mb()
    pages = int(statm.read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def exactness(case: Case, num_states: int) -> tuple[Exactness, float]:
    """Apply `exactness_of` to the first `num_states` states of a case."""
    policy, states = case.load()
    return exactness_of(policy, states[:num_states], EXACT_BATCH)


@torch.inference_mode()
def exactness_of(policy: Policy, states: Tensor, batch_size: int) -> tuple[Exactness, float]:
    """Compare the incremental engine with the network in float64 on all pixels; also return the rounding floor.

    `states` are uint8 [N, C, H, W]. The engine may round Q-values by up to its rounding floor.
    """
    engine = make_engine(policy, spec=SPEC, engine="incremental")
    network, exact = copy.deepcopy(policy.network).double(), []
    found = torch.cat([chunk.q_values.flatten(0, 2) for chunk in engine.ablate(states)])
    for state in states.to(policy.device):
        for numbers in torch.arange(state[0].numel(), device=policy.device).split(batch_size):
            scaled = unit_states(ablate_pixels(state, numbers, SPEC))
            exact.append(network(scaled.double().contiguous(memory_format=torch.channels_last)).cpu())
    return compare(found, torch.cat(exact)), engine.rounding_floor
