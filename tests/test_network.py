"""The network is the paper's, and its frozen view is the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrmap.errors import NrmapError
from nrmap.network import ConvSpec, NetworkSpec, QNetwork, frozen


def test_the_default_is_the_nature_network_with_dueling_heads() -> None:
    network = QNetwork(NetworkSpec(1, 84, 84, 3))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    assert shapes["features.0.weight"] == (32, 1, 8, 8)
    assert shapes["features.2.weight"] == (64, 32, 4, 4)
    assert shapes["features.4.weight"] == (64, 64, 3, 3)
    assert shapes["advantage.0.weight"] == shapes["value.0.weight"] == (512, 64 * 7 * 7)
    assert shapes["advantage.2.weight"] == (3, 512)
    assert shapes["value.2.weight"] == (1, 512)


def test_dueling_heads_add_up_as_equation_9_of_wang_et_al() -> None:
    network = QNetwork(NetworkSpec(2, 84, 84, 5))
    states = torch.rand(3, 2, 84, 84)
    features = network.features(states)
    assert network.value is not None
    value, advantage = network.value(features), network.advantage(features)
    expected = torch.stack([value[n, 0] + advantage[n] - advantage[n].sum() / 5 for n in range(3)])
    torch.testing.assert_close(network(states), expected)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 3),
    height=st.integers(12, 24),
    width=st.integers(12, 24),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 4),
    dueling=st.booleans(),
)
def test_frozen_is_the_same_function_with_the_same_input_gradient(
    channels: int, height: int, width: int, kernel: int, stride: int, dueling: bool
) -> None:
    convs = (ConvSpec(4, kernel, stride), ConvSpec(3, 2, 1))
    if min((side - kernel) // stride for side in (height, width)) < 1:
        return
    network = QNetwork(NetworkSpec(channels, height, width, 4, dueling=dueling, convs=convs, hidden=7)).double()
    states = torch.rand(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 4, dtype=torch.float64)
    view = frozen(network)
    torch.testing.assert_close(view(states), network(states))
    (ours,) = torch.autograd.grad((view(states) * weights).sum(), states)
    (expected,) = torch.autograd.grad((network(states) * weights).sum(), states)
    torch.testing.assert_close(ours, expected)
    # Numbers that are the same for all actions, and weights that add up to 0 do not see them.
    missing = frozen(network, value=False)(states) - network(states)  # [N, A]
    torch.testing.assert_close(missing, missing[:, :1].expand_as(missing))
    weights = weights - weights.mean(dim=1, keepdim=True)
    (ours,) = torch.autograd.grad((frozen(network, value=False)(states) * weights).sum(), states)
    (expected,) = torch.autograd.grad((network(states) * weights).sum(), states)
    torch.testing.assert_close(ours, expected)


def test_frozen_fills_no_parameter_gradient() -> None:
    network = QNetwork(NetworkSpec(1, 84, 84, 3))
    states = torch.rand(2, 1, 84, 84, requires_grad=True)
    frozen(network)(states).sum().backward()
    assert states.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_screen_too_small_is_one_clear_line() -> None:
    with pytest.raises(NrmapError, match="10×84 screen is too small"):
        NetworkSpec(1, 10, 84, 3)
