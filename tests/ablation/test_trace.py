"""The tracer: supported networks equal their parts; others are refused with a reason."""

import operator

import pytest
import torch
from random_networks import random_states
from torch import Tensor, nn
from torch.nn import functional

from nrmap.ablation import AblationSpec, make_engine
from nrmap.ablation.exactness import compare
from nrmap.ablation.operations import NotTraceable
from nrmap.ablation.parts import Readout
from nrmap.ablation.trace import trace
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork

SHAPE = (2, 10, 9)


class Policy(nn.Module):
    """Layers for subclasses to combine; `forward` is the plain network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 4, 3, 2)
        self.second = nn.Conv2d(4, 6, 2)
        self.hidden = nn.Linear(6 * 3 * 3, 8)
        self.other_hidden = nn.Linear(6 * 3 * 3, 5)
        self.out = nn.Linear(8, 3)
        self.other_out = nn.Linear(5, 3)
        self.deep_out = nn.Linear(3, 3)
        self.dropout = nn.Dropout()
        self.mean = nn.Buffer(torch.rand(2, 1, 1))
        self.offset = nn.Parameter(torch.rand(3))

    def maps(self, states: Tensor) -> Tensor:
        return functional.relu(self.second(torch.relu(self.first(states / 255))))

    def forward(self, states: Tensor) -> Tensor:
        return self.out(functional.relu(self.hidden(self.maps(states.float()).flatten(1))))


class ReshapeBySize(Policy):
    def forward(self, states: Tensor) -> Tensor:
        maps = self.maps(states.float())
        return self.out(self.hidden(maps.view(maps.size(0), -1)).relu())


class ReshapeByShape(Policy):
    def forward(self, states: Tensor) -> Tensor:
        maps = self.maps(states.to(torch.float32)).contiguous()
        return self.out(self.hidden(maps.reshape(maps.shape[0], -1)).relu_())


class ChannelsScaledApart(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return super().forward((states.float() / 100 - self.mean) * 2)


class SharedHiddenSlices(Policy):
    """Value and advantage read halves of one hidden layer, as in stable-baselines' and RLlib's dueling heads."""

    def forward(self, states: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(torch.flatten(self.maps(states.float()), 1)))
        both = torch.cat([hidden[:, :4], -hidden[:, 4:]], dim=1)
        advantage = self.out(both) * 0.5
        return advantage - torch.mean(advantage, 1, keepdim=True) + hidden[:, :1] / 4


class TwoHiddenLayersAdded(Policy):
    def forward(self, states: Tensor) -> Tensor:
        features = self.dropout(self.maps(states.float())).flatten(start_dim=1)
        return self.out(self.hidden(features).relu()) + self.other_out(self.other_hidden(features).relu()) + self.offset


class MapsFlattenedTwice(Policy):
    def forward(self, states: Tensor) -> Tensor:
        maps = self.maps(states.float())
        return self.out(self.hidden(maps.flatten(1)).relu()) - self.other_out(self.other_hidden(maps.flatten(1)).relu())


class CastToItsWeights(Policy):
    """Casts of a policy that may run in half precision."""

    def forward(self, states: Tensor) -> Tensor:
        features = self.maps(states.to(self.first.weight.dtype)).flatten(1)
        return (self.out(self.hidden(features).relu()) + self.offset * 2).to(self.out.weight.dtype)


class Deep(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return self.deep_out(torch.relu(super().forward(states)))


class NoHiddenActivation(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return self.out(self.hidden(self.maps(states.float()).flatten(1)))


class Product(Policy):
    def forward(self, states: Tensor) -> Tensor:
        q_values = super().forward(states)
        return q_values * q_values


AFFINE_BEHIND_RELU = [
    Policy, ReshapeBySize, ReshapeByShape, ChannelsScaledApart, SharedHiddenSlices, TwoHiddenLayersAdded,
    MapsFlattenedTwice, CastToItsWeights,
]  # fmt: skip
OTHERS = [Deep, NoHiddenActivation, Product]


@pytest.mark.parametrize("kind", AFFINE_BEHIND_RELU + OTHERS)
@torch.no_grad()
def test_the_parts_are_the_network(kind):
    policy = kind().eval()
    states = random_states(3, *SHAPE)
    parts = trace(policy)
    assert len(parts.convolutions) == 2
    assert all(layer.relu for layer in parts.convolutions)
    assert isinstance(parts.tail, Readout) == (kind in AFFINE_BEHIND_RELU)
    torch.testing.assert_close(parts.q_values(states), policy(states))
    torch.testing.assert_close(parts.double().q_values(states).float(), policy(states))
    assert parts.double().q_values(states).dtype == torch.float64
    # And they are what the engine ablates.
    (incremental,) = make_engine(policy, spec=AblationSpec(), engine="incremental", state_shape=SHAPE).ablate(states)
    dense = make_engine(policy, spec=AblationSpec(), engine="dense", state_shape=SHAPE).ablate(states)
    assert compare(incremental.q_values, torch.cat([chunk.q_values for chunk in dense]).double()).exact


@torch.no_grad()
def test_weights_are_copied():
    policy = Policy().eval()
    states = random_states(2, *SHAPE)
    parts, before = trace(policy), policy(states)
    for parameter in policy.parameters():
        parameter += 1
    torch.testing.assert_close(parts.q_values(states), before)


@pytest.mark.parametrize("dueling", [False, True])
def test_the_projects_own_network(dueling):
    network = QNetwork(NetworkSpec(3, 20, 24, 5, dueling, convs=(ConvSpec(4, 4, 2), ConvSpec(6, 3, 1)), hidden=16))
    parts = trace(network)
    assert isinstance(parts.tail, Readout)
    assert len(parts.hidden_weight) == (32 if dueling else 16)
    assert parts.actions == 5
    assert parts.feature_sides(20, 24) == network.spec.feature_sides


class Pooled(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return self.deep_out(functional.max_pool2d(self.maps(states.float()), 3).flatten(1)[:, :3])


class Residual(Policy):
    def forward(self, states: Tensor) -> Tensor:
        first = self.first(states.float())
        return self.out(self.hidden(self.second(first + first.relu()).flatten(1)))


class Branching(Policy):
    def forward(self, states: Tensor) -> Tensor:
        first = self.first(states.float())
        first.relu()
        return self.out(self.hidden(self.second(first).flatten(1)))


class PixelsScaledApart(Policy):
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.rand(*SHAPE))

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states.float() - self.mean)


class ReadsTwice(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states) + self.first(states.float()).flatten(1)[:, :3]


class MeanOverStates(Policy):
    def forward(self, states: Tensor) -> Tensor:
        q_values = super().forward(states)
        return q_values - q_values.mean(dim=0, keepdim=True)


class Softmax(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states).softmax(1)


class DependsOnValues(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states) if states.sum() > 0 else self.offset


class TwoArguments(Policy):
    def forward(self, states: Tensor, offset: int = 0) -> Tensor:
        return super().forward(states)


class TwoResults(Policy):
    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(states), states


class NoConvolution(Policy):
    def forward(self, states: Tensor) -> Tensor:
        return operator.truediv(states, 255)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Pooled, "function max_pool2d is not supported"),
        (Residual, "add stands between convolutions"),
        (Branching, "convolutions branch at second"),
        (PixelsScaledApart, "scaling is not the same for all pixels"),
        (ReadsTwice, "first_1 reads the states"),
        (MeanOverStates, "mean behind the hidden layer is not supported"),
        (Softmax, "method softmax is not supported"),
        (DependsOnValues, "torch.fx cannot trace it"),
        (TwoArguments, "more than one argument"),
        (TwoResults, "does not return a single tensor"),
        (NoConvolution, "not made of convolutions, Flatten and Linear"),
    ],
)
def test_reasons_for_refusal(kind, reason):
    with pytest.raises(NotTraceable, match=reason):
        trace(kind().eval())


def test_more_reasons_for_refusal():
    with pytest.raises(NotTraceable, match=r"is a function, not a torch.nn.Module"):
        trace(lambda states: states)
    with pytest.raises(NotTraceable, match=r"layer dropout \(Dropout\) in training mode is not supported"):
        trace(TwoHiddenLayersAdded().train())
    policy = Policy().eval()
    policy.first = nn.Conv2d(2, 4, 3, 2, 1, padding_mode="reflect")
    with pytest.raises(NotTraceable, match="padding_mode='reflect'"):
        trace(policy)
    policy.first = nn.Conv2d(2, 4, 2, padding="same")
    with pytest.raises(NotTraceable, match="padding='same' with an even kernel"):
        trace(policy)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding):
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=padding), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    states = random_states(2, *SHAPE)
    network(states.float())
    policy = nn.Sequential(Scaled(), *network).eval()
    torch.testing.assert_close(trace(policy).q_values(states), policy(states))


class Scaled(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states.float() / 255
