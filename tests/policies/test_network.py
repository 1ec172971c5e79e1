"""The network is the paper's, and its frozen view is the same function."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork, frozen, rounded, with_rounded_weights


def test_the_default_is_the_nature_network_with_dueling_heads() -> None:
    network = QNetwork(NetworkSpec(1, 84, 84, 3))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    convolutions = (32, 1, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)
    assert tuple(shapes[f"features.{layer}.weight"] for layer in (0, 2, 4)) == convolutions
    assert shapes["advantage.0.weight"] == shapes["value.0.weight"] == (512, 64 * 7 * 7)
    assert (shapes["advantage.2.weight"], shapes["value.2.weight"]) == ((3, 512), (1, 512))


SIDES = st.integers(12, 24)


@settings(max_examples=25)
@given(st.integers(1, 3), SIDES, SIDES, st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_frozen_is_the_same_function_with_the_same_input_gradient(
    channels: int, height: int, width: int, kernel: int, stride: int, dueling: bool
) -> None:
    torch.manual_seed(0)
    convs = (ConvSpec(4, kernel, stride), ConvSpec(3, 2, 1))
    network = QNetwork(NetworkSpec(channels, height, width, 4, dueling=dueling, convs=convs, hidden=7)).double()
    states = torch.rand(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 4, dtype=torch.float64)

    def gradient(function: Callable[[torch.Tensor], torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((function(states) * weights).sum(), states)[0]

    view, without_value = frozen(network), frozen(network, value=False)
    torch.testing.assert_close(view(states), network(states))
    torch.testing.assert_close(gradient(view, weights), gradient(network, weights))
    # Numbers that are the same for all actions, and weights that add up to 0 do not see them.
    missing = without_value(states) - network(states)  # [N, A]
    torch.testing.assert_close(missing, missing[:, :1].expand_as(missing))
    weights = weights - weights.mean(dim=1, keepdim=True)
    torch.testing.assert_close(gradient(without_value, weights), gradient(network, weights))
    view(states).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("dueling", [True, False])
def test_a_rounded_network_rounds_what_is_inside_and_not_its_values(dueling: bool) -> None:
    torch.manual_seed(0)
    network = QNetwork(NetworkSpec(1, 84, 84, 3, dueling=dueling))
    with torch.no_grad():
        (network.value or network.advantage)[-1].bias += 1.0  # values of about 1, where bfloat16 has steps of 1/128
    states = torch.rand(8, 1, 84, 84)
    exact = network(states)
    assert rounded(network, torch.float32) is network
    views = [rounded(network, torch.bfloat16, exact_input=exact_input) for exact_input in (False, True)]
    for view in (*views, frozen(network, precision=torch.bfloat16)):
        q_values = view(states)
        assert q_values.dtype == torch.float32
        assert 0 < (q_values - exact).abs().max() < 1 / 128 / 4
        assert not torch.equal(q_values, q_values.bfloat16().float())


@pytest.mark.parametrize("dueling", [True, False])
def test_weights_that_were_rounded_once_give_the_same_values(dueling: bool) -> None:
    torch.manual_seed(0)
    network, states = QNetwork(NetworkSpec(1, 84, 84, 3, dueling=dueling)), torch.rand(8, 1, 84, 84)
    kept = with_rounded_weights(network, torch.bfloat16)
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())
    with torch.no_grad():
        assert torch.equal(rounded(kept, torch.bfloat16)(states), rounded(network, torch.bfloat16)(states))
        other = QNetwork(network.spec)
        kept.load_state_dict(other.state_dict())  # as a target network is renewed
        assert torch.equal(rounded(kept, torch.bfloat16)(states), rounded(other, torch.bfloat16)(states))


def test_in_bfloat16_gradients_keep_their_signs_and_changes_below_its_steps_are_seen() -> None:
    torch.manual_seed(0)
    network = QNetwork(NetworkSpec(1, 84, 84, 3))
    states = torch.randint(129, 255, (4, 1, 84, 84)).bfloat16().float() / 256  # where its steps are 1/256
    changed = states + (torch.rand_like(states) - 0.5) / 256 * 0.9
    assert torch.equal(states.bfloat16(), changed.bfloat16())
    for view in (rounded(network, torch.bfloat16, exact_input=True), frozen(network, precision=torch.bfloat16)):
        assert not torch.equal(view(states), view(changed))
    signs = []
    for precision in (None, torch.bfloat16):
        q_values = frozen(network, value=False, precision=precision)(changed.requires_grad_())
        (gradient,) = torch.autograd.grad((q_values[:, 0] - q_values[:, 1]).sum(), changed)
        assert gradient.dtype == torch.float32
        signs.append(gradient.sign())
    assert (signs[0] == signs[1]).float().mean() > 0.95
