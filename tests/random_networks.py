"""Random small networks and states, and a brute-force ablation as the reference for every engine."""

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from nrmap.ablation import AblatedChunk, AblationSpec
from nrmap.ablation.incremental import IncrementalEngine
from nrmap.ablation.trace import trace
from nrmap.policies.agent import Agent


class RandomNetwork(nn.Module):
    """Convolutions with or without ReLU, and one of several heads."""

    def __init__(self, features: nn.Sequential, head: str, inputs: int, actions: int) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.advantage = _hidden(inputs, 7, actions) if head != "linear" else nn.Linear(inputs, actions)
        if head == "deep":
            self.advantage.append(nn.ReLU()).append(nn.Linear(actions, actions))
        self.value = _hidden(inputs, 5, 1) if head == "dueling" else None

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.features(inputs)
        advantage = self.advantage(features)
        if self.value is None:
            return advantage
        return self.value(features) + advantage - advantage.mean(dim=1, keepdim=True)


class ScaledPolicy(nn.Module):
    """A network with input scaling, states · scale − shift."""

    def __init__(self, network: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, states: Tensor) -> Tensor:
        return self.network(states.float() * self.scale - self.shift)


@dataclass
class Example:
    policy: ScaledPolicy
    states: Tensor  # uint8 [N, C, H, W]
    spec: AblationSpec

    @property
    def agent(self) -> Agent:
        return Agent(self.policy, tuple(self.states.shape[1:]), input_scale=None)


def incremental(agent: Agent, spec: AblationSpec, *, whole_strips: bool, **options: int) -> IncrementalEngine:
    """The incremental engine; whole strips are its form for GPUs."""
    parts = trace(agent.forward, torch.zeros(3, *agent.state_shape, dtype=torch.uint8))
    return IncrementalEngine(agent, parts, spec=spec, whole_strips=whole_strips, **options)


def _hidden(inputs: int, units: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, outputs))


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """A policy, states with many pixels of the ablated value, and an ablation."""
    channels = draw(st.integers(1, 4))
    height, width = draw(st.integers(3, 12)), draw(st.integers(3, 12))
    features, size, depth = nn.Sequential(), (height, width), channels
    for _ in range(draw(st.integers(1, 3))):
        pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
        kernel, stride, dilation = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(pair), draw(pair)
        padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        groups = draw(st.sampled_from([divisor for divisor in (1, 2) if depth % divisor == 0]))
        outputs = groups * draw(st.integers(1, 3))
        bias = draw(st.booleans())
        features.append(nn.Conv2d(depth, outputs, kernel, stride, padding, dilation, groups, bias))
        if draw(st.booleans()):
            features.append(nn.ReLU(inplace=draw(st.booleans())))
        size = tuple(
            (side + 2 * pad - dil * (ker - 1) - 1) // step + 1
            for side, ker, step, pad, dil in zip(size, kernel, stride, padding, dilation, strict=True)
        )
        assume(min(size) > 0)
        depth = outputs
    features.append(nn.Flatten())
    head = draw(st.sampled_from(["plain", "dueling", "linear", "deep"]))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    network = RandomNetwork(features, head, depth * size[0] * size[1], actions=draw(st.integers(2, 5)))
    scale = draw(st.sampled_from([1 / 255, 1 / 128]))
    policy = ScaledPolicy(network, scale, shift=draw(st.sampled_from([0.0, 0.5]))).eval().requires_grad_(False)
    value = draw(st.sampled_from([0, 0, 77, 255]))
    states = random_states(draw(st.integers(1, 3)), channels, height, width)
    return Example(policy, states, AblationSpec(value, draw(st.sampled_from(["all", "each"]))))


def joined(chunks: Iterable[AblatedChunk]) -> tuple[Tensor, Tensor]:
    """Ablated and clean Q-values of chunks that follow each other."""
    chunks = list(chunks)
    assert [chunk.start for chunk in chunks] == [0, *itertools.accumulate(len(c.q_values) for c in chunks)][:-1]
    return torch.cat([chunk.q_values for chunk in chunks]), torch.cat([chunk.clean_q_values for chunk in chunks])


def random_states(number: int, channels: int, height: int, width: int) -> Tensor:
    """States with few grey levels, so that many pixels have the ablated one."""
    levels = torch.tensor([0, 0, 30, 77, 77, 128, 255, 255], dtype=torch.uint8)
    return levels[torch.randint(len(levels), (number, channels, height, width))]


def plain_network(*layers: nn.Module, size: tuple[int, int, int]) -> RandomNetwork:
    """`layers`, then a dueling head with 3 actions, for states of (C, H, W) `size`."""
    features = nn.Sequential(*layers, nn.Flatten())
    network = RandomNetwork(features, "dueling", features(torch.zeros(1, *size)).shape[1], actions=3)
    return network.eval().requires_grad_(False)


def in_double(policy: ScaledPolicy) -> Callable[[Tensor], Tensor]:
    """The policy in float64; states are scaled in float32."""
    network = copy.deepcopy(policy.network).double()
    return lambda states: network((states.float() * policy.scale - policy.shift).double())


def ablated_one_by_one(policy: Callable[[Tensor], Tensor], states: Tensor, spec: AblationSpec) -> Tensor:
    """Q-values [N, H, W, A] or [N, C, H, W, A] by a loop over all pixels."""
    _, channels, height, width = states.shape
    groups = [slice(None)] if spec.channels == "all" else [slice(channel, channel + 1) for channel in range(channels)]
    q_values = []
    for group, row, column in itertools.product(groups, range(height), range(width)):
        ablated = states.clone()
        ablated[:, group, row, column] = spec.value
        q_values.append(policy(ablated))
    stacked = torch.stack(q_values, dim=1)  # [N, ablations, A]
    return stacked.unflatten(1, (height, width) if spec.channels == "all" else (channels, height, width))
