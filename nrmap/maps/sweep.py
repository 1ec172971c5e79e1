"""KMAP, HMAP, KL and margin-drop maps, all from one sweep over ablated Q-values (equations 4 to 6).

For a policy whose outputs are logits the formulas are the same: KMAP and the margin drop are
then in units of logits, and HMAP and KL are those of softmax(logits/T).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nrmap.maps.episode_maps import EpisodeMaps, FloatArray, IntArray
from nrmap.statistics.nested_subsets import prefix_ranks
from nrmap.support.errors import NrmapError, check

# Enough work for several threads, little enough for a processor's cache.
STATES_AT_A_TIME = 4


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

    Summands are in float64 and added state by state, so a map depends neither on the chunks'
    sizes nor on the other episodes. Raises NrmapError for a temperature that is not finite and > 0, or so
    small that Q/T overflows, for NaN or infinite Q-values, and for chunks that do not cover the
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
        few_states = (q_values.split(STATES_AT_A_TIME) for q_values in (chunk.clean_q_values, chunk.q_values))
        for clean, ablated in zip(*few_states, strict=True):
            for terms in _terms(clean, ablated, temperatures, rounding_floor):
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


@torch.no_grad()
def _terms(
    clean: Tensor, ablated: Tensor, temperatures: Sequence[float], rounding_floor: float
) -> Iterator[_StateTerms]:
    """The summands of n states with Q-values `clean` [n, A] and `ablated` [n, H, W, A] or [n, C, H, W, A]."""
    clean = clean.double().T[:, :, None]  # [A, n, 1]
    # Reductions over actions run along states and pixels.
    ablated = ablated.flatten(1, -2).double().permute(2, 0, 1).contiguous()  # [A, n, P]
    quiet = (ablated - clean).abs().amax(dim=0) <= rounding_floor  # [n, P]

    # The indices of `max` are those of the first of equal ones, as argmax's, and come many times sooner.
    best = clean.max(dim=0).indices  # [n, 1], a*
    ablated_best = ablated.max(dim=0).indices  # [n, P]
    flipped = (ablated_best != best) & ~quiet  # [n, P]
    cost = _at(clean, best) - _at(clean.expand_as(ablated), ablated_best)  # [n, P]
    k = cost.masked_fill(~flipped, 0)  # equation 4
    margin = _margin(clean, best)  # [n, 1]
    margin_drop = (margin - _margin(ablated, best.expand_as(ablated_best))).masked_fill(quiet, 0)  # [n, P]
    tied = (_margin(ablated, ablated_best) <= 2 * rounding_floor) & ~quiet  # [n, P]

    h, kl, entropy = [], [], []
    for temperature in temperatures:
        log_policy = torch.log_softmax(clean / temperature, dim=0)  # [A, n, 1], equation 6
        log_ablated = torch.log_softmax(ablated / temperature, dim=0)  # [A, n, P]
        policy = log_policy.exp()
        clean_entropy = -_over_actions(policy * log_policy)  # [n, 1]
        cross_entropy = -_over_actions(policy * log_ablated)  # [n, P], equation 5
        h.append(torch.where(quiet, clean_entropy, cross_entropy))
        kl.append(_kl(log_policy, log_ablated).masked_fill(quiet, 0))
        entropy.append(clean_entropy[:, 0])
    every_h, every_kl, entropies = (torch.stack(parts, dim=1).cpu().numpy() for parts in (h, kl, entropy))  # [n, T, …]
    k, margin_drop = k.cpu(), margin_drop.cpu()
    flips, ties = flipped.sum(dim=1).tolist(), tied.sum(dim=1).tolist()
    for state in range(len(flips)):
        yield _StateTerms(
            k=k[state].numpy(),
            margin_drop=margin_drop[state].numpy(),
            h=every_h[state],
            kl=every_kl[state],
            entropy=entropies[state],
            flips=flips[state],
            ties=ties[state],
            q_gap=float(margin[state]),
        )


def _at(q_values: Tensor, action: Tensor) -> Tensor:
    """Q(a) [n, P] of `q_values` [A, n, P] at `action` [n, P]."""
    return q_values.gather(0, action[None])[0]


def _margin(q_values: Tensor, action: Tensor) -> Tensor:
    """Q(a) − max_{a' ≠ a} Q(a') [n, P] of `q_values` [A, n, P] at `action` [n, P]."""
    others = q_values.scatter(0, action[None], -torch.inf)  # [A, n, P]
    return _at(q_values, action) - others.amax(dim=0)


def _kl(log_policy: Tensor, log_ablated: Tensor) -> Tensor:
    """KL(π ‖ π') [n, P] from log π [A, n, 1] and log π' [A, n, P].

    With d = log π' − log π it is −Σ_a π d, and, because Σ_a π e^d = 1, also Σ_a π (e^d − 1 − d).
    No summand of the second form is negative and those of a small change are small; in the first
    they cancel and leave rounding noise.
    """
    policy, d = log_policy.exp(), log_ablated - log_policy
    summands = torch.where(
        d < 1,
        policy * (torch.expm1(d) - d),
        log_ablated.exp() - policy - policy * d,  # the same, for a d whose e^d could overflow
    )
    return _over_actions(summands).clamp(min=0)


def _over_actions(summands: Tensor) -> Tensor:
    """The sum [n, P] of `summands` [A, n, P], in the order of the actions.

    `Tensor.sum` adds in an order that depends on where in memory an element lies, so that a
    state's map would depend on the states that it is computed with.
    """
    total = summands[0].clone()
    for summand in summands[1:]:
        total += summand
    return total


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
