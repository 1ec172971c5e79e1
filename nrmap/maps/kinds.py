"""The kinds of maps: for each, the summand of one state, the name, and how it is drawn.

A new kind is one function of `Ablated` and one entry in `KINDS`. Sweeps, files of maps, measures,
tables, figures, the page and W&B loop over `KINDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ablated:
    """The Q-values, or logits, of one state and of its P ablations, in float64.

    All Q-values of one ablation may be off by the same number, because the engine need not compute the
    value V(s) of dueling heads. So compare Q-values only between actions of the same ablation.

    Arrays hold one state each: vectorised exp and log may round the last few elements of an array
    differently, and no bit may depend on neighbouring states.
    """

    clean: FloatArray  # [A, 1]
    ablated: FloatArray  # [A, P], up to one number for each ablation; `clean` where quiet
    quiet: NDArray[np.bool_]  # [P], where the ablation changes nothing but rounding
    temperature: float | None = None

    @classmethod
    def of(cls, clean: FloatArray, ablated: FloatArray, rounding_floor: float) -> "Ablated":
        """Convert Q-values `clean` [A] and `ablated` [P, A]; changes up to `rounding_floor` count as none."""
        clean = clean.astype(np.float64)[:, None]
        ablated = ablated.T.astype(np.float64, order="C")
        quiet = np.abs(ablated - clean).max(axis=0) <= rounding_floor
        return cls(clean, np.where(quiet, clean, ablated), quiet)

    def at(self, temperature: float) -> "Ablated":
        """Return the same state with the softmax policies at `temperature`."""
        return replace(self, temperature=temperature)

    @cached_property
    def action(self) -> int:
        """The greedy action a*; the first of equal ones."""
        return int(self.clean.argmax())

    @cached_property
    def ablated_actions(self) -> NDArray[np.int64]:
        """The greedy action of each ablated state, [P]."""
        return self.ablated.argmax(axis=0)

    @cached_property
    def margin(self) -> float:
        """The Q-gap, Q(s, a*) − max_{a ≠ a*} Q(s, a) ≥ 0: the margin of eq. 7 at s with the opposite sign."""
        return float(self.clean[self.action, 0] - np.delete(self.clean, self.action).max())

    @cached_property
    def log_policy(self) -> FloatArray:
        """Log of the softmax policy at `temperature` (eq. 6) of the clean state, [A, 1]; NaN where Q/T overflows."""
        return self._log_softmax(self.clean)

    @cached_property
    def log_ablated_policy(self) -> FloatArray:
        """Log of the softmax policy at `temperature` (eq. 6) of each ablated state, [A, P]; NaN where Q/T overflows."""
        return np.where(self.quiet, self.log_policy, self._log_softmax(self.ablated))

    @property
    def entropy(self) -> float:
        """The entropy of the clean state's softmax policy at `temperature`, in nats."""
        return -float(_over_actions(np.exp(self.log_policy) * self.log_policy)[0])

    def ties(self, tolerance: float) -> int:
        """The number of ablations that change something and whose two best Q-values lie within `tolerance`."""
        others = self.ablated.copy()
        np.put_along_axis(others, self.ablated_actions[None], -np.inf, axis=0)
        return int(((self.ablated.max(axis=0) - others.max(axis=0) <= tolerance) & ~self.quiet).sum())

    def _log_softmax(self, q_values: FloatArray) -> FloatArray:
        """Return the log-softmax of Q/T over the actions (first axis); NaN where Q/T overflows."""
        assert self.temperature is not None, "a kind that reads policies needs by_temperature=True"
        logits = q_values / self.temperature
        logits -= logits.max(axis=0)
        return logits - np.log(_over_actions(np.exp(logits)))


def _over_actions(summands: FloatArray) -> FloatArray:
    """Return the sum [P] of `summands` [A, P] in the order of the actions, which `np.sum` does not promise."""
    total = summands[0].copy()
    for summand in summands[1:]:
        total += summand
    return total


def kmap(state: Ablated) -> FloatArray:
    """Return the drop in Q(s, ·) from action a* to the greedy action of Z_ij(s) (eq. 4), [P].

    The drop is Q(s, a*) − Q(s, argmax_a Q(Z_ij(s), a)) ≥ 0.
    """
    return state.clean[state.action] - state.clean[state.ablated_actions, 0]


def hmap(state: Ablated) -> FloatArray:
    """Return the cross-entropy of clean and ablated policy (eq. 5), −Σ_a π(s, a) log π(Z_ij(s), a), in nats, [P]."""
    return -_over_actions(np.exp(state.log_policy) * state.log_ablated_policy)


def kl(state: Ablated) -> FloatArray:
    """Return the KL divergence KL(π(s) ‖ π(Z_ij(s))), [P], in nats: HMAP without the policy's own entropy.

    For π = π(s), π' = π(Z_ij(s)) and d = log π' − log π it is −Σ_a π d, and, because Σ_a π e^d = 1, also
    Σ_a π (e^d − 1 − d). The second form is used: no summand is negative, and small changes give small summands. In the
    first form summands cancel and leave rounding noise.
    """
    policy, d = np.exp(state.log_policy), state.log_ablated_policy - state.log_policy
    summands = policy * (np.expm1(np.minimum(d, 1)) - d)
    large = d >= 1
    if large.any():  # π e^d is π', which cannot overflow
        summands = np.where(large, np.exp(state.log_ablated_policy) - policy - policy * d, summands)
    return _over_actions(summands).clip(min=0)


def margin_drop(state: Ablated) -> FloatArray:
    """Return the drop of the margin Q(·, a*) − max_{a ≠ a*} Q(·, a) from s to Z_ij(s), [P].

    The drop is negative where the margin grows. The margin of eq. 7 has the opposite sign.
    """
    others = np.delete(state.ablated, state.action, axis=0).max(axis=0)
    return state.margin - (state.ablated[state.action] - others)


def flip_map(state: Ablated) -> FloatArray:
    """Return 1.0 where the greedy actions of s and Z_ij(s) differ, else 0.0, [P]."""
    return (state.ablated_actions != state.action).astype(np.float64)


@dataclass(frozen=True)
class MapKind:
    """One kind of map: the sum over states of `summand`, a function of `Ablated` that returns [P] float64.

    A summand that reads softmax policies has `by_temperature`: there is a map for each temperature T. `signed` maps
    have negative values too.
    """

    name: str  # in files, records and W&B
    symbol: str
    title: str  # within a sentence
    meaning: str
    why_zero: str  # the meaning of a map of zeros
    unit: str
    colours: str  # a colour map of matplotlib
    digits: int  # of its sparsity
    summand: Callable[[Ablated], FloatArray]
    by_temperature: bool = False
    signed: bool = False
    paper_figure: int | None = None  # the paper's figure of this kind

    @property
    def heading(self) -> str:
        """The heading for figures, e.g. `KMAP  K(i, j)`."""
        return f"{self.title[0].upper()}{self.title[1:]}  {self.symbol}(i, j)"

    def zero_reason(self, num_states: int) -> str:
        """Return the text that says why S of a map of zeros over `num_states` states is undefined."""
        return f"the map is 0 everywhere: {self.why_zero} on these {num_states} states"


# In the order in which tables and figures show them.
KINDS: dict[str, MapKind] = {
    kind.name: kind
    for kind in (
        MapKind(
            name="kmap", symbol="K", title="KMAP", summand=kmap, paper_figure=1,
            meaning="Sum over states of the drop in Q from the greedy action to that without the pixel (eq. 4).",
            why_zero="no pixel flips an action to one of lower Q",
            unit="drop in Q or logit, sum over states", colours="inferno", digits=2,
        ),
        MapKind(
            name="hmap", symbol="H", title="HMAP", summand=hmap, paper_figure=2,
            meaning="Sum over states of the cross-entropy of the policies with and without the pixel (eq. 5).",
            why_zero="the policy is deterministic at this temperature and no pixel changes it",
            unit="nats, sum over states", colours="viridis", by_temperature=True,
            digits=6,  # the map is almost flat
        ),
        MapKind(
            name="kl", symbol="KL", title="KL map", summand=kl,
            meaning="Sum over states of the KL divergence between the policies with and without the pixel: HMAP minus "
            "the policy's own entropy, so the same picture from 0 on.",
            why_zero="no pixel changes the policy",
            unit="nats, sum over states", colours="viridis", digits=2, by_temperature=True,
        ),
        MapKind(
            name="margin_drop", symbol="Δm", title="margin-drop map", summand=margin_drop,
            meaning="Sum over states of the drop in the lead of the greedy action over the best other one; negative "
            "where the lead grows.",
            why_zero="no pixel changes the margin",
            unit="drop in margin, sum over states", colours="RdBu_r", digits=2, signed=True,
        ),
        MapKind(
            name="flip_map", symbol="F", title="flip map", summand=flip_map,
            meaning="Number of states whose greedy action changes without the pixel: how often it decides, where K "
            "says how dearly.",
            why_zero="no pixel flips an action",
            unit="flips, sum over states", colours="magma", digits=2,
        ),
    )
}  # fmt: skip
