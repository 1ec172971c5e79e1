"""The SA-DDQN regulariser, eq. 7 (Zhang et al. 2020), and its inner maximum found by PGD."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from nrmap.learning.schedules import GeometricRamp, SmoothRamp
from nrmap.policies.network import QNetwork, frozen
from nrmap.robustness.perturbations import other_action_margin, projected_gradient_ascent, random_start
from nrmap.support.errors import check

HingeReduction = Literal["per_sample_mean", "batch_sum"]
# What grows: the attack radius, or κ under the full radius.
RampOf = Literal["radius", "kappa"]
# How the inner maximum is found: from below by an attack, or from above by interval bounds (`nrmap.robustness.bounds`).
Solver = Literal["pgd", "ibp"]
# Keeps the gradient of a spread finite where all advantages are equal.
_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class RegulariserSpec:
    """κ, the hinge, the ball and the solver of eq. 7.

    The loss is TD + κ · R. `hinge_reduction` says how R comes from the margins m_b of a batch:
    `per_sample_mean` is mean_b max(m_b, −c), `batch_sum` is max(Σ_b m_b, −c), as the reference
    PGD code has it. c is `hinge`. `attack_epsilon` is the final ℓ∞ radius. Over `ramp_steps` agent
    steps after `ramp_begin` it, or κ with `ramp_of` "kappa", grows: smoothly from 0 or, where
    `ramp_initial` is above 0, geometrically from that share of it. The solver "pgd" takes `pgd_steps`
    steps of the current radius times `pgd_step_fraction` from a random start; "ibp" has no settings
    of its own. `hold_advantages` is a share, see the function of that name: 0 is eq. 7 as printed.
    """

    kappa: float
    hinge: float
    hinge_reduction: HingeReduction
    attack_epsilon: float
    ramp_begin: int
    ramp_steps: int
    ramp_initial: float = 0.0
    ramp_of: RampOf = "radius"
    hold_advantages: float = 0.0
    solver: Solver = "pgd"
    pgd_steps: int = 0
    pgd_step_fraction: float = 0.0

    def __post_init__(self) -> None:
        check(self.kappa >= 0, f"kappa={self.kappa}: expected at least 0")
        check(self.hinge >= 0, f"hinge={self.hinge}: expected at least 0 (the margin is clamped below at -hinge)")
        check(0 < self.attack_epsilon <= 1, f"attack_epsilon={self.attack_epsilon}: expected 0 < ε ≤ 1, such as 1/255")
        check(self.ramp_begin >= 0, f"ramp_begin={self.ramp_begin}: expected at least 0")
        check(self.ramp_steps >= 1, f"ramp_steps={self.ramp_steps}: expected at least 1")
        check(0 <= self.ramp_initial < 1, f"ramp_initial={self.ramp_initial}: expected 0 ≤ share < 1, such as 1e-4")
        check(0 <= self.hold_advantages <= 1, f"hold_advantages={self.hold_advantages}: expected a share, 0 to 1")
        check(self.ramp_of in ("radius", "kappa"), f"ramp_of={self.ramp_of!r}: expected radius or kappa")
        check(self.solver in ("pgd", "ibp"), f"solver={self.solver!r}: expected pgd or ibp")
        if self.solver == "pgd":
            check(self.pgd_steps >= 1, f"pgd_steps={self.pgd_steps}: expected at least 1")
            check(self.pgd_step_fraction > 0, f"pgd_step_fraction={self.pgd_step_fraction}: expected more than 0")
        else:
            steps, fraction = self.pgd_steps, self.pgd_step_fraction
            given = f"pgd_steps={steps}, pgd_step_fraction={fraction} with solver={self.solver}"
            check(steps == fraction == 0, f"{given}: expected neither, they are settings of pgd")
        check(
            self.hinge_reduction in ("per_sample_mean", "batch_sum"),
            f"hinge_reduction={self.hinge_reduction!r}: expected per_sample_mean or batch_sum",
        )

    @cached_property
    def _ramp(self) -> SmoothRamp | GeometricRamp:
        """The share of the radius or of κ at an agent step."""
        begin, steps = self.ramp_begin, self.ramp_steps
        if self.ramp_initial:
            return GeometricRamp(1.0, begin, steps, self.ramp_initial)
        return SmoothRamp(1.0, begin, steps)

    def at(self, agent_step: int) -> tuple[float, float]:
        """κ and the ℓ∞ radius at `agent_step`; the radius is 0 until the ramp begins."""
        share = self._ramp(agent_step)
        if self.ramp_of == "kappa":
            return self.kappa * share, self.attack_epsilon if share > 0 else 0.0
        return self.kappa, self.attack_epsilon * share


def adversarial_states(
    network: QNetwork,
    states: Tensor,
    actions: Tensor,
    *,
    attack_epsilon: float,
    steps: int,
    step_size: float,
    generator: torch.Generator,
    precision: torch.dtype | None = None,
) -> Tensor:
    """States in D(s) that nearly maximise max_{a≠a*} Q(s', a) − Q(s', a*), the inner maximum of eq. 7.

    `states` float [B, C, H, W] in [0, 1], `actions` a* [B]. No gradient reaches the parameters.
    With a `precision` the gradients are computed in it: only their signs are used.
    """
    advantages = frozen(network, value=False, precision=precision)  # V(s') cancels in the margin
    return projected_gradient_ascent(
        lambda perturbed: other_action_margin(advantages(perturbed), actions),
        states,
        attack_epsilon=attack_epsilon,
        steps=steps,
        step_size=step_size,
        start=random_start(states, attack_epsilon, generator),
    )


def hold_advantages(margins: Tensor, q_values: Tensor, actions: Tensor, *, share: float) -> Tensor:
    """`margins` [B] of the worst states with another gradient, that of what the ball adds to the clean ones.

    A worst margin is the clean one plus what the ball adds to it. It also falls when the lead of
    a* grows everywhere, which drives a policy towards always the same action, and what the ball
    adds also falls when all advantages shrink together, which makes the policy arbitrary. So the
    clean margin is held, and what the ball adds is differentiated relative to how far the
    advantages spread over the batch.

    At share 1 a factor on all Q-values changes nothing, and neither does a constant added to a*. A
    constant added to another action changes nothing where the runner-up, which a margin measures
    a* against, is the same action in the worst state and in the clean one. Where it is not, as may
    happen with three actions or more, the gradient raises the clean runner-up and lowers that of
    the worst state, by 1 each: what is left of the pull on the gaps, and it makes the clean one
    smaller. A `share` below 1 keeps the rest of the gradient of eq. 7. `q_values` [B, A] at the clean
    states, `actions` a* [B].
    """
    clean = other_action_margin(q_values, actions)  # [B]
    advantages = q_values - q_values.mean(dim=1, keepdim=True)  # [B, A]
    spread = (advantages.var(dim=0, correction=0).mean() + _SMALLEST_VARIANCE).sqrt()
    held = clean.detach() + (margins - clean) * (spread.detach() / spread)
    return share * held + (1 - share) * margins


def hinge_loss(margins: Tensor, *, hinge: float, reduction: HingeReduction) -> Tensor:
    """R of eq. 7 from the margins [B] that the solver found: clamped below at −c, a scalar."""
    if reduction == "batch_sum":
        return margins.sum().clamp(min=-hinge)
    return margins.clamp(min=-hinge).mean()
