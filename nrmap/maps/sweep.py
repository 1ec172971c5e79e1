"""KMAP, HMAP, KL and margin-drop maps, all from one sweep over ablated Q-values (equations 4 to 6).

For a policy whose outputs are logits the formulas are the same: KMAP and the margin drop are
then in units of logits, and HMAP and KL are those of softmax(logits/T).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from nrmap.maps.episode_maps import EpisodeMaps, FloatArray, IntArray
from nrmap.statistics.nested_subsets import prefix_ranks
from nrmap.support.errors import NrmapError, check


class AblatedQValues(Protocol):
    """What a sweep needs of a chunk of n consecutive states."""

    @property
    def start(self) -> int:
        """Index of the chunk's first state."""

    @property
    def q_values(self) -> Tensor:
        """Of the ablated states: [n, H, W, A], or [n, C, H, W, A] where each channel is ablated apart."""

    @property
    def clean_q_values(self) -> Tensor:
        """Of the states themselves: [n, A]."""


def sweep_maps(
    chunks: Iterable[AblatedQValues],
    *,
    episode_ids: ArrayLike,
    temperatures: Sequence[float],
    rounding_floor: float,
    prefix_sizes: Sequence[int] = (),
    ranks: ArrayLike | None = None,
) -> EpisodeMaps:
    """Every map of every episode, from one pass over the ablated Q-values.

    `chunks` come in state order and cover the N states whose episodes are `episode_ids` [N].
    Where no Q-value changes by more than `rounding_floor`, the engine's own rounding, the
    ablated Q-values are taken to equal the clean ones. A pair of state and pixel counts as a tie
    when its two best ablated Q-values lie within twice that floor. `prefix_sizes` asks for the
    maps of that many states as well; `ranks` [N] says which come first and defaults to
    `prefix_ranks(episode_ids)`; a shard passes its slice of the ranks of all states.

    Summands are computed and added state by state in float64, so that a map depends, to the last
    bit, neither on the chunks' sizes nor on other episodes or temperatures.

    Raises NrmapError for a temperature that is not finite and > 0, or so small that Q/T overflows,
    for NaN or infinite Q-values, and for chunks that do not cover the
    states in order.
    """
    ids = np.asarray(episode_ids, dtype=np.int64)
    check(ids.ndim == 1 and len(ids) > 0, f"episode_ids of shape {ids.shape}: expected [N] with N ≥ 1")
    check(len(temperatures) > 0, "no temperature given: expected at least one")
    for temperature in temperatures:
        check(0 < temperature < np.inf, f"temperature {temperature}: expected a finite number > 0")
    check(0 <= rounding_floor < np.inf, f"rounding floor {rounding_floor}: expected a finite number ≥ 0")
    rank = prefix_ranks(ids) if ranks is None else np.asarray(ranks, dtype=np.int64)
    check(rank.shape == ids.shape, f"ranks of shape {rank.shape}: expected {ids.shape}, one for each state")
    for prefix in prefix_sizes:
        check(prefix > 0, f"prefix of {prefix} states: expected > 0")
        check(ranks is not None or prefix <= len(ids), f"prefix of {prefix} states: there are only {len(ids)}")

    sums: dict[int | None, _Sums] = {}
    state = 0
    for chunk in chunks:
        _check_chunk(chunk, state, len(ids))
        if not sums:
            pixels = tuple(chunk.q_values.shape[1:-1])
            sums = {size: _Sums(ids, temperatures, pixels) for size in (None, *sorted(set(prefix_sizes)))}
        for clean, ablated in zip(chunk.clean_q_values.cpu(), chunk.q_values.cpu(), strict=True):
            terms = _terms(clean.numpy(), ablated.flatten(0, -2).numpy(), temperatures, rounding_floor)
            if not np.isfinite(terms.h).all():
                raise NrmapError(f"temperature {min(temperatures)} is too small: Q/T overflows at state {state}")
            for size, part in sums.items():
                if size is None or rank[state] < size:
                    part.add(state, terms)
            state += 1
    check(state == len(ids), f"ablated Q-values of {state} states: expected {len(ids)}, one for each episode id")
    return sums.pop(None).maps({size: part.maps({}) for size, part in sums.items() if size is not None})


@dataclass(frozen=True, eq=False)
class _StateTerms:
    """One state's summand in every map; P is the number of pixels."""

    k: FloatArray  # [P]
    margin_drop: FloatArray  # [P]
    h: FloatArray  # [T, P]
    kl: FloatArray  # [T, P]
    entropy: FloatArray  # [T]
    flips: int
    ties: int
    q_gap: float


def _terms(clean: FloatArray, ablated: FloatArray, temperatures: Sequence[float], rounding_floor: float) -> _StateTerms:
    """The summands of one state from its Q-values `clean` [A] and `ablated` [P, A].

    Vectorised exp and log may round the last few elements of an array differently, so states are
    never computed together: the bits of a state's summands would depend on its neighbours.
    """
    clean = clean.astype(np.float64)[:, None]  # [A, 1]
    ablated = ablated.T.astype(np.float64, order="C")  # [A, P]
    quiet = np.abs(ablated - clean).max(axis=0) <= rounding_floor  # [P]
    best = int(clean.argmax())  # a*, the first of equal ones
    ablated_best = ablated.argmax(axis=0)  # [P]
    flipped = (ablated_best != best) & ~quiet  # [P]
    top = np.take_along_axis(ablated, ablated_best[None], axis=0)[0]  # [P]
    runners_up = ablated.copy()
    np.put_along_axis(runners_up, ablated_best[None], -np.inf, axis=0)
    margin = clean[best, 0] - np.delete(clean, best).max()
    ablated_margin = ablated[best] - np.delete(ablated, best, axis=0).max(axis=0)  # [P]

    h, kl, entropy = [], [], []
    for temperature in temperatures:
        log_policy = _log_policy(clean, temperature)  # [A, 1]
        log_ablated = _log_policy(ablated, temperature)  # [A, P]
        policy = np.exp(log_policy)
        clean_entropy = -float((policy * log_policy).sum())
        cross_entropy = -(policy * log_ablated).sum(axis=0)  # [P], equation 5
        h.append(np.where(quiet, clean_entropy, cross_entropy))
        kl.append(np.where(quiet, 0, _kl(log_policy, log_ablated)))
        entropy.append(clean_entropy)
    return _StateTerms(
        k=np.where(flipped, clean[best] - clean[ablated_best, 0], 0),  # equation 4
        margin_drop=np.where(quiet, 0, margin - ablated_margin),
        h=np.stack(h),
        kl=np.stack(kl),
        entropy=np.array(entropy),
        flips=int(flipped.sum()),
        ties=int(((top - runners_up.max(axis=0) <= 2 * rounding_floor) & ~quiet).sum()),
        q_gap=float(margin),
    )


def _log_policy(q_values: FloatArray, temperature: float) -> FloatArray:
    """Equation 6, log softmax(Q/T) over the first axis; NaN where Q/T overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        logits = q_values / temperature
        logits -= logits.max(axis=0)
        log_policy: FloatArray = logits - np.log(np.exp(logits).sum(axis=0))
    return log_policy


def _kl(log_policy: FloatArray, log_ablated: FloatArray) -> FloatArray:
    """KL(π ‖ π') [P] from log π [A, 1] and log π' [A, P].

    With d = log π' − log π it is −Σ_a π d, and, because Σ_a π e^d = 1, also Σ_a π (e^d − 1 − d).
    No summand of the second form is negative and those of a small change are small; in the first
    they cancel and leave rounding noise.
    """
    policy, d = np.exp(log_policy), log_ablated - log_policy
    summands = policy * (np.expm1(np.minimum(d, 1)) - d)
    large = d >= 1
    if large.any():  # π e^d is π', which cannot overflow
        summands = np.where(large, np.exp(log_ablated) - policy - policy * d, summands)
    divergence: FloatArray = summands.sum(axis=0).clip(min=0)
    return divergence


class _Sums:
    """Running sums of the summands, episode by episode."""

    def __init__(self, episode_ids: IntArray, temperatures: Sequence[float], pixels: tuple[int, ...]) -> None:
        self.ids, self.episode_of = np.unique(episode_ids, return_inverse=True)  # [E], [N]
        self.temperatures = tuple(float(temperature) for temperature in temperatures)
        self.pixels = pixels
        episodes, by_temperature = len(self.ids), (len(temperatures), len(self.ids))
        size = int(np.prod(pixels))
        self.states, self.flips, self.ties = np.zeros((3, episodes), dtype=np.int64)
        self.k, self.margin_drop = np.zeros((2, episodes, size))
        self.h, self.kl = np.zeros((2, *by_temperature, size))
        self.entropy = np.zeros(by_temperature)
        self.q_gaps: list[list[float]] = [[] for _ in self.ids]

    def add(self, state: int, terms: _StateTerms) -> None:
        """Add the summands of the state with index `state`."""
        episode = self.episode_of[state]
        self.k[episode] += terms.k
        self.margin_drop[episode] += terms.margin_drop
        self.h[:, episode] += terms.h
        self.kl[:, episode] += terms.kl
        self.entropy[:, episode] += terms.entropy
        self.flips[episode] += terms.flips
        self.ties[episode] += terms.ties
        self.states[episode] += 1
        self.q_gaps[episode].append(terms.q_gap)

    def maps(self, prefixes: dict[int, EpisodeMaps]) -> EpisodeMaps:
        """The sums as maps."""
        return EpisodeMaps(
            temperatures=self.temperatures,
            episode_ids=self.ids,
            states_per_episode=self.states,
            kmap=self.k.reshape(-1, *self.pixels),
            margin_drop=self.margin_drop.reshape(-1, *self.pixels),
            hmap=self.h.reshape(*self.h.shape[:2], *self.pixels),
            kl=self.kl.reshape(*self.kl.shape[:2], *self.pixels),
            entropy=self.entropy,
            flips=self.flips,
            ties=self.ties,
            q_gaps=np.concatenate(self.q_gaps),
            prefixes=prefixes,
        )


def _check_chunk(chunk: AblatedQValues, state: int, num_states: int) -> None:
    q_values, clean = chunk.q_values, chunk.clean_q_values
    check(chunk.start == state, f"a chunk starts at state {chunk.start}: expected {state}")
    check(state + len(q_values) <= num_states, f"ablated Q-values beyond the {num_states} states with an episode id")
    fits = q_values.ndim in (4, 5) and clean.shape == (len(q_values), q_values.shape[-1]) and clean.shape[1] > 1
    check(fits, f"ablated {list(q_values.shape)}, clean {list(clean.shape)}: expected [n, (C,) H, W, A], [n, A], A ≥ 2")
    finite = q_values.flatten(1).isfinite().all(dim=1) & clean.isfinite().all(dim=1)  # [n]
    if not finite.all():
        raise NrmapError(f"state {state + int(finite.int().argmin())}: its Q-values or ablated Q-values are not finite")
