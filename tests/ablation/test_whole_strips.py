"""The form of the incremental engine for GPUs: no host synchronisation, few operations, bounded memory."""

import itertools

import pytest
import torch
from random_networks import incremental, plain_network
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nrmap.ablation import AblationSpec, faster
from nrmap.ablation.carry import CleanLayer
from nrmap.ablation.dense import DenseEngine
from nrmap.ablation.hidden import CleanHidden
from nrmap.ablation.incremental import IncrementalEngine
from nrmap.policies.agent import Agent
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork

SIZE = (2, 12, 11)


def deep_agent() -> Agent:
    torch.manual_seed(0)
    network = plain_network(
        nn.Conv2d(2, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 2, dilation=2), size=SIZE
    )
    return Agent(network, SIZE)


def inputs_of_strips(agent: Agent, spec: AblationSpec, states: int) -> tuple[list[CleanLayer], CleanHidden, Tensor]:
    """The inputs of the strips for `states` random states."""
    engine = incremental(agent, spec, whole_strips=True)
    seen = torch.randint(256, (states, *SIZE), dtype=torch.uint8)
    pre_activations, hidden = engine._parts.pre_activations(seen)
    clean = [CleanLayer.of(z) for z in pre_activations]
    return clean, CleanHidden(hidden, engine._parts.tail(hidden)), engine._differences(seen)


class Counter(TorchDispatchMode):
    """Counts tensor operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append(str(function))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("channels", ["all", "each"])
def test_the_number_of_operations_does_not_grow_with_the_states(channels):
    agent, spec, calls = deep_agent(), AblationSpec(channels=channels), []
    for states in (1, 2, 9):
        clean, hidden, differences = inputs_of_strips(agent, spec, states)
        with torch.inference_mode(), Counter() as counter:
            for strip in incremental(agent, spec, whole_strips=True)._whole_strips:
                strip.q_changes(clean, hidden, differences[:, strip.rows])
        calls.append(counter.calls)
    assert len(calls[0]) == len(calls[1]) == len(calls[2]) > 100


@pytest.mark.parametrize("channels", ["all", "each"])
def test_a_strip_reads_no_value_on_the_host(channels):
    agent, spec = deep_agent(), AblationSpec(channels=channels)
    engine = incremental(agent, spec, whole_strips=True)
    clean, hidden, differences = inputs_of_strips(agent, spec, 3)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        clean = [CleanLayer(mode.from_tensor(z.below), mode.from_tensor(z.minus_above)) for z in clean]
        hidden = CleanHidden(mode.from_tensor(hidden.pre_activations), mode.from_tensor(hidden.q_values))
        differences = mode.from_tensor(differences)
        for strip in engine._whole_strips:
            q_changes = strip.q_changes(clean, hidden, differences[:, strip.rows])
            assert q_changes.shape == (*differences[:, strip.rows].shape[:4], 3)
        # The form for CPUs drops rows and units, which needs values.
        with pytest.raises(Exception, match="nonzero"):
            engine._carry(clean, hidden, differences, torch.zeros(3, engine._spec.ablated_shape(SIZE).numel(), 3))


def test_the_faster_engine_is_taken(monkeypatch):
    engine = incremental(deep_agent(), AblationSpec(), whole_strips=True)
    dense = DenseEngine(deep_agent(), spec=AblationSpec(), batch_size=100)
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)  # what is timed takes one second
    # Seven strips: kernel 4, stride 2 and padding 1 treat the rows 0, 1-2, 3-4, …, 9-10 and 11 alike.
    assert engine.seconds_per_state() == 7 / engine.states_at_once
    assert dense.seconds_per_state() == 12 * 11 / 100
    for seconds, expected in ((0.1, engine), (0.3, dense)):
        monkeypatch.setattr(IncrementalEngine, "seconds_per_state", lambda self, seconds=seconds: seconds)
        monkeypatch.setattr(DenseEngine, "seconds_per_state", lambda self: 0.2)
        assert faster(engine, dense) is expected


@pytest.mark.parametrize("whole_strips", [False, True])
def test_the_memory_budget_holds(whole_strips):
    network = QNetwork(NetworkSpec(2, 42, 42, 4, convs=(ConvSpec(16, 8, 4), ConvSpec(32, 4, 2)), hidden=256))
    agent, budget = Agent(network, (2, 42, 42)), 30_000_000
    engine = incremental(agent, AblationSpec(), memory_budget=budget, whole_strips=whole_strips)
    assert 4 < engine.states_at_once < 64
    states = torch.randint(256, (engine.states_at_once, 2, 42, 42), dtype=torch.uint8)
    list(engine.ablate(states))  # also makes the weights by tap
    with torch.profiler.profile(profile_memory=True) as profile:
        list(engine.ablate(states))
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    peak = max(itertools.accumulate(sizes))
    assert budget / 4 < peak <= budget
