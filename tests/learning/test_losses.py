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
    plain_losses,
    undecided_network,
    weights_of,
    with_another_target,
)

from nrmap.learning.state_adversarial import hold_advantages
from nrmap.robustness.perturbations import other_action_margin

IBP = {"solver": "ibp", "pgd_steps": 0, "pgd_step_fraction": 0.0, "ramp_steps": 100}
HELD = {"hinge": 100.0, "hinge_reduction": "per_sample_mean"}
REGULARISERS = (
    *({"hinge": hinge, "hinge_reduction": kind} for kind in ("batch_sum", "per_sample_mean") for hinge in (0.02, 5.0)),
    *({**HELD, "hold_advantages": fraction} for fraction in (1.0, 0.25)),
    *({**IBP, "hinge": 0.5, "hinge_reduction": kind} for kind in ("batch_sum", "per_sample_mean")),
)


def assert_descends(
    learner, parent=None, *, gradient_rtol: float, gradient_atol: float, loss_rtol: float = 1e-4
) -> None:
    """Updates at the ramp's begin, half and end have the losses and the gradients of the plain ones."""
    with_another_target(learner)
    for seed in range(3):
        batch, agent_step, before = make_batch(seed), 40 * (seed + 1), copy.deepcopy(learner.online)
        losses = plain_losses(learner, before, batch, agent_step, parent)
        expected = gradients(losses.pop("descended"), before)
        metrics = learner.update(batch, agent_step)
        for name, loss in losses.items():
            assert metrics[name].item() == pytest.approx(loss.item(), rel=loss_rtol, abs=1e-6), name
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=gradient_rtol, atol=gradient_atol)


@pytest.mark.parametrize("double_q", [True, False])
def test_ddqn_descends_the_td_loss(double_q):
    learner = make_learner(double_q=double_q)
    assert_descends(learner, gradient_rtol=1e-4, gradient_atol=1e-6, loss_rtol=1e-5)


@pytest.mark.parametrize("changes", REGULARISERS, ids=str)
def test_sa_ddqn_descends_td_plus_kappa_times_equation_7(changes, tiny_regulariser):
    learner = make_learner(tiny_regulariser(**{"kappa": 0.7, "pgd_steps": 3, **changes}))
    random_numbers = learner.generator.get_state()
    assert_descends(learner)
    draws_none = changes.get("solver") == "ibp"
    assert torch.equal(learner.generator.get_state(), random_numbers) == draws_none


@pytest.mark.parametrize("robust", [False, True])
def test_an_anchor_adds_its_loss_and_never_moves(robust, tiny_regulariser):
    parent = undecided_network(3)
    unmoved = copy.deepcopy(parent.state_dict())
    learner = make_learner(tiny_regulariser(kappa=0.7) if robust else None, parent=parent, anchor=0.3)
    assert_descends(learner, parent)
    assert all(torch.equal(parent.state_dict()[name], unmoved[name]) for name in unmoved)


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
