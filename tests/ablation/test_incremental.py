"""All engines against a loop over the pixels in float64."""

import pytest
import torch
from hypothesis import given, settings
from random_networks import ablated_one_by_one, examples, in_double, incremental, joined, plain_network, random_states
from torch import Tensor, nn

from bench.exactness import compare
from nrmap.ablation import AblationSpec, Engine, make_engine
from nrmap.policies.agent import Agent
from nrmap.support.errors import NrmapError

FORMS = ("incremental", "whole strips", "dense")


def engine_of(example, form: str, **options: bool) -> Engine:
    if form == "whole strips":
        return incremental(example.agent, example.spec, whole_strips=True, **options)
    return make_engine(example.agent, spec=example.spec, engine=form, **options)


def by_loop(example) -> Tensor:
    return ablated_one_by_one(in_double(example.policy), example.states, example.spec)


def beside(clean: Tensor, q_values: Tensor) -> Tensor:
    """Clean Q-values [N, A] in the shape of the ablated ones."""
    return clean.view(len(clean), *[1] * (q_values.ndim - 2), -1).expand_as(q_values)


@pytest.mark.bitwise
@pytest.mark.parametrize(("form", "at_a_time"), [*((form, 2048) for form in FORMS), ("incremental", 5)])
@settings(max_examples=25)
@given(example=examples())
def test_every_q_value_is_exact(form, at_a_time, example):
    engine = engine_of(example, form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nrmap.ablation.hidden.ABLATIONS_AT_A_TIME", at_a_time)
        q_values, clean = joined(engine.ablate(example.states))
    exact, exact_clean = by_loop(example), in_double(example.policy)(example.states)
    assert q_values.dtype == clean.dtype == torch.float32
    result = compare(q_values, exact)
    assert result.exact, result
    assert compare(clean, exact_clean).exact
    # An ablation that changes nothing gives the clean Q-values to the last bit.
    same = example.states == example.spec.value
    same = same.all(dim=1) if example.spec.channels == "all" else same
    assert torch.equal(q_values[same], beside(clean, q_values)[same])
    # What the engine calls rounding is at least what it gets wrong, and little.
    change, exact_change = q_values - beside(clean, q_values).double(), exact - beside(exact_clean, exact)
    assert (change - exact_change).abs().max() <= engine.rounding_floor <= 1e-5 * exact.abs().max().clamp(min=1)
    # Inference tensors would refuse in-place changes and gradients.
    (q_values * torch.ones(1, requires_grad=True)).sum().backward()
    clean += 1


@given(example=examples())
@settings(max_examples=5)
def test_a_wrong_number_of_episode_ids_is_refused(example) -> None:
    engine, ids = engine_of(example, "dense"), [0] * (len(example.states) + 1)
    with pytest.raises(NrmapError, match=f"episode_ids: expected one for each of {len(ids) - 1} states"):
        joined(engine.ablate(example.states, ids))


@pytest.mark.parametrize("form", FORMS[:2])
@settings(max_examples=20)
@given(example=examples())
def test_differences_of_actions_alone_are_exact_too(form, example):
    q_values, _ = joined(engine_of(example, form, differences_only=True).ablate(example.states))
    exact = by_loop(example)
    scale = exact.abs().amax(dim=-1, keepdim=True).clamp(min=1)
    error = (q_values - q_values[..., :1]).double() - (exact - exact[..., :1])
    assert (error.abs() / scale).max() <= 2e-5
    # With an action's own number put back, arg maxes are judged like any others.
    assert compare((q_values - q_values[..., :1] + exact[..., :1]).float(), exact).argmax_mismatches == 0


def test_a_small_memory_budget_means_few_states_at_a_time():
    torch.manual_seed(2)
    network = plain_network(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), size=(1, 20, 20))
    agent, spec, states = Agent(network, (1, 20, 20)), AblationSpec(), random_states(7, 1, 20, 20)
    (whole,) = make_engine(agent, spec=spec).ablate(states)
    engine = make_engine(agent, spec=spec, memory_budget=600_000)
    assert 1 <= engine.states_at_once < 4  # fewer than the states of the rounding floor
    assert engine.rounding_floor == make_engine(agent, spec=spec).rounding_floor
    assert compare(joined(engine.ablate(states))[0], whole.q_values.double()).exact
    with pytest.raises(NrmapError, match=r"memory budget of 1,000 bytes: one state takes [\d,]+"):
        make_engine(agent, spec=spec, memory_budget=1000)


def small_agent() -> Agent:
    torch.manual_seed(4)
    return Agent(plain_network(nn.Conv2d(1, 2, 3), nn.ReLU(), size=(1, 6, 6)), (1, 6, 6))


@pytest.mark.parametrize("engine", ["incremental", "dense"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e15])
def test_weights_and_outputs_that_are_not_finite(engine, bad):
    agent = small_agent()
    for parameter in agent.parameters():
        parameter *= bad
    message = "outputs are NaN or infinite" if bad == 1e15 else r"weight .*features\.0\.weight .* NaN or infinite"
    with pytest.raises(NrmapError, match=message):
        make_engine(agent, spec=AblationSpec(), engine=engine)


def test_ablated_outputs_that_are_not_finite():
    agent = Agent(lambda states: torch.stack([states.mean((1, 2, 3)), 1 / states.amax((1, 2, 3))], 1), (1, 2, 2))
    states = torch.tensor([[[[0, 9], [0, 0]]]], dtype=torch.uint8)
    with pytest.raises(NrmapError, match="outputs for state 0 or its ablations are NaN or infinite"):
        list(make_engine(agent, spec=AblationSpec(), engine="dense").ablate(states))


def test_an_agent_that_has_changed_is_noticed():
    agent = small_agent()
    engine = make_engine(agent, spec=AblationSpec())
    agent.function.features[0].weight += 1
    with pytest.raises(NrmapError, match="make a new engine"):
        list(engine.ablate(random_states(1, 1, 6, 6)))


def squared(states: Tensor) -> Tensor:
    """A function that the incremental engine does not support."""
    return states.float().flatten(1)[:, :3].square()


def test_auto_falls_back_with_one_warning_and_is_exact(caplog):
    agent, states, spec = Agent(squared, (1, 5, 6), input_scale=None), random_states(2, 1, 5, 6), AblationSpec()
    assert make_engine(small_agent(), spec=spec).name == "incremental"
    assert make_engine(agent, spec=spec, engine="dense").name == "dense"
    with pytest.raises(NrmapError, match=r"engine=incremental cannot ablate agent: .*; use engine=dense"):
        make_engine(agent, spec=spec, engine="incremental")
    assert not caplog.messages
    engine = make_engine(agent, spec=spec)
    assert engine.name == "dense"
    (warned,) = caplog.messages
    assert "its view reads the states" in warned
    assert torch.equal(joined(engine.ablate(states))[0], ablated_one_by_one(squared, states, spec))


@pytest.mark.cuda
@pytest.mark.parametrize("form", ["incremental", "dense"])
@settings(max_examples=20)
@given(example=examples())
def test_cuda_agrees(form, example):
    exact = by_loop(example)
    example.policy.cuda()
    q_values, clean = joined(engine_of(example, form).ablate(example.states))
    assert q_values.device == clean.device == torch.device("cpu")
    assert compare(q_values, exact).argmax_mismatches == 0
