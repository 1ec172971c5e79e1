"""Perturbations inside the ℓ∞ ball D(s) = {s' : ‖s' − s‖∞ ≤ ε} ∩ [0, 1], eq. 2-3 of the paper."""

from collections.abc import Callable

import torch
from torch import Tensor

from nrmap.support.errors import check


def other_action_margin(q_values: Tensor, actions: Tensor) -> Tensor:
    """Return the margin of eq. 7 of each state, [N]: max_{a≠a*} Q(s, a) − Q(s, a*), above 0 if a* is not the best.

    `q_values` [N, A] with A ≥ 2, `actions` a* [N].
    """
    chosen = q_values.gather(1, actions[:, None])  # [N, 1]
    others = q_values.scatter(1, actions[:, None], -torch.inf)
    return others.amax(dim=1) - chosen.squeeze(1)


def ends(states: Tensor, attack_epsilon: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest state in D(s), both [N, C, H, W], for `states` s in [0, 1]."""
    return (states - attack_epsilon).clamp(min=0), (states + attack_epsilon).clamp(max=1)


def within(perturbed: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Clamp `perturbed` to the box from `lower` to `upper`, all [N, C, H, W]."""
    return torch.minimum(torch.maximum(perturbed, lower), upper)


def project(perturbed: Tensor, states: Tensor, attack_epsilon: float | Tensor) -> Tensor:
    """Project `perturbed` onto the ℓ∞ ball of radius `attack_epsilon` around `states` and onto [0, 1].

    Both are float [N, C, H, W].
    """
    return within(perturbed, *ends(states, attack_epsilon))


def random_start(states: Tensor, attack_epsilon: float | Tensor, generator: torch.Generator) -> Tensor:
    """Return a uniformly random point of the ε-ball, clipped to [0, 1], for each of `states`.

    `states` are float [N, C, H, W] in [0, 1]. The training's attack starts there, as PGD of Madry et al. (2018) does.
    """
    noise = torch.rand(states.shape, generator=generator, device=states.device)
    return project(states + (2 * noise - 1) * attack_epsilon, states, attack_epsilon)


def projected_gradient_ascent(
    objective: Callable[[Tensor], Tensor],
    states: Tensor,
    *,
    attack_epsilon: float | Tensor,
    steps: int,
    step_size: float | Tensor | Callable[[Tensor], Tensor],
    start: Tensor,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Take K = `steps` steps of eq. 3 from `start`: along the sign of the objective's gradient, then projected.

    The result has the K + 1 points [N, C, H, W], and the objective's values [N] and input gradients at the first K.
    `objective` maps states [N, C, H, W] to [N]; its parameters should be frozen. `states` and `start` are float
    [N, C, H, W] in [0, 1]. `step_size` is a number, also as a tensor of shape [], or a function of the gradient that
    gives a size per pixel. An infinite `attack_epsilon` projects to [0, 1] only.
    """
    points, values, gradients, box = [start], [], [], ends(states, attack_epsilon)
    for _ in range(steps):
        point = points[-1].detach().requires_grad_()
        value = objective(point)  # [N]
        (gradient,) = torch.autograd.grad(value.sum(), point)  # [N, C, H, W]
        size = step_size(gradient) if callable(step_size) else step_size
        points.append(within(points[-1] + size * gradient.sign(), *box))
        values.append(value.detach())
        gradients.append(gradient)
    return points, values, gradients


def epsilon_text(attack_epsilon: float) -> str:
    """Return ε as text: "ε = 1/255" for a multiple of 0.5/255, else a decimal."""
    levels = attack_epsilon * 255
    is_fraction = levels > 0.25 and abs(2 * levels - round(2 * levels)) < 1e-6
    return f"ε = {levels:g}/255" if is_fraction else f"ε = {attack_epsilon:.4g}"


def check_attack_epsilon(attack_epsilon: float) -> None:
    """Raise NrmapError unless 0 < ε ≤ 1."""
    check(0 < attack_epsilon <= 1, f"attack_epsilon={attack_epsilon}: expected 0 < ε ≤ 1, in units where white is 1")
