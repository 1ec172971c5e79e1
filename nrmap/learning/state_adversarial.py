"""The SA-DDQN regulariser R of eq. 7, from Zhang et al. 2020: settings, hinge loss and `hold_advantages`.

The hinge clamps at −c, as theirs does; eq. 7 prints c.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from nrmap.learning.inner_attack import InnerAttack, InnerAttackKind
from nrmap.learning.schedules import Ramp
from nrmap.robustness.perturbations import other_action_margin
from nrmap.support.schema import Fraction, NotNegative, Radius, SomeSteps, Steps, expect, schema

HingeReduction = Literal["per_sample_mean", "batch_sum"]
# The quantity that ramps up: the attack radius, or κ at the full radius.
RampOf = Literal["radius", "kappa"]
# The inner maximum: from below by an attack, or from above by interval bounds (`nrmap.robustness.bounds`).
Solver = Literal["pgd", "ibp"]
# Keeps the gradient of a spread finite where all advantages are equal.
_SMALLEST_VARIANCE = 1e-12


@schema
class RegulariserSpec:
    """Settings of the SA-DDQN regulariser R, eq. 7; the loss is TD + κ · R.

    R comes from c = `hinge` and the margins m_b, max_{a≠a*} Q(s', a) − Q(s', a*) at the worst state s' in the ball
    around each state of a batch. With the `hinge_reduction` `per_sample_mean` it is mean_b max(m_b, −c), with
    `batch_sum` it is max(Σ_b m_b, −c), as in the reference PGD code. `attack_epsilon` is the final ℓ∞ radius for states
    in [0, 1]. The radius, or κ if `ramp_of` is "kappa", grows for `ramp_steps` agent steps from `ramp_begin` on; for
    `ramp_initial` see `Ramp`. The solver "pgd" uses an `InnerAttack` of kind `inner_attack`, "ibp" interval bounds.
    `hold_advantages` is the `fraction` of the function of that name; 0 leaves the gradient of R.

    Every `rollback_every` agent steps (0: never) PGD-10 is compared with the training's own attack. If it flips
    far more states twice in a row (see `left_behind`), the run goes back to its last good checkpoint with a
    stronger attack (see `InnerAttack.strengthened`). Raises NrmapError for settings out of range.
    """

    kappa: NotNegative
    hinge: NotNegative
    hinge_reduction: HingeReduction
    attack_epsilon: Radius
    ramp_begin: Steps
    ramp_steps: SomeSteps
    ramp_initial: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ramp_of: RampOf = "radius"
    hold_advantages: Fraction = 0.0
    solver: Solver = "pgd"
    pgd_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    pgd_step_fraction: NotNegative = 0.0
    inner_attack: InnerAttackKind = "pgd"
    rollback_every: Steps = 0
    rollback_ratio: NotNegative = 2.0
    rollback_slack: NotNegative = 0.05

    def __post_init__(self) -> None:
        if self.solver == "pgd":
            one_step = self.inner_attack == "n_fgsm"
            expect(self.pgd_steps >= 1, self, "pgd_steps", "at least 1 with solver=pgd")
            expect(not one_step or self.pgd_steps == 1, self, "pgd_steps", "1 with inner_attack=n_fgsm")
            expect(self.pgd_step_fraction > 0, self, "pgd_step_fraction", "above 0 with solver=pgd")
            return
        for name, unset in {"pgd_steps": 0, "pgd_step_fraction": 0, "inner_attack": "pgd", "rollback_every": 0}.items():
            expect(getattr(self, name) == unset, self, name, f"{unset} with solver=ibp")

    def attack(self, level: int = 0) -> InnerAttack | None:
        """Return the inner attack of the solver "pgd" after `level` roll-backs; None for another solver."""
        if self.solver != "pgd":
            return None
        return InnerAttack(self.inner_attack, self.pgd_steps, self.pgd_step_fraction).strengthened(level)

    def left_behind(self, probe_flips: float, probe_own_flips: float) -> bool:
        """Whether `probe_flips` > `rollback_ratio` · `probe_own_flips` + `rollback_slack`; see `Learner.probe`."""
        return probe_flips > self.rollback_ratio * probe_own_flips + self.rollback_slack

    def at(self, agent_step: int) -> tuple[float, float]:
        """Return κ and the ℓ∞ radius at `agent_step`; the radius is 0 until the ramp begins."""
        fraction = Ramp(self.ramp_begin, self.ramp_steps, self.ramp_initial)(agent_step)
        if self.ramp_of == "kappa":
            return self.kappa * fraction, self.attack_epsilon if fraction > 0 else 0.0
        return self.kappa, self.attack_epsilon * fraction


def hold_advantages(margins: Tensor, q_values: Tensor, actions: Tensor, *, fraction: float) -> Tensor:
    """Return the worst-state `margins` [B], equal in value, with a gradient that one dominant action cannot exploit.

    A worst margin, of eq. 7, is the clean margin plus the slack that the ball adds. Eq. 7 also falls if the lead of one
    action grows in all states, which drives the policy towards always that action. The slack also falls if all
    advantages shrink together, which makes the policy arbitrary. So the clean margin gets no gradient, and the slack
    gets the gradient of slack / spread, times the spread as a constant. The spread is the standard deviation of an
    action's advantages over the batch, with variances averaged over actions.

    At `fraction` 1 the gradient is 0 for scaling all Q-values and for adding a constant to Q(·, a*). If worst and clean
    state have different runner-up actions, training still lowers the worst state's and raises the other. A `fraction`
    below 1 mixes in the gradient of eq. 7. `q_values` [B, A] at the clean states, `actions` a* [B].
    """
    clean = other_action_margin(q_values, actions)  # [B]
    advantages = q_values - q_values.mean(dim=1, keepdim=True)  # [B, A]
    spread = (advantages.var(dim=0, correction=0).mean() + _SMALLEST_VARIANCE).sqrt()
    held = clean.detach() + (margins - clean) * (spread.detach() / spread)
    return fraction * held + (1 - fraction) * margins


def hinge_loss(margins: Tensor, *, hinge: float, reduction: HingeReduction) -> Tensor:
    """Return R of eq. 7, a scalar, from the worst-state `margins` [B]; for both reductions see `RegulariserSpec`."""
    if reduction == "batch_sum":
        return margins.sum().clamp(min=-hinge)
    return margins.clamp(min=-hinge).mean()
