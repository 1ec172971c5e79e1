"""Steps inside the ℓ∞ ball D(s) = {s' : ‖s' − s‖∞ ≤ ε} ∩ [0, 1], eq. 2-3 of the paper."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# States to one number per state, larger where the attacker fares better: [N, C, H, W] → [N].
Objective = Callable[[Tensor], Tensor]


def other_action_margin(q_values: Tensor, actions: Tensor) -> Tensor:
    """max_{a≠a*} Q(s, a) − Q(s, a*), the inside of eq. 7: positive where `actions` is not greedy.

    `q_values` [N, A] with A ≥ 2, `actions` a* [N]; returns [N].
    """
    chosen = q_values.gather(1, actions[:, None])  # [N, 1]
    is_chosen = functional.one_hot(actions, q_values.shape[1]).bool()  # [N, A]
    others = q_values.masked_fill(is_chosen, -torch.inf)
    return others.amax(dim=1) - chosen.squeeze(1)


def project(perturbed: Tensor, states: Tensor, attack_epsilon: float) -> Tensor:
    """The nearest point to `perturbed` in the ε-ball around `states` and in [0, 1], both float [N, C, H, W]."""
    within_ball = torch.minimum(torch.maximum(perturbed, states - attack_epsilon), states + attack_epsilon)
    return within_ball.clamp(0, 1)


def random_start(states: Tensor, attack_epsilon: float, generator: torch.Generator) -> Tensor:
    """A uniformly random point of the ball around each state, as Madry et al. (2018) start PGD."""
    noise = torch.rand(states.shape, generator=generator, device=states.device)
    return project(states + (2 * noise - 1) * attack_epsilon, states, attack_epsilon)


def sign_step(
    objective: Objective, perturbed: Tensor, states: Tensor, attack_epsilon: float, step_size: float
) -> Tensor:
    """One step of eq. 3: along the sign of ∇ objective at `perturbed`, projected around `states`.

    Only the gradient of the input is taken; hand in an objective with frozen parameters.
    """
    point = perturbed.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(point).sum(), point)
    return project(perturbed + step_size * gradient.sign(), states, attack_epsilon)


def projected_gradient_ascent(
    objective: Objective,
    states: Tensor,
    *,
    attack_epsilon: float,
    steps: int,
    step_size: float,
    start: Tensor,
) -> Tensor:
    """The last iterate of `steps` sign steps from `start`, all float [N, C, H, W] in [0, 1]."""
    perturbed = start
    for _ in range(steps):
        perturbed = sign_step(objective, perturbed, states, attack_epsilon, step_size)
    return perturbed
