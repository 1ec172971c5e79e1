"""The parts of the SA regulariser, eq. 7, by hand; `test_losses.py` compares the whole."""

import math

import pytest
import torch
from toy_learners import ACTIONS

from nrmap.learning.inner_attack import InnerAttack
from nrmap.learning.state_adversarial import hinge_loss, hold_advantages
from nrmap.robustness.perturbations import other_action_margin


def test_every_roll_back_adds_a_step_and_any_corner_stays_in_reach():
    attack = InnerAttack("n_fgsm", 1, 1.0)
    assert attack.strengthened(0) == attack
    assert attack.strengthened(1) == InnerAttack("pgd", 3, 2 / 3)
    assert InnerAttack("pgd", 2, 0.8).strengthened(2) == InnerAttack("pgd", 4, 0.5)
    assert attack.strengthened(99) == InnerAttack("pgd", 10, 0.2)


@pytest.mark.parametrize(("ratio", "slack", "threshold"), [(2.0, 0.125, 0.625), (3.0, 0.125, 0.875), (2.0, 0.0, 0.5)])
def test_only_more_flips_than_the_ratio_and_the_slack_allow_are_too_many(ratio, slack, threshold, tiny_regulariser):
    spec = tiny_regulariser(rollback_ratio=ratio, rollback_slack=slack)
    assert not spec.left_behind(threshold, 0.25)
    assert spec.left_behind(math.nextafter(threshold, 1), 0.25)


@pytest.mark.parametrize(
    ("reduction", "hinge", "value", "pushes"),
    [
        ("per_sample_mean", 1.0, (0.5 - 1 - 0.25 - 1) / 4, [0.25, 0, 0.25, 0]),  # each sample has a hinge of its own
        ("per_sample_mean", 0.0, 0.5 / 4, [0.25, 0, 0, 0]),
        ("batch_sum", 1.0, -1.0, [0, 0, 0, 0]),  # beyond the one hinge nobody is pushed
        ("batch_sum", 9.0, -4.25, [1, 1, 1, 1]),
    ],
)
def test_hinge_by_hand(reduction, hinge, value, pushes):
    margins = torch.tensor([0.5, -3.0, -0.25, -1.5], requires_grad=True)
    loss = hinge_loss(margins, hinge=hinge, reduction=reduction)
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert margins.grad.tolist() == pushes


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
    for loss, variable in ((held.mean(), scale), (held[a_star == a_star[0]].mean(), lead)):
        (gradient,) = torch.autograd.grad(loss, variable, retain_graph=True)
        assert gradient.abs() < 1e-5


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
    torch.testing.assert_close(of_second, torch.tensor([fraction - 1, -fraction, 1.0]))
