"""The temporal-difference loss of Double DQN (van Hasselt et al. 2016) with n-step returns."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

QValues = Callable[[Tensor], Tensor]  # states [B, C, H, W] to Q-values [B, A]


@torch.no_grad()
def double_q_targets(
    *, online: QValues, target_network: QValues, s_t: Tensor, r_t: Tensor, discount_t: Tensor
) -> Tensor:
    """r_t + discount_t · Q_target(s_t, argmax_a Q_online(s_t, a)), [B].

    `s_t` float [B, C, H, W] in [0, 1], `r_t` and `discount_t` [B].
    """
    greedy_actions = online(s_t).argmax(dim=1, keepdim=True)  # [B, 1]
    bootstrap = target_network(s_t).gather(1, greedy_actions).squeeze(1)  # [B]
    return r_t + discount_t * bootstrap


def q_learning_targets(*, target_network: QValues, s_t: Tensor, r_t: Tensor, discount_t: Tensor) -> Tensor:
    """r_t + discount_t · max_a Q_target(s_t, a), [B]: without the double estimator, for comparison only."""
    with torch.no_grad():
        return r_t + discount_t * target_network(s_t).amax(dim=1)


def td_loss(*, q_tm1: Tensor, a_tm1: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean Huber loss and the TD errors [B], target minus estimate.

    `q_tm1` [B, A], `a_tm1` [B], `targets` [B], `weights` [B] importance weights.
    """
    estimates = q_tm1.gather(1, a_tm1[:, None]).squeeze(1)  # [B]
    losses = functional.huber_loss(estimates, targets, reduction="none")  # [B]
    return (weights * losses).mean(), (targets - estimates).detach()
