"""Steps inside the ℓ∞ ball D(s) = {s' : ‖s' − s‖∞ ≤ ε} ∩ [0, 1], eq. 2-3 of the paper."""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class AscentPath:
    """K sign steps: K + 1 points, and the objective and its input gradient at all but the last."""

    points: list[Tensor]  # K + 1 of [N, C, H, W] in [0, 1]
    values: list[Tensor]  # K of [N]
    gradients: list[Tensor]  # K of [N, C, H, W]

    @property
    def end(self) -> Tensor:
        """The last point, [N, C, H, W]."""
        return self.points[-1]


def projected_gradient_ascent(
    objective: Objective,
    states: Tensor,
    *,
    attack_epsilon: float,
    steps: int,
    step_size: float | Callable[[Tensor], Tensor],
    start: Tensor,
) -> AscentPath:
    """`steps` steps of eq. 3 from `start`: along sign ∇ objective, projected around `states`, float [N, C, H, W].

    `step_size` may draw a size for every pixel of a gradient. An infinite `attack_epsilon` projects to
    [0, 1] only. Only the gradient of the input is taken: the objective needs frozen parameters.
    """
    path = AscentPath([start], [], [])
    for _ in range(steps):
        point = path.end.detach().requires_grad_()
        values = objective(point)  # [N]
        (gradient,) = torch.autograd.grad(values.sum(), point)  # [N, C, H, W]
        size = step_size(gradient) if callable(step_size) else step_size
        path.values.append(values.detach())
        path.gradients.append(gradient)
        path.points.append(project(path.end + size * gradient.sign(), states, attack_epsilon))
    return path
