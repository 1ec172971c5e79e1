"""Attacks for evaluation: perturb states within an ℓ∞ ball to change the greedy action.

FGSM is eq. 1 of the paper, PGD eq. 2-3. Training uses the cheaper `InnerAttack`. Evaluation tries three objectives and
keeps the best point seen, so that a weak attack does not make a policy look robust. The search stops at the first flip
of a state. It maximises the fraction of flipped states and does not look for the flips that cost the most return.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nrmap.robustness.perturbations import check_attack_epsilon, ends, other_action_margin, project, within
from nrmap.support.errors import NrmapError, check, code_of_others, shortened, unknown_choice

# Maps states in [0, 1], float [N, C, H, W], to Q-values [N, A]; see `nrmap.policies.network.frozen`.
ScoresStates = Callable[[Tensor], Tensor]

# Maps Q-values [N, A] at s', and the actions of highest Q-value, a* [N], and lowest [N] at s, to values [N] that an
# attack maximises: the larger, the closer to a flip.
AttackObjective = Callable[[Tensor, Tensor, Tensor], Tensor]
# Total length of all steps in radii: enough to reach any corner from any start (Madry et al. 2018).
PGD_WALK = 2.5
MOST_STEPS = 10_000
GRADIENT_ATTACKS = ("fgsm", "pgd")  # the kinds whose lowest return is quoted
ALL = slice(None)
# On one AVX2 core the Nature network makes 750 forward and backward passes a second with 5 rows, 1,340 with 20:
# small batches gain from rows of other objectives, large ones lose where most states flip under the first.
SMALL_BATCH = 8


def cross_entropy_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """Returns [N]: log((1 − π(a*)) / π(a*)), π = softmax(Q(s', ·)), from `q_values` [N, A] at s' and `actions` a* [N].

    Its gradient is that of the cross-entropy −log π(a*) divided by 1 − π(a*), so steps along the sign are the same.
    But where Q(s', a*) leads by more than about 17, 1 − π(a*) is 0 in float32: the gradient of the cross-entropy
    vanishes, and an attack on it does not move. This objective avoids that.
    """
    return _log_odds_of_others(q_values, actions)


def margin_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """Returns [N]: max_{a≠a*} Q(s', a) − Q(s', a*), the inner term of eq. 7, for `q_values` [N, A] and `actions` a*."""
    return other_action_margin(q_values, actions)


def worst_action_objective(q_values: Tensor, actions: Tensor, worst_actions: Tensor) -> Tensor:
    """Returns [N]: log(π(w) / (1 − π(w))), π = softmax(Q(s', ·)), for the `worst_actions` w [N], of lowest Q(s, ·)."""
    return -_log_odds_of_others(q_values, worst_actions)


def _log_odds_of_others(q_values: Tensor, actions: Tensor) -> Tensor:
    chosen = q_values.gather(1, actions[:, None]).squeeze(1)  # [N]
    return q_values.scatter(1, actions[:, None], -torch.inf).logsumexp(dim=1) - chosen


# Of several flips the first objective's is kept, so the one with the most costly flips comes first.
OBJECTIVES: tuple[AttackObjective, ...] = (worst_action_objective, margin_objective, cross_entropy_objective)


@dataclass(frozen=True)
class Attacked:
    """Result of an attack on N states s: the perturbed states s', and the greedy actions and margins at s and s'."""

    perturbed: Tensor  # [N, C, H, W], in [0, 1] and in the ball
    clean_actions: Tensor  # [N], a* = argmax_a Q(s, a)
    actions: Tensor  # [N], argmax_a Q(s', a)
    clean_margins: Tensor  # [N], max_{a≠a*} Q(s, a) − Q(s, a*), at most 0
    margins: Tensor  # [N], the same at s' with the same a*

    @property
    def flipped(self) -> Tensor:
        """Bool [N]: True if the greedy action differs from the one at the clean state."""
        return self.actions != self.clean_actions


@dataclass(frozen=True)
class StateNoise:
    """Random numbers that depend only on (seed, episode, step) and the index of the draw.

    An attack on a state therefore depends on the other states in its batch only by rounding.
    """

    seed: int
    episodes: NDArray[np.int64]  # [N]
    steps: NDArray[np.int64]  # [N]

    def of(self, rows: Tensor) -> "StateNoise":
        """The noise of some of the states alone; `rows` [n] are their indices, on the CPU."""
        chosen = rows.numpy()
        return StateNoise(self.seed, self.episodes[chosen], self.steps[chosen])

    def uniform(self, like: Tensor, draw: int) -> Tensor:
        """Uniform noise in [−1, 1) with the shape and device of `like` [N, C, H, W]; `draw` numbers a state's draws."""
        noise = np.empty(like.shape, dtype=np.float32)
        for row, episode, step in zip(noise, self.episodes, self.steps, strict=True):
            # A counter-based generator: different high words of the counter give independent streams.
            bits = np.random.Philox(
                key=np.array([self.seed, episode], dtype=np.uint64),
                counter=np.array([0, 0, draw, step], dtype=np.uint64),
            )
            row[...] = np.random.Generator(bits).random(row.shape, dtype=np.float32)
        return torch.from_numpy(2 * noise - 1).to(like.device)


class Attack(Protocol):
    """The signature of attacks, as `attack_named` returns them."""

    def __call__(self, q_values: ScoresStates, states: Tensor, *, attack_epsilon: float, noise: StateNoise) -> Attacked:
        """Attack `states`, float [N, C, H, W] in [0, 1], within the ℓ∞ ball of radius `attack_epsilon`.

        Raises NrmapError unless 0 < `attack_epsilon` ≤ 1.
        """


@torch.no_grad()
def uniform_noise(q_values: ScoresStates, states: Tensor, *, attack_epsilon: float, noise: StateNoise) -> Attacked:
    """Move each state to a uniformly random point of the ball, clipped to [0, 1]: the baseline; see `Attack`."""
    check_attack_epsilon(attack_epsilon)
    perturbed = project(states + attack_epsilon * noise.uniform(states, draw=0), states, attack_epsilon)
    clean, scores = q_values(states), q_values(perturbed)  # [N, A]
    actions = clean.argmax(dim=1)
    margins = [other_action_margin(each, actions) for each in (clean, scores)]
    return Attacked(perturbed, actions, scores.argmax(dim=1), *margins)


@dataclass(frozen=True)
class GradientAttack:
    """An attack by `steps` steps of `step_fraction`·ε along the sign of the gradient, for each of the `objectives`.

    Each state keeps its first flip or, without one, the point with the largest margin
    max_{a≠a*} Q(s', a) − Q(s', a*) of all points seen, including the clean state. With `random_start`
    each objective starts from its own random point of the ball.
    """

    steps: int
    step_fraction: float
    random_start: bool
    objectives: tuple[AttackObjective, ...] = OBJECTIVES

    def __call__(self, q_values: ScoresStates, states: Tensor, *, attack_epsilon: float, noise: StateNoise) -> Attacked:
        """As `Attack`; NrmapError also for outputs without a gradient and, on a CPU, for a gradient that is NaN."""
        check_attack_epsilon(attack_epsilon)
        if states.is_cuda:
            starts = self.starts(states, attack_epsilon=attack_epsilon, noise=noise)
            return self.in_one_batch(q_values, states, starts, attack_epsilon=attack_epsilon)
        with torch.no_grad():
            clean = q_values(states)  # [N, A]
        search, first = _Search(states, clean), 1 if len(states) > SMALL_BATCH else len(self.objectives)
        for group in (slice(None, first), slice(first, None)):
            rows = (search.actions == search.clean_actions).nonzero().squeeze(1)  # [n], the states without a flip
            if len(rows) and self.objectives[group]:
                one, part = replace(self, objectives=self.objectives[group]), noise.of(rows)
                centres = states[rows]
                starts = one.starts(centres, attack_epsilon=attack_epsilon, noise=part, first_draw=group.start or 0)
                found = one._together(q_values, centres, clean[rows], starts, attack_epsilon, drop_finished=True)
                search.take(found.best, found.actions, found.margins, rows)
        return search.result()

    def starts(self, states: Tensor, *, attack_epsilon: float, noise: StateNoise, first_draw: int = 0) -> Tensor:
        """Starts [O, N, C, H, W] of the O objectives: `states`, or random points of the ball if `random_start`.

        Objective o takes the draw `first_draw` + o of `noise`. `states` are float [N, C, H, W] in [0, 1].
        """
        centres = states.expand(len(self.objectives), *states.shape)
        if not self.random_start:
            return centres
        draws = torch.stack([noise.uniform(states, first_draw + draw) for draw in range(len(centres))])
        return project(centres + attack_epsilon * draws, centres, attack_epsilon)

    def in_one_batch(
        self, q_values: ScoresStates, states: Tensor, starts: Tensor, *, attack_epsilon: float
    ) -> Attacked:
        """Attack with all objectives at once and without early stops, so that the host never waits for the GPU.

        With `starts` [O, N, C, H, W] from the method `starts`, the result is that of `__call__`, up to rounding.
        """
        with torch.no_grad():
            clean = q_values(states)  # [N, A]
        return self._together(q_values, states, clean, starts, attack_epsilon, drop_finished=False).result()

    def _together(
        self,
        q_values: ScoresStates,
        states: Tensor,
        clean: Tensor,
        starts: Tensor,
        attack_epsilon: float,
        drop_finished: bool,
    ) -> "_Search":
        """Search with all objectives in one batch; if several flip a state, the flip of the first objective counts.

        With `drop_finished` an objective takes no more steps for a state once it, or an objective before it, has
        flipped the action. The result stays the same, but a gradient that is NaN raises NrmapError.
        """
        repeats = len(self.objectives)
        search, worst_actions = _Search(states, clean), clean.argmin(dim=1).repeat(repeats)  # [O·N]
        centres = states.repeat(repeats, 1, 1, 1)  # [O·N, C, H, W]
        (lower, upper), each = ends(centres, attack_epsilon), _Search(centres, clean.repeat(repeats, 1))
        rows: Tensor | slice = ALL  # of the O·N, the n that still take steps
        points, sizes = starts.flatten(0, 1), [len(states)] * repeats
        for step in range(self.steps + 1):
            points = points.detach().requires_grad_(step < self.steps)
            scores = q_values(points)  # [n, A]
            each.see(points.detach(), scores.detach(), rows)
            left = each.unfinished(repeats) if drop_finished else None  # bool [O·N]
            if step == self.steps or (left is not None and not left.any()):
                break
            parts = (part.split(sizes) for part in (scores, each.clean_actions[rows], worst_actions[rows]))
            values = [objective(*part).sum() for objective, *part in zip(self.objectives, *parts, strict=True)]
            gradient = _gradient(torch.stack(values).sum(), points)
            known = left is None or not bool(gradient.isnan().any())
            check(known, "the gradient of the policy's outputs is NaN: this attack cannot take a step")
            moved = points.detach() + self.step_fraction * attack_epsilon * gradient.sign()
            if left is not None:
                moved, rows = moved[left[rows]], left.nonzero().squeeze(1)
                sizes = left.view(repeats, -1).sum(dim=1).tolist()
            points = within(moved, lower[rows], upper[rows])
        for found in zip(*(part.chunk(repeats) for part in (each.best, each.actions, each.margins)), strict=True):
            search.take(*found)
        return search


def _gradient(value: Tensor, points: Tensor) -> Tensor:
    with code_of_others("the policy's outputs cannot be differentiated, which this attack needs"):
        gradients = torch.autograd.grad(value, points, allow_unused=True) if value.requires_grad else (None,)
    gradient = gradients[0]
    if gradient is None:
        raise NrmapError("the policy's outputs have no gradient with respect to its states, which this attack needs")
    return gradient


class _Search:
    """The best point seen so far for each of N states: the first flip, else the point with the largest margin."""

    def __init__(self, states: Tensor, clean: Tensor) -> None:
        """Begin at the clean `states` [N, C, H, W] with Q-values `clean` [N, A]."""
        self.clean_actions = clean.argmax(dim=1)
        self.clean_margins = other_action_margin(clean, self.clean_actions)
        self.best, self.actions, self.margins = states.clone(), self.clean_actions.clone(), self.clean_margins.clone()

    def unfinished(self, repeats: int) -> Tensor:
        """Bool [O·N] for O = `repeats` searches on N states: True until this search, or one before it, finds a flip."""
        flipped = (self.actions != self.clean_actions).view(repeats, -1)  # [O, N]
        return ~flipped.cummax(dim=0).values.flatten()

    def see(self, points: Tensor, scores: Tensor, rows: Tensor | slice = ALL) -> None:
        """Record `points` [n, C, H, W] with Q-values `scores` [n, A] for the states `rows` [n]."""
        self.take(points, scores.argmax(dim=1), other_action_margin(scores, self.clean_actions[rows]), rows)

    def take(self, points: Tensor, actions: Tensor, margins: Tensor, rows: Tensor | slice = ALL) -> None:
        """For states not flipped so far, keep points that flip or raise the margin; the host waits for no value."""
        clean_actions = self.clean_actions[rows]
        # A flip may have margin 0: two actions tie and the new one has the lower index.
        better = (margins > self.margins[rows]) | ((actions != clean_actions) & ~margins.isnan())  # [n]
        better &= self.actions[rows] == clean_actions
        self.best[rows] = torch.where(better[:, None, None, None], points, self.best[rows])
        self.actions[rows] = torch.where(better, actions, self.actions[rows])
        self.margins[rows] = torch.where(better, margins, self.margins[rows])

    def result(self) -> Attacked:
        return Attacked(self.best, self.clean_actions, self.actions, self.clean_margins, self.margins)


def pgd(steps: int) -> GradientAttack:
    """PGD from a random start with `steps` steps of 2.5 ε / `steps`; NrmapError unless 1 ≤ `steps` ≤ `MOST_STEPS`."""
    check(1 <= steps <= MOST_STEPS, f"attack steps={steps}: expected 1 to {MOST_STEPS}")
    return GradientAttack(steps=steps, step_fraction=PGD_WALK / steps, random_start=True)


_WITHOUT_STEPS: dict[str, Attack] = {"noise": uniform_noise, "fgsm": GradientAttack(1, 1.0, random_start=False)}


def attack_parts(name: str) -> tuple[str, int | None]:
    """Kind and number of steps of an attack: ("pgd", 10) for "pgd-10", ("fgsm", None) for "fgsm".

    Raises NrmapError for an attack that is not "noise", "fgsm" or "pgd-K".
    """
    kind, _, steps = name.partition("-")
    if kind == "pgd":
        number = steps.isascii() and steps.isdecimal() and len(steps) < 7
        check(number, f"attack {shortened(name)}: expected pgd- and a number of steps, as in pgd-10")
        return kind, int(steps)
    if name not in _WITHOUT_STEPS:
        raise unknown_choice("attack", name, (*_WITHOUT_STEPS, "pgd-10", "pgd-50"))
    return name, None


def attack_named(name: str) -> Attack:
    """The attack "noise", "fgsm" (eq. 1: one step of ε) or "pgd-K"; NrmapError for others, or unless 1 ≤ K ≤ 10,000."""
    kind, steps = attack_parts(name)
    return _WITHOUT_STEPS[kind] if steps is None else pgd(steps)
