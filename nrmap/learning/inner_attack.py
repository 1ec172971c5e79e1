"""The inner maximum of eq. 7 by gradient steps, and early warnings of a network that misleads its attack."""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor

from nrmap.policies.network import QNetwork, frozen
from nrmap.robustness.perturbations import other_action_margin, projected_gradient_ascent, random_start

InnerAttackKind = Literal["pgd", "worst_of_path", "n_fgsm", "random_steps"]
STRONGEST = 10  # steps


@dataclass(frozen=True)
class InnerAttack:
    """`steps` sign steps of `step_fraction` · ε up the margin, from a random start in the ball of radius ε.

    `pgd` returns the last point (Madry et al. 2018). `worst_of_path` returns the point of the path
    with the largest margin (Kim et al., AAAI 2021). `n_fgsm` takes one step from noise of 2 ε
    without projecting to the ball (de Jorge et al., NeurIPS 2022). `random_steps` does not project
    either; each pixel draws its step size uniformly from [0, 2 · step_fraction · ε].
    """

    kind: InnerAttackKind
    steps: int
    step_fraction: float

    def strengthened(self, level: int) -> "InnerAttack":
        """The attack after `level` roll-backs: PGD with one step more each time, every step 2 ε / steps.

        Such a walk of 2 ε leads from any random start to any corner of the ball. The most steps are
        10, as many as the probe takes. Level 0 is the attack itself.
        """
        if level == 0:
            return self
        steps = min(max(self.steps, 2) + level, STRONGEST)
        return InnerAttack("pgd", steps, 2 / steps)

    def __call__(
        self,
        network: QNetwork,
        states: Tensor,
        actions: Tensor,
        *,
        attack_epsilon: float | Tensor,
        generator: torch.Generator,
        precision: torch.dtype | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """States that nearly maximise max_{a≠a*} Q(s', a) − Q(s', a*), and warnings: [B, C, H, W] and scalars.

        `states` float [B, C, H, W] in [0, 1], `actions` a* [B]. No gradient reaches the parameters.
        With a `precision` the gradients are computed in it: only their signs are used. Warnings are
        means over the batch: `gradient_sparsity` is eq. 9 of the first input gradient, and
        `gradient_cosine`, after two steps or more, its cosine with the second.
        """
        advantages = frozen(network, value=False, precision=precision)  # V(s') cancels in the margin
        step_size = self.step_fraction * attack_epsilon

        def margins(points: Tensor) -> Tensor:
            return other_action_margin(advantages(points), actions)  # [B]

        def random_size(gradient: Tensor) -> Tensor:
            return 2 * step_size * torch.rand(gradient.shape, generator=generator, device=gradient.device)

        points, values, all_gradients = projected_gradient_ascent(
            margins,
            states,
            attack_epsilon=inf if self.kind in ("n_fgsm", "random_steps") else attack_epsilon,
            steps=self.steps,
            step_size=random_size if self.kind == "random_steps" else step_size,
            start=random_start(states, (2 if self.kind == "n_fgsm" else 1) * attack_epsilon, generator),
        )
        gradients = [gradient.flatten(1) for gradient in all_gradients[:2]]  # [B, P] each
        norms = gradients[0].norm(dim=1)  # [B], 0 where no pixel matters
        sparsities = torch.where(norms > 0, gradients[0].abs().sum(dim=1) / norms, 0)  # [B], eq. 9
        warnings = {"gradient_sparsity": sparsities.mean()}
        if len(gradients) > 1:
            warnings["gradient_cosine"] = torch.cosine_similarity(gradients[0], gradients[1]).mean()
        if self.kind != "worst_of_path":
            return points[-1], warnings
        with torch.no_grad():
            worst = torch.stack([*values, margins(points[-1])]).argmax(dim=0)  # [B], of K + 1 points
        return torch.stack(points)[worst, torch.arange(len(states), device=states.device)], warnings
