"""An agent is a fixed function of the state, and scales its input itself."""

import itertools
import sys
from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_policies import FREEWAY, toy_policy

from nrmap.ablation import AblationSpec, make_engine
from nrmap.policies.agent import Agent
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork
from nrmap.support.errors import NrmapError

SHAPE = (2, 10, 12)


class NoisyLinear(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + 1e-3 * torch.randn(self.out_features)


class ScalesItself(nn.Identity):
    """Like a policy of stable-baselines3."""

    normalize_images = True


def layers(*extra: nn.Module, last: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), *extra, nn.ReLU(), nn.Flatten(), last(4 * 8 * 10, 3))


def some_states(number: int = 5) -> Tensor:
    return torch.randint(0, 256, (number, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def sums(states: Tensor) -> Tensor:
    return states.float().mean(dim=(2, 3))  # [N, 2]


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 2, np.float32(0.5), None])
def test_the_function_sees_float_states_times_the_scale_or_uint8_ones(scale: float | None) -> None:
    seen, states = [], some_states()
    Agent(lambda states: seen.append(states) or sums(states), SHAPE, input_scale=scale)(states)
    expected = states if scale is None else states.float() * float(scale)
    assert seen[-1].dtype == expected.dtype
    assert torch.equal(seen[-1], expected)


def test_without_a_scale_an_agent_cannot_be_attacked() -> None:
    agent = Agent(sums, SHAPE, input_scale=None)
    with pytest.raises(NrmapError, match="input_scale=None hands the function uint8 states, which have no gradient"):
        agent.for_attacks()


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 1 / 128])
def test_attacks_see_the_same_function_whatever_its_scale(scale: float) -> None:
    network, states = layers().double(), some_states()
    agent = Agent(lambda inputs: network(inputs.double() / (255 * scale)), SHAPE, input_scale=scale)
    points = (states / 255).requires_grad_()
    outputs = agent.for_attacks()(points)
    torch.testing.assert_close(outputs, agent(states), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(outputs[:, 0].sum(), points)
    points = (states.double() / 255).requires_grad_()
    (expected,) = torch.autograd.grad(network(points)[:, 0].sum(), points)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_policy_with_another_scale_is_attacked_at_that_scale() -> None:
    policy = toy_policy(FREEWAY)
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(256, (2, *policy.state_shape), dtype=torch.uint8, generator=generator)
    policy.input_scale = 1 / 100
    torch.testing.assert_close(policy.for_attacks()(states / 255), policy(states), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        layers(),
        layers(nn.BatchNorm2d(4)).eval(),
        layers(nn.Dropout(0.5)).eval(),
        layers(nn.InstanceNorm2d(4)).train(),
        QNetwork(NetworkSpec(*SHAPE, actions=3, convs=(ConvSpec(4, 3, 2),), hidden=8)).train(),
        lambda states: torch.full((len(states), 4), 3e9),
        lambda states: 1e6 * sums(states),
    ],
)
def test_fixed_functions_are_taken(function: Callable[[Tensor], Tensor]) -> None:
    states = some_states()
    assert torch.equal(Agent(function, SHAPE)(states), function(states.float() * (1 / 255)))


def reusing(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    memory = torch.empty(100, 2, dtype=torch.float64)
    return lambda states: memory[: len(states)].copy_(function(states))


def counter() -> Callable[[Tensor], Tensor]:
    calls = itertools.count()
    return lambda states: sums(states) + 0.01 * next(calls)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda states: 1e-7 * torch.rand(len(states), 3), "called twice on the same states"),
        (layers(last=NoisyLinear).eval(), "called twice on the same states"),
        (layers().double(), r"weights are torch.float64, its states float32: call float\(\) on it"),
        (counter(), "called twice on the same states"),
        (reusing(counter()), "called twice on the same states"),
        (layers(nn.Dropout(0.1)), "Dropout at .* in training mode"),
        (layers(nn.BatchNorm2d(4, track_running_stats=False)).eval(), "given one state at a time and in a batch"),
        (lambda states: sums(states) - sums(states).mean(dim=0), "given one state at a time and in a batch"),
        (lambda states: 1e-8 * (sums(states) + len(states)), "given one state at a time and in a batch"),
        (lambda states: (sums(states), sums(states)), "returns a tuple: expected one tensor"),
        (lambda states: sums(states)[:, :1], r"shape \[., 1\]: expected \[., A\] with A ≥ 2"),
        (lambda states: states, r"shape \[., 2, 10, 12\]: expected"),
        (lambda states: sums(states).long(), "outputs are torch.int64"),
        (lambda states: sums(states).to_sparse(), "expected one tensor"),
        (lambda states: sums(states).to("meta"), "expected one tensor"),
        (lambda states: sys.exit(3), "with SystemExit: 3"),
        (lambda states: sums(states) / 0, "NaN or infinite"),
        (nn.Conv2d(3, 4, 3), r"fails on states of shape \[., 2, 10, 12\] with RuntimeError: .*2 channels"),
    ],
)
@pytest.mark.parametrize("number", [1, 5])
def test_other_functions_are_refused_by_one_line(function: Callable[[Tensor], Tensor], why: str, number: int) -> None:
    states = some_states(number)
    with pytest.raises(NrmapError, match=why):
        Agent(function, SHAPE)(states)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Agent(Agent(sums)), "scaled twice"),
        (lambda: Agent(ScalesItself()), r"divides by 255 itself \(normalize_images\): give input_scale=1"),
        (lambda: setattr(Agent(sums), "env", 5), "env=5: expected nrmap.EnvSpec"),
        (lambda: Agent(3), "function=3: expected"),  # type: ignore[arg-type]
        (lambda: Agent(Mock(nn.Module, modules=Mock(side_effect=RuntimeError("none")))), "RuntimeError: none"),
        (lambda: Agent(sums, (84, 84)), r"state_shape=\(84, 84\): expected \(channels, height, width\)"),
        (lambda: Agent(sums, (1, 0, 84)), "sides of at least 1"),
        (lambda: Agent(sums, outputs="logit"), "did you mean logits"),  # type: ignore[arg-type]
        (lambda: Agent(sums, input_scale=0), "input_scale=0: expected a finite number > 0"),
        (lambda: Agent(sums, SHAPE)(some_states() / 255), r"states are torch.float32 .*: expected torch.uint8"),
        (lambda: Agent(lambda x: sums(x.fill_(3)), SHAPE, input_scale=None)(some_states()), "it changes the states"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NrmapError, match=message):
        make()


def test_the_incremental_engine_sees_through_an_agent() -> None:
    network = QNetwork(NetworkSpec(*SHAPE, actions=3, convs=(ConvSpec(4, 3, 2),), hidden=8)).requires_grad_(False)
    for function in (network, lambda states: network(states)):
        agent = Agent(function, SHAPE, input_scale=1 / 100)
        assert make_engine(agent, spec=AblationSpec(), engine="auto").name == "incremental"


@pytest.mark.parametrize(
    ("later", "why"),
    [
        (lambda states: sums(states).numpy(), "returns a ndarray: expected one tensor"),
        (lambda states: sums(states)[:1], r"have shape \[1, 2\]"),
        (lambda states: sums(states).repeat(1, 2), "now 4 of torch.float32: expected 2 of torch.float32, as before"),
        (lambda states: sums(states).double(), "now 2 of torch.float64"),
        (lambda states: sums(states) > 0, "outputs are torch.bool"),
        (lambda states: sums(states) / 0, "NaN or infinite"),
        (lambda states: sums(states) + sums(states.resize_(0)), "fails on|changes the states"),
    ],
)
def test_a_function_that_changes_after_its_check_is_refused(later: Callable[[Tensor], object], why: str) -> None:
    functions = [sums]
    agent, states = Agent(lambda inputs: functions[-1](inputs), SHAPE, input_scale=1 / 255), some_states()
    agent(states)
    attacked = agent.for_attacks()
    functions.append(later)
    # Maps check the values themselves, and name the state.
    for call in (lambda: agent(states), lambda: attacked(states / 255))["NaN" in why :]:
        with pytest.raises(NrmapError, match=why):
            call()


def test_outputs_stay_when_the_function_reuses_their_memory() -> None:
    agent, states = Agent(reusing(sums), SHAPE, input_scale=1), some_states()
    first, _ = agent(states), agent(255 - states)
    assert torch.equal(first, sums(states).double())
    points, attacked = states / 255, agent.for_attacks()
    first, _ = attacked(points), attacked(1 - points)
    assert torch.equal(first, sums(points * 255).double())


@pytest.mark.parametrize("wrap", [nn.Parameter, lambda outputs: outputs.clone().requires_grad_()])
def test_outputs_without_gradient_where_none_is_asked_for(wrap: Callable[[Tensor], Tensor]) -> None:
    agent = Agent(lambda states: wrap(sums(states)), SHAPE)
    with torch.inference_mode():
        np.testing.assert_allclose(agent(some_states()).numpy() * 255, sums(some_states()).numpy(), rtol=1e-5)
