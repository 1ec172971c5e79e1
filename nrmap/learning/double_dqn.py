"""Losses: Double DQN (van Hasselt et al. 2016), and an anchor that keeps advantages near a parent policy's."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

QValues = Callable[[Tensor], Tensor]  # states [B, C, H, W] to Q-values [B, A]


@torch.no_grad()
def double_q_targets(
    *, online: QValues | None, target_network: QValues, s_t: Tensor, r_t: Tensor, discount_t: Tensor
) -> Tensor:
    """Return the TD targets [B]: r_t + discount_t · Q_target(s_t, argmax_a Q_online(s_t, a)).

    `s_t` float [B, C, H, W] in [0, 1], `r_t` and `discount_t` [B]. With `online` None the target network also chooses
    the action: plain Q-learning, as in the SA-DQN code.
    """
    values = target_network(s_t)  # [B, A]
    greedy_actions = (values if online is None else online(s_t)).argmax(dim=1, keepdim=True)  # [B, 1]
    return r_t + discount_t * values.gather(1, greedy_actions).squeeze(1)


def td_loss(*, q_tm1: Tensor, a_tm1: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean_b weights_b · Huber(TD error_b), a scalar, and the TD errors [B], target minus estimate.

    `q_tm1` [B, A], `a_tm1` [B], `targets` [B], `weights` [B] importance weights; Huber's loss has threshold 1. The TD
    errors carry no gradient.
    """
    estimates = q_tm1.gather(1, a_tm1[:, None]).squeeze(1)  # [B]
    losses = functional.huber_loss(estimates, targets, reduction="none")  # [B]
    return (weights * losses).mean(), (targets - estimates).detach()


def anchor_loss(q_values: Tensor, parent_q_values: Tensor) -> Tensor:
    """Return the batch mean of ½ Σ_a (A(s, a) − A_parent(s, a))² with A(s, a) = Q(s, a) − mean_a Q(s, a).

    Both arguments are [B, A]. The TD loss corrects only the action that was taken, so nothing stops a robust loss from
    moving the other Q-values. The anchor keeps the advantages of all actions near the parent policy's; V(s) stays free.
    """
    difference = q_values - parent_q_values  # [B, A]
    return (difference - difference.mean(dim=1, keepdim=True)).square().sum(dim=1).mean() / 2
