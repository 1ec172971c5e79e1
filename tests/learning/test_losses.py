"""The gradient of one update against that of the losses written out, for DDQN, SA-DDQN and the anchor."""

import copy

import pytest
import torch
from toy_learners import (
    ACTIONS,
    PRECISIONS,
    gradients,
    make_batch,
    make_learner,
    plain_regulariser,
    plain_td_loss,
    undecided_network,
    weights_of,
    with_another_target,
)

from nrmap.learning.double_dqn import anchor_loss
from nrmap.learning.state_adversarial import hold_advantages
from nrmap.robustness.perturbations import other_action_margin


@pytest.mark.parametrize("double_q", [True, False])
def test_ddqn_descends_the_td_loss(double_q):
    learner = with_another_target(make_learner(double_q=double_q, target_update_period=100))
    for seed in range(3):
        batch = make_batch(seed)
        before = copy.deepcopy(learner.online)
        loss = plain_td_loss(before, learner.target_network, batch, double_q=double_q)
        expected = gradients(loss, before)
        metrics = learner.update(batch, agent_step=0)
        assert metrics["loss"].item() == metrics["td_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["batch_sum", "per_sample_mean"])
@pytest.mark.parametrize("hinge", [0.02, 5.0])
def test_sa_ddqn_descends_td_plus_kappa_times_equation_7(reduction, hinge, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.7, hinge=hinge, hinge_reduction=reduction, pgd_steps=3)
    learner = with_another_target(make_learner(regulariser))
    for seed in range(3):
        batch, agent_step = make_batch(seed), 40 * (seed + 1)
        before = copy.deepcopy(learner.online)
        generator = torch.Generator()
        generator.set_state(learner.generator.get_state())
        radius = learner.rates(agent_step).attack_epsilon
        assert 0 < radius <= regulariser.attack_epsilon
        td = plain_td_loss(before, learner.target_network, batch, double_q=True)
        robust = plain_regulariser(before, batch, regulariser, radius=radius, generator=generator)
        expected = gradients(td + 0.7 * robust, before)
        metrics = learner.update(batch, agent_step)
        assert metrics["robust_loss"].item() == pytest.approx(robust.item(), rel=1e-4, abs=1e-6)
        assert metrics["td_loss"].item() == pytest.approx(td.item(), rel=1e-4)
        assert metrics["loss"].item() == pytest.approx((td + 0.7 * robust).item(), rel=1e-4)
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("robust", [False, True])
def test_an_anchor_adds_its_loss_and_never_moves(robust, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.0) if robust else None
    parent = undecided_network(3)
    unmoved = copy.deepcopy(parent.state_dict())
    free, held = make_learner(regulariser), make_learner(regulariser, parent=parent, anchor=0.3)
    batch = make_batch(0)
    before = copy.deepcopy(held.online)
    states = batch.s_tm1.float() / 255
    term = gradients(0.3 * anchor_loss(before(states), parent(states)), before)
    metrics = held.update(batch, agent_step=80)
    free.update(batch, agent_step=80)
    assert metrics["anchor_loss"] > 0
    assert metrics["loss"].item() == pytest.approx((metrics["td_loss"] + 0.3 * metrics["anchor_loss"]).item(), rel=1e-5)
    for ours, plain, anchor in zip(held.online.parameters(), free.online.parameters(), term, strict=True):
        torch.testing.assert_close(ours.grad, plain.grad + anchor, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(parent.state_dict()[name], unmoved[name]) for name in unmoved)


def held_regulariser(tiny_regulariser, fraction):
    return tiny_regulariser(
        kappa=0.7, hinge=100.0, hinge_reduction="per_sample_mean", pgd_steps=3, hold_advantages=fraction
    )


@pytest.mark.parametrize("fraction", [1.0, 0.25])
def test_held_advantages_leave_r_its_value_and_give_it_the_gradient_of_the_relative_slack(fraction, tiny_regulariser):
    regulariser = held_regulariser(tiny_regulariser, fraction)
    learner, batch, agent_step = with_another_target(make_learner(regulariser)), make_batch(0), 80
    before = copy.deepcopy(learner.online)
    generator = torch.Generator()
    generator.set_state(learner.generator.get_state())
    radius = learner.rates(agent_step).attack_epsilon
    td = plain_td_loss(before, learner.target_network, batch, double_q=True)
    robust = plain_regulariser(before, batch, regulariser, radius=radius, generator=generator)
    q_values = before(batch.s_tm1.float() / 255)
    best = q_values.topk(2, dim=1).values  # [B, 2]
    slack = robust - (best[:, 1] - best[:, 0]).mean()
    advantages = q_values - q_values.mean(dim=1, keepdim=True)
    spread = ((advantages - advantages.mean(dim=0)) ** 2).mean().sqrt()
    held = slack / spread * spread.item()
    expected = gradients(td + 0.7 * (fraction * held + (1 - fraction) * robust), before)
    metrics = learner.update(batch, agent_step)
    assert metrics["robust_loss"].item() == pytest.approx(robust.item(), rel=1e-4, abs=1e-6)
    for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_with_held_advantages_neither_a_larger_lead_nor_a_smaller_scale_lowers_r():
    torch.manual_seed(0)
    q_values, moved = torch.randn(6, ACTIONS), 0.3 * torch.randn(6, ACTIONS)
    lead, scale = (torch.tensor(value, requires_grad=True) for value in (0.0, 1.0))
    a_star = q_values.argmax(dim=1)
    lead_of_one = torch.zeros(ACTIONS).index_fill(0, a_star[:1], 1.0)
    clean = scale * (q_values + lead * lead_of_one)
    worst = scale * (q_values + moved + lead * lead_of_one)
    rows = [0] * 6  # the same a* everywhere, as in a policy on its way to always one action
    margins = other_action_margin(worst[rows], a_star[rows])
    plain = torch.autograd.grad(margins.mean(), (lead, scale), retain_graph=True)
    assert all(gradient.abs() > 0.01 for gradient in plain)
    held = hold_advantages(other_action_margin(worst, a_star), clean, a_star, fraction=1.0)
    scale_gradient = torch.autograd.grad(held.mean(), scale, retain_graph=True)[0]
    assert scale_gradient.abs() < 1e-5
    of_one_action = a_star == a_star[0]
    lead_gradient = torch.autograd.grad(held[of_one_action].mean(), lead)[0]
    assert lead_gradient.abs() < 1e-5


@pytest.mark.parametrize("fraction", [1.0, 0.25])
def test_held_advantages_still_raise_the_clean_runner_up_where_the_worst_state_has_another(fraction):
    # a* is action 0. The runner-up is action 1 and stays it in the first state; in the second it becomes action 2.
    constants = torch.zeros(3, requires_grad=True)
    clean = torch.tensor([[1.0, 0.5, 0.1], [1.0, 0.5, 0.1]]) + constants
    worst = torch.tensor([[0.8, 0.7, 0.2], [0.8, 0.4, 0.6]]) + constants
    a_star = torch.tensor([0, 0])
    held = hold_advantages(other_action_margin(worst, a_star), clean, a_star, fraction=fraction)
    of_first, of_second = (torch.autograd.grad(one, constants, retain_graph=True)[0] for one in held)
    # Of eq. 7 itself the first would be (−1, 1, 0), the second (−1, 0, 1).
    torch.testing.assert_close(of_first, (1 - fraction) * torch.tensor([-1.0, 1.0, 0.0]))
    torch.testing.assert_close(
        of_second, fraction * torch.tensor([0.0, -1.0, 1.0]) + (1 - fraction) * torch.tensor([-1.0, 0.0, 1.0])
    )


@pytest.mark.parametrize("robust", [False, True])
def test_an_update_in_bfloat16_is_that_in_float32_but_for_rounding(robust, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.7) if robust else None
    exact, rounded = (with_another_target(make_learner(regulariser, precision=p)) for p in PRECISIONS)
    one, two = (learner.update(make_batch(0), agent_step=80) for learner in (exact, rounded))
    torch.testing.assert_close(two["td_errors"], one["td_errors"], rtol=0, atol=0.02)
    assert not torch.equal(one["td_errors"], two["td_errors"])
    gradient, with_noise = (
        torch.cat([parameter.grad.flatten() for parameter in learner.online.parameters()])
        for learner in (exact, rounded)
    )
    assert with_noise.dtype == torch.float32
    assert torch.cosine_similarity(gradient, with_noise, dim=0) > 0.98


def test_kappa_zero_is_ddqn(tiny_regulariser):
    vanilla, robust = make_learner(), make_learner(tiny_regulariser(kappa=0.0))
    for seed in range(8):
        one, two = (learner.update(make_batch(seed), agent_step=100 + seed) for learner in (vanilla, robust))
        assert "robust_loss" in two
        torch.testing.assert_close(one["td_errors"], two["td_errors"], rtol=1e-4, atol=1e-5)
    # Adam divides by the gradient's size, so rounding in a gradient near 0 shows in its weight.
    torch.testing.assert_close(weights_of(vanilla), weights_of(robust), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        *({"inner_attack": kind} for kind in ("pgd", "worst_of_path", "random_steps")),
        {"inner_attack": "n_fgsm", "pgd_steps": 1},
        {"solver": "ibp", "pgd_steps": 0, "pgd_step_fraction": 0.0},
    ],
    ids=str,
)
def test_before_its_ramp_any_robust_learner_is_ddqn_bit_for_bit(changes, tiny_regulariser):
    vanilla, robust = make_learner(), make_learner(tiny_regulariser(ramp_begin=50, **changes))
    for seed in range(5):
        vanilla.update(make_batch(seed), agent_step=10 * seed)
        robust.update(make_batch(seed), agent_step=10 * seed)
    assert torch.equal(weights_of(vanilla), weights_of(robust))
    robust.update(make_batch(5), agent_step=60)
    vanilla.update(make_batch(5), agent_step=60)
    assert not torch.equal(weights_of(vanilla), weights_of(robust))
