"""SA-DDQN with interval bounds: its update written out, and that it ends in agents that can be certified."""

import copy

import pytest
import torch
from torch import nn
from toy_learners import ACTIONS, gradients, make_batch, make_learner, plain_td_loss

from nrmap.policies.network import QNetwork, frozen
from nrmap.robustness.attacks import pgd
from nrmap.robustness.certify import IntervalCertifier


@pytest.fixture
def interval_regulariser(tiny_regulariser):
    def interval_regulariser(**changes):
        values = {"kappa": 0.7, "hinge": 0.5, "hinge_reduction": "per_sample_mean", "ramp_steps": 100}
        return tiny_regulariser(solver="ibp", pgd_steps=0, pgd_step_fraction=0.0, **{**values, **changes})

    return interval_regulariser


def worst_margins(network: QNetwork, states: torch.Tensor, radius: float) -> torch.Tensor:
    """One state, one layer, one pair of actions after the other, with two ends instead of a centre."""
    margins = []
    for state in states:
        a_star = int(network(state[None]).argmax())
        low, high = (state[None] - radius).clamp(min=0), (state[None] + radius).clamp(max=1)
        for layer in (*network.features, *network.advantage[:2]):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                apply = layer._conv_forward if isinstance(layer, nn.Conv2d) else nn.functional.linear
                rising, falling, none = layer.weight.clamp(min=0), layer.weight.clamp(max=0), None
                low, high = (
                    apply(low, rising, layer.bias) + apply(high, falling, none),
                    apply(high, rising, layer.bias) + apply(low, falling, none),
                )
            else:
                low, high = layer(low), layer(high)
        last = network.advantage[2]
        leads = []
        for action in set(range(ACTIONS)) - {a_star}:
            row = last.weight[action] - last.weight[a_star]
            lead = (row.clamp(min=0) * high[0]).sum() + (row.clamp(max=0) * low[0]).sum()
            leads.append(lead + last.bias[action] - last.bias[a_star])
        margins.append(torch.stack(leads).max())
    return torch.stack(margins)


@pytest.mark.parametrize("reduction", ["per_sample_mean", "batch_sum"])
@pytest.mark.parametrize("agent_step", [40, 500])
def test_an_update_descends_td_plus_kappa_times_equation_7(reduction, agent_step, interval_regulariser):
    learner = make_learner(interval_regulariser(hinge_reduction=reduction))
    random_numbers = learner.generator.get_state()
    for seed in range(3):
        batch, before = make_batch(seed), copy.deepcopy(learner.online)
        td = plain_td_loss(before, learner.target_network, batch, double_q=True)
        margins = worst_margins(before, batch.s_tm1.float() / 255, learner.rates(agent_step).attack_epsilon)
        robust = margins.clamp(min=-0.5).mean() if reduction == "per_sample_mean" else margins.sum().clamp(min=-0.5)
        expected = gradients(td + 0.7 * robust, before)
        metrics = learner.update(batch, agent_step)
        assert metrics["robust_loss"].item() == pytest.approx(robust.item(), rel=1e-4, abs=1e-6)
        assert metrics["loss"].item() == pytest.approx((td + 0.7 * robust).item(), rel=1e-4)
        assert metrics["uncertified"].item() == pytest.approx((margins > 0).float().mean().item())
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    assert torch.equal(learner.generator.get_state(), random_numbers), "bounds draw none"


class FixedNoise:
    """Random starts for an attack on states that are of no episode."""

    def uniform(self, like: torch.Tensor, draw: int, rows: torch.Tensor | None = None) -> torch.Tensor:
        return torch.rand(like.shape, generator=torch.Generator().manual_seed(draw)) * 2 - 1


def test_training_on_the_bounds_ends_in_a_network_that_is_certified(interval_regulariser):
    """With κ = 0 nothing is proven and the attack succeeds; with κ everything is, and it fails everywhere."""
    batch, radius = make_batch(0, size=24), 0.1
    states = batch.s_tm1.float() / 255
    shares, flips = {}, {}
    for kappa in (0.0, 1.0):
        learner = make_learner(interval_regulariser(kappa=kappa, attack_epsilon=radius))
        for update in range(150):
            learner.update(batch, agent_step=update)
        q_values = frozen(learner.online)
        result = pgd(20)(q_values, states, attack_epsilon=radius, noise=FixedNoise())
        certified = IntervalCertifier(learner.online)(states, result.clean_actions, radius)
        shares[kappa], flips[kappa] = certified.double().mean().item(), result.flipped.double().mean().item()
    assert (shares[0.0], shares[1.0]) == (0.0, 1.0)
    assert flips[0.0] > 0.1
    assert flips[1.0] == 0
