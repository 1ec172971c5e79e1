"""Interval bounds against points in the ball, closed forms and a second implementation."""

import copy

import pytest
import torch
from ball_points import points_of_the_ball
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork
from nrmap.robustness.bounds import (
    Box,
    margin_bounds,
    margins_of,
    output_differences,
    propagate,
    q_difference_bounds,
    state_box,
)
from nrmap.robustness.perturbations import other_action_margin

SHAPES = (
    NetworkSpec(1, 12, 12, 3, convs=(ConvSpec(4, 4, 2), ConvSpec(5, 3, 1)), hidden=16),
    NetworkSpec(2, 11, 14, 4, dueling=False, convs=(ConvSpec(6, 5, 3),), hidden=9),
    NetworkSpec(1, 9, 9, 2, convs=(ConvSpec(3, 3, 2), ConvSpec(4, 2, 1), ConvSpec(3, 2, 1)), hidden=8),
)


def random_network(spec: NetworkSpec, seed: int, scale: float = 1.0) -> QNetwork:
    torch.manual_seed(seed)
    network = QNetwork(spec).requires_grad_(False).double()
    for parameter in network.parameters():
        parameter.mul_(scale)
    return network


def random_states(spec: NetworkSpec, seed: int, count: int = 4) -> torch.Tensor:
    """States in [0, 1] with many black and white pixels, where the ball is clipped."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, spec.in_channels, spec.height, spec.width)
    return torch.rand(shape, generator=generator, dtype=torch.float64).mul(1.6).sub(0.3).clamp(0, 1)


def differences_at(network: QNetwork, points: torch.Tensor) -> torch.Tensor:
    """Q(s', a) − Q(s', b), [N, A, A]."""
    q_values = network(points)
    return q_values[:, :, None] - q_values[:, None, :]


@settings(max_examples=40)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10**6),
    attack_epsilon=st.sampled_from([1 / 255, 3 / 255, 0.1, 0.4, 1.0]),
    scale=st.sampled_from([0.3, 1.0, 4.0]),
)
def test_no_point_of_the_ball_exceeds_the_bounds(shape, seed, attack_epsilon, scale):
    network, states = random_network(shape, seed, scale), random_states(shape, seed)
    bounds = q_difference_bounds(network, states, attack_epsilon)
    slack = 1e-12 * (1 + bounds.abs())
    for points in points_of_the_ball(states, attack_epsilon, seed, count=40):
        assert (differences_at(network, points) <= bounds + slack).all()


def ends_layer_by_layer(network: QNetwork, states: torch.Tensor, attack_epsilon: float):
    """A second implementation: lower and upper ends of the advantages, W⁺ and W⁻ instead of |W|."""
    low, high = (states - attack_epsilon).clamp(0, 1), (states + attack_epsilon).clamp(0, 1)
    for layer in (*network.features, *network.advantage):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rising, falling = copy.deepcopy(layer), copy.deepcopy(layer)
            rising.weight.clamp_(min=0)
            falling.weight.clamp_(max=0)
            falling.bias.zero_()
            low, high = rising(low) + falling(high), rising(high) + falling(low)
        else:
            low, high = layer(low), layer(high)
    return low, high


@settings(max_examples=20)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6), attack_epsilon=st.floats(0, 1))
def test_the_boxes_equal_those_with_two_ends(shape, seed, attack_epsilon):
    network, states = random_network(shape, seed), random_states(shape, seed)
    box = propagate((*network.features, *network.advantage), state_box(states, attack_epsilon))
    low, high = ends_layer_by_layer(network, states, attack_epsilon)
    torch.testing.assert_close(box.lower, low, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(box.upper, high, rtol=1e-10, atol=1e-10)


@settings(max_examples=20)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6))
def test_without_a_radius_the_bounds_are_the_network(shape, seed):
    network, states = random_network(shape, seed), random_states(shape, seed)
    bounds = q_difference_bounds(network, states, 0.0)
    torch.testing.assert_close(bounds, differences_at(network, states), rtol=1e-10, atol=1e-10)
    actions = torch.arange(len(states)) % shape.actions
    torch.testing.assert_close(
        margin_bounds(network, states, actions, 0.0), other_action_margin(network(states), actions)
    )


def test_margins_of_by_hand():
    differences = torch.tensor([[[0.0, 1.0, -2.0], [3.0, 0.0, 5.0], [-4.0, 0.5, 0.0]]]).expand(3, 3, 3)
    assert margins_of(differences, torch.tensor([0, 1, 2])).tolist() == [3.0, 1.0, 5.0]


def test_a_layer_without_an_interval_rule_is_refused():
    for option in ({"padding": 1}, {"dilation": 2}, {"groups": 2}):
        with pytest.raises(TypeError, match="no interval rule for Conv2d"):
            propagate([nn.Conv2d(2, 2, 2, **option)], Box(torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)))
    with pytest.raises(TypeError, match="no interval rule for Tanh"):
        propagate([nn.Tanh()], Box(torch.zeros(1, 1), torch.ones(1, 1)))


@pytest.mark.parametrize("attack_epsilon", [0.0, 0.05])
def test_the_gradient_is_that_of_finite_differences(attack_epsilon):
    spec = NetworkSpec(1, 6, 6, 3, convs=(ConvSpec(2, 3, 2),), hidden=4)
    network = random_network(spec, seed=1)
    states, actions = random_states(spec, seed=1, count=2), torch.tensor([0, 2])
    names = [name for name, _ in network.named_parameters() if not name.startswith("value")]

    class Margins(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self):
            return margin_bounds(self.network, states, actions, attack_epsilon)

    def margins(*weights):
        return functional_call(Margins(), {f"network.{name}": w for name, w in zip(names, weights, strict=True)}, ())

    weights = [network.get_parameter(name).clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(margins, weights)


def test_gradients_are_finite_where_weights_and_radii_are_zero():
    spec = SHAPES[0]
    network = random_network(spec, seed=0).float().requires_grad_(True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.flatten()[::2] = 0
        network.features[0].bias.fill_(-100.0)  # every ReLU is at rest
    margin_bounds(network, random_states(spec, 0).float(), torch.tensor([0, 1, 2, 0]), 0.0).sum().backward()
    for name, parameter in network.named_parameters():
        if name.startswith("value"):
            assert parameter.grad is None, "the value stream does not count"
        else:
            assert torch.isfinite(parameter.grad).all()


def test_output_differences_are_exact_over_a_box():
    """Against the maximum over all 2^F corners of the box."""
    torch.manual_seed(0)
    last = nn.Linear(6, 3).double().requires_grad_(False)
    box = Box(torch.randn(2, 6, dtype=torch.float64), torch.rand(2, 6, dtype=torch.float64))
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6)  # [64, 6]
    outputs = last(box.centre[:, None] + signs * box.radius[:, None])  # [2, 64, 3]
    expected = (outputs[..., :, None] - outputs[..., None, :]).amax(dim=1)  # [2, 3, 3]
    torch.testing.assert_close(output_differences(last, box), expected)
