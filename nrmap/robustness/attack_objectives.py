"""The objectives that gradient attacks maximise, larger where the greedy action is closer to a flip."""

from collections.abc import Callable

import torch
from torch import Tensor

from nrmap.robustness.perturbations import other_action_margin

# Maps Q-values [N, A], greedy actions a* [N] and worst actions [N] at the clean states to [N].
AttackObjective = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """log((1 − π(a*)) / π(a*)) with π = softmax(Q); increases with the cross-entropy −log π(a*).

    Its gradient is the gradient of the cross-entropy divided by 1 − π(a*), so sign steps are
    equal. If Q(s, a*) leads by more than about 17, 1 − π(a*) is 0 in float32: the gradient of the
    cross-entropy vanishes and an attack on it does not move. This objective avoids that.
    """
    return _log_odds_of_others(q_values, actions)


def margin_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """max_{a≠a*} Q(s', a) − Q(s', a*), the inner term of eq. 7."""
    return other_action_margin(q_values, actions)


def worst_action_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """log(π(w) / (1 − π(w))) with w = argmin_a Q(s, a): the cross-entropy attack targeted at the worst action."""
    return -_log_odds_of_others(q_values, worst_actions)


def _log_odds_of_others(q_values: Tensor, actions: Tensor) -> Tensor:
    chosen = q_values.gather(1, actions[:, None]).squeeze(1)  # [N]
    return q_values.scatter(1, actions[:, None], -torch.inf).logsumexp(dim=1) - chosen


# The first flip ends the search, so the objective with the most costly flips comes first.
OBJECTIVES: tuple[AttackObjective, ...] = (worst_action_objective, margin_objective, cross_entropy_objective)
