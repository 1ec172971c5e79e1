"""Attacks for evaluation: how far can the policy be moved inside an ℓ∞ ball around what it sees?

Eq. 1 (one step) and eq. 2-3 (many) of the paper. Where training takes one cheap PGD, evaluation
tries three objectives in turn and keeps the best it has seen, so that a robust score is not the
fault of a weak attack. It looks for a flip, not for the worst flip: the share of flipped states is
what it makes as large as it can, and a return under attack is that under the first flips found.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nrmap.robustness.perturbations import other_action_margin, project
from nrmap.support.errors import NrmapError, check, unknown_choice

# States in [0, 1], float [N, C, H, W], to Q-values [N, A]; see `nrmap.policies.network.frozen`.
ScoresStates = Callable[[Tensor], Tensor]
# Q-values [N, A], greedy actions a* [N] and worst actions [N] at the clean states, to [N].
AttackObjective = Callable[[Tensor, Tensor, Tensor], Tensor]

# Madry et al. (2018) walk 2.5 radii in all, so that a random start can reach any corner of the ball.
PGD_WALK = 2.5


@dataclass(frozen=True)
class Attacked:
    """What an attack made of N states, and what the policy does there."""

    perturbed: Tensor  # [N, C, H, W], in [0, 1] and in the ball
    clean_actions: Tensor  # [N], a* = argmax_a Q(s, a)
    actions: Tensor  # [N], argmax_a Q(s', a)
    clean_margins: Tensor  # [N], max_{a≠a*} Q(s, a) − Q(s, a*), at most 0
    margins: Tensor  # [N], the same at s' with the same a*

    @property
    def flipped(self) -> Tensor:
        """[N], whether the greedy action is another one than at the clean state."""
        return self.actions != self.clean_actions


@dataclass(frozen=True)
class StateNoise:
    """Random numbers of a state that follow from (seed, episode, step) and from nothing else.

    So an attack on a state does not depend on which other states are attacked beside it.
    """

    seed: int
    episodes: NDArray[np.int64]  # [N]
    steps: NDArray[np.int64]  # [N]

    def uniform(self, like: Tensor, draw: int, rows: Tensor | None = None) -> Tensor:
        """Uniform in [−1, 1), of the shape and on the device of `like` [n, C, H, W]; `draw` numbers a state's draws.

        `rows` [n] says which of the N states are meant; all when it is left out.
        """
        chosen = np.arange(len(self.steps)) if rows is None else rows.cpu().numpy()
        noise = np.empty(like.shape, dtype=np.float32)
        for row, state in zip(noise, chosen, strict=True):
            # A counter-based generator: its streams are apart wherever two high words of the counter differ.
            bits = np.random.Philox(
                key=np.array([self.seed, self.episodes[state]], dtype=np.uint64),
                counter=np.array([0, 0, draw, self.steps[state]], dtype=np.uint64),
            )
            row[...] = np.random.Generator(bits).random(row.shape, dtype=np.float32)
        return torch.from_numpy(2 * noise - 1).to(like.device)


class Attack(Protocol):
    """An attack by its name: "noise", "fgsm", "pgd-10", …"""

    @property
    def name(self) -> str:
        """As it stands in records."""

    def __call__(self, q_values: ScoresStates, states: Tensor, *, attack_epsilon: float, noise: StateNoise) -> Attacked:
        """Attack `states`, float [N, C, H, W] in [0, 1], inside the ℓ∞ ball of radius `attack_epsilon`."""


@dataclass(frozen=True)
class UniformNoise:
    """One uniformly random point of the ball; no attack, but what every attack must beat."""

    name: str = "noise"

    def __call__(self, q_values: ScoresStates, states: Tensor, *, attack_epsilon: float, noise: StateNoise) -> Attacked:
        """See `Attack`."""
        check_attack_epsilon(attack_epsilon)
        with torch.no_grad():
            clean = q_values(states)  # [N, A]
            perturbed = project(states + attack_epsilon * noise.uniform(states, draw=0), states, attack_epsilon)
            scores = q_values(perturbed)  # [N, A]
        actions = clean.argmax(dim=1)
        return Attacked(
            perturbed,
            actions,
            scores.argmax(dim=1),
            other_action_margin(clean, actions),
            other_action_margin(scores, actions),
        )


def cross_entropy_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """log((1 − π(a*)) / π(a*)), π = softmax(Q): rises with the cross-entropy −log π(a*).

    Its gradient is that of the cross-entropy over 1 − π(a*), so sign steps go the same way. But
    where Q(s, a*) leads by more than about 17, 1 − π(a*) is 0 in float32, and with it the
    gradient of the cross-entropy: an attack on that would stand still and prove nothing.
    """
    return _log_odds_of_others(q_values, actions)


def margin_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """max_{a≠a*} Q(s', a) − Q(s', a*), the inside of eq. 7."""
    return other_action_margin(q_values, actions)


def worst_action_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """log(π(w) / (1 − π(w))), w = argmin_a Q(s, a): the cross-entropy attack aimed at the worst action."""
    return -_log_odds_of_others(q_values, worst_actions)


def _log_odds_of_others(q_values: Tensor, actions: Tensor) -> Tensor:
    chosen = q_values.gather(1, actions[:, None]).squeeze(1)  # [N]
    is_chosen = functional.one_hot(actions, q_values.shape[1]).bool()  # [N, A]
    return q_values.masked_fill(is_chosen, -torch.inf).logsumexp(dim=1) - chosen


# The first flip ends the search, so the objective whose flips cost most comes first.
OBJECTIVES: tuple[AttackObjective, ...] = (worst_action_objective, margin_objective, cross_entropy_objective)


@dataclass(frozen=True)
class GradientAttack:
    """`steps` sign steps of `step_fraction`·ε for each objective in turn, stopping at a state's first flip.

    Of all points seen, the clean state included, each state keeps the one with the largest
    margin max_{a≠a*} Q(s', a) − Q(s', a*): the result is never worse for the attacker than no
    attack. With `random_start` every objective starts from a random point of its own.
    """

    name: str
    steps: int
    step_fraction: float
    random_start: bool
    objectives: tuple[AttackObjective, ...] = field(default=OBJECTIVES, repr=False)

    def __post_init__(self) -> None:
        check(self.steps >= 1, f"attack steps={self.steps}: expected at least 1")
        check(self.step_fraction > 0, f"attack step_fraction={self.step_fraction}: expected more than 0")

    def __call__(self, q_values: ScoresStates, states: Tensor, *, attack_epsilon: float, noise: StateNoise) -> Attacked:
        """See `Attack`."""
        check_attack_epsilon(attack_epsilon)
        with torch.no_grad():
            clean = q_values(states)  # [N, A]
        search = _Search(states, clean)
        worst_actions = clean.argmin(dim=1)  # [N]
        for draw, objective in enumerate(self.objectives):
            rows = search.open_rows()  # [n]
            if len(rows) == 0:
                break
            centres = states[rows]
            points = centres
            if self.random_start:
                points = project(centres + attack_epsilon * noise.uniform(centres, draw, rows), centres, attack_epsilon)
            for step in range(self.steps + 1):
                points = points.detach().requires_grad_(step < self.steps)
                scores = q_values(points)  # [n, A]
                still_open = search.see(rows, points.detach(), scores.detach())  # [n]
                if step == self.steps or not still_open.any():
                    break
                (gradient,) = torch.autograd.grad(
                    objective(scores, search.clean_actions[rows], worst_actions[rows]).sum(), points
                )
                moved = points.detach() + self.step_fraction * attack_epsilon * gradient.sign()
                rows, centres = rows[still_open], centres[still_open]
                points = project(moved[still_open], centres, attack_epsilon)
        return search.result()


class _Search:
    """The best point seen so far for each of N states."""

    def __init__(self, states: Tensor, clean: Tensor) -> None:
        self.clean_actions = clean.argmax(dim=1)
        self.clean_margins = other_action_margin(clean, self.clean_actions)
        self.best = states.clone()
        self.actions = self.clean_actions.clone()
        self.margins = self.clean_margins.clone()

    def open_rows(self) -> Tensor:
        """Indices [n] of the states that have not flipped."""
        return (self.actions == self.clean_actions).nonzero().squeeze(1)

    def see(self, rows: Tensor, points: Tensor, scores: Tensor) -> Tensor:
        """Keep those of `points` [n, C, H, W], Q-values [n, A], that beat what was seen; [n], which are still open."""
        actions = scores.argmax(dim=1)
        margins = other_action_margin(scores, self.clean_actions[rows])
        flipped = actions != self.clean_actions[rows]
        # A flip can come with margin 0, when two actions tie and the other one comes first.
        better = (margins > self.margins[rows]) | flipped
        kept = rows[better]
        self.best[kept], self.margins[kept], self.actions[kept] = points[better], margins[better], actions[better]
        return ~flipped

    def result(self) -> Attacked:
        return Attacked(self.best, self.clean_actions, self.actions, self.clean_margins, self.margins)


def pgd(steps: int, walk: float = PGD_WALK) -> GradientAttack:
    """Projected gradient ascent from a random start, in `steps` steps of ε·`walk` / `steps`."""
    check(steps >= 1, f"attack steps={steps}: expected at least 1")
    return GradientAttack(f"pgd-{steps}", steps=steps, step_fraction=walk / steps, random_start=True)


def attack_named(name: str) -> Attack:
    """The attack that records call `name`: "noise", "fgsm" (eq. 1, one step of ε from the state) or "pgd-K"."""
    kind, _, steps = name.partition("-")
    if name == "noise":
        return UniformNoise()
    if name == "fgsm":
        return GradientAttack("fgsm", steps=1, step_fraction=1.0, random_start=False)
    if kind == "pgd" and steps.isdecimal():
        return pgd(int(steps))
    if kind == "pgd":
        raise NrmapError(f"attack {name!r}: expected pgd- and a number of steps, as in pgd-10")
    raise unknown_choice("attack", name, ("noise", "fgsm", "pgd-10", "pgd-50"))


def check_attack_epsilon(attack_epsilon: float) -> None:
    """NrmapError unless 0 < ε ≤ 1."""
    check(0 < attack_epsilon <= 1, f"attack_epsilon={attack_epsilon}: expected 0 < ε ≤ 1, in units where white is 1")
