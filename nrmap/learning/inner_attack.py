"""The training's attack: gradient steps for the inner maximum of eq. 7, and diagnostics of gradient masking."""

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
    """An attack that raises the margin of eq. 7 by `steps` sign-gradient steps of `step_fraction`·ε, randomly started.

    `pgd` projects to the ℓ∞ ball of radius ε and returns the last point (Madry et al. 2018). `worst_of_path` also
    projects, but returns the point with the largest margin, start included (Kim et al., AAAI 2021). The other two
    return the last point and may leave the ball, but not [0, 1]. `n_fgsm` starts within 2 ε (de Jorge et al., NeurIPS
    2022). `random_steps` draws the step size of each pixel uniformly from [0, 2 · step_fraction · ε].
    """

    kind: InnerAttackKind
    steps: int
    step_fraction: float

    def strengthened(self, level: int) -> "InnerAttack":
        """Return the attack after `level` roll-backs: PGD with max(`steps`, 2) + `level` steps, but at most 10.

        Each step is 2 ε / (number of steps), so that every corner of the ball can be reached from any start. The probe
        for roll-backs takes 10 steps too. Level 0 gives this attack unchanged.
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
        """Attack `states` to raise the margin max_{a≠a*} Q(s', a) − Q(s', a*); the parameters get no gradient.

        `states` are float [B, C, H, W] in [0, 1], `actions` a* [B]; `attack_epsilon` is ε in the same unit. `precision`
        (None: that of the weights) is for the gradients and margins of the search, see `frozen`. The result has the
        perturbed states [B, C, H, W] and batch means: `gradient_sparsity`, S of eq. 9 for the first input gradient, and
        with two steps or more `gradient_cosine`, the cosine of the first two input gradients.
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
