"""Compute the maps of every kind and episode in one pass over ablated Q-values."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nrmap.ablation.spec import AblatedChunk, check_finite
from nrmap.maps.episode_maps import EpisodeMaps, IntArray
from nrmap.maps.kinds import KINDS, Ablated, FloatArray
from nrmap.statistics.nested_subsets import prefix_ranks
from nrmap.support.errors import NrmapError, check

log = logging.getLogger(__name__)

# Far above it all actions are equally likely, up to the last digits of float64.
HIGHEST_TEMPERATURE = 1e9
MOST_TEMPERATURES = 1000  # on tiny states they take seconds, and each map of each episode is kept


def sweep_workers(device: torch.device) -> int:
    """Return the number of threads for `sweep_maps`: 1 on a CPU, whose cores the engine needs, else up to 16."""
    return 1 if device.type == "cpu" else min(os.cpu_count() or 1, 16)


def sweep_maps(
    chunks: Iterable[AblatedChunk],
    *,
    episode_ids: ArrayLike,
    temperatures: Sequence[float],
    rounding_floor: float,
    prefix_sizes: Sequence[int] = (),
    ranks: ArrayLike | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EpisodeMaps:
    """Compute every map of every episode in one pass over the ablated Q-values.

    `chunks` come in state order and cover the N states whose episodes are `episode_ids` [N]. Where no Q-value changes
    by more than `rounding_floor`, the engine's own rounding, the ablated Q-values count as equal to the clean ones. A
    pair of state and pixel counts as a tie when its two best ablated Q-values lie within twice that floor. Each n in
    `prefix_sizes` adds the maps of the states of rank < n. `ranks` [N] are by default `prefix_ranks(episode_ids)`; a
    shard passes its slice of the ranks of all states. Summands are computed by `workers` threads while the engine makes
    the next chunk; more than one pay off where the engine runs on a GPU. `progress` is called after every chunk with
    the number of states done and N.

    Summands are computed and added state by state in float64, so that a map depends, to the last bit, neither on the
    chunks' sizes nor on other episodes or temperatures. A warning is logged if the floor is above a thousandth of the
    largest |Q|.

    Raises NrmapError for arguments out of range: 1 to 1,000 different temperatures above 0 and up to 10⁹ are allowed,
    and a floor that is finite and not negative. Raises NrmapError for a temperature so small that Q/T overflows, for
    NaN or infinite Q-values, for chunks that do not cover the states in order, and where iterating over `chunks` does.
    """
    ids = np.asarray(episode_ids, dtype=np.int64)
    check(ids.ndim == 1 and len(ids) > 0, f"episode_ids of shape {ids.shape}: expected [N] with N ≥ 1")
    check(len(temperatures) > 0, "no temperature given: expected at least one")
    many = f"{len(temperatures)} temperatures: expected at most {MOST_TEMPERATURES}, since each has maps of its own"
    check(len(temperatures) <= MOST_TEMPERATURES, many)
    for temperature in temperatures:
        fits = 0 < temperature <= HIGHEST_TEMPERATURE
        check(fits, f"temperature {temperature}: expected a number above 0, at most {HIGHEST_TEMPERATURE:g}")
    check(0 <= rounding_floor < np.inf, f"rounding floor {rounding_floor}: expected a finite number ≥ 0")
    rank = prefix_ranks(ids) if ranks is None else np.asarray(ranks, dtype=np.int64)
    check(rank.shape == ids.shape, f"ranks of shape {rank.shape}: expected {ids.shape}, one for each state")
    for prefix in prefix_sizes:
        check(prefix > 0, f"prefix of {prefix} states: expected > 0")
        check(ranks is not None or prefix <= len(ids), f"prefix of {prefix} states: there are only {len(ids)}")

    def terms_of(index: int, clean: Tensor, ablated: Tensor) -> _Terms:
        state = Ablated.of(clean.numpy(), ablated.flatten(0, -2).numpy(), rounding_floor)
        return _terms(state, temperatures, rounding_floor, index)

    sums: dict[int | None, _Sums] = {}
    index, largest = 0, 0.0
    with ThreadPoolExecutor(workers) as pool:
        for chunk in _ahead(chunks) if workers > 1 else chunks:
            _check_chunk(chunk, index, len(ids))
            if not sums:
                pixels = tuple(chunk.q_values.shape[1:-1])
                sums = {size: _Sums(ids, temperatures, pixels) for size in (None, *sorted(set(prefix_sizes)))}
            largest = max(largest, float(chunk.clean_q_values.abs().max()))
            parts = range(index, index + len(chunk.q_values)), chunk.clean_q_values.cpu(), chunk.q_values.cpu()
            for terms in pool.map(terms_of, *parts) if workers > 1 else map(terms_of, *parts):
                for size, part in sums.items():
                    if size is None or rank[index] < size:
                        part.add(index, terms)
                index += 1
            progress(index, len(ids))
    check(index == len(ids), f"ablated Q-values of {index} states: expected {len(ids)}, one for each episode id")
    if rounding_floor > largest / 1000:
        small = f"the outputs of these states are at most {largest:.2g}"
        log.warning("%s, and changes up to %.2g count as rounding: small effects are lost", small, rounding_floor)
    return sums.pop(None).maps({size: part.maps({}) for size, part in sums.items() if size is not None})


def _ahead(chunks: Iterable[AblatedChunk]) -> Iterator[AblatedChunk]:
    """Yield `chunks`, while a second thread makes the next one."""
    chunks = iter(chunks)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, chunks, None)
        while (chunk := following.result()) is not None:
            following = pool.submit(next, chunks, None)
            yield chunk


@dataclass(frozen=True, eq=False)
class _Terms:
    """The summands of one state, one for each kind of map."""

    arrays: Mapping[str, FloatArray]  # by kind of map, [P] or [T, P]
    entropy: FloatArray  # [T]
    ties: int
    q_gap: float


def _terms(state: Ablated, temperatures: Sequence[float], rounding_floor: float, index: int) -> _Terms:
    with np.errstate(over="ignore", invalid="ignore"):  # Q/T may overflow, which is an error below
        at = [state.at(temperature) for temperature in temperatures]
        arrays = {
            kind.name: np.stack([kind.summand(one) for one in at]) if kind.by_temperature else kind.summand(state)
            for kind in KINDS.values()
        }
        entropy = np.array([one.entropy for one in at])
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            reason = f"temperature {min(temperatures)} is too small" if KINDS[name].by_temperature else "overflow"
            raise NrmapError(f"the {KINDS[name].title} is not finite at state {index}: {reason}")
    return _Terms(arrays, entropy, state.ties(2 * rounding_floor), state.margin)


class _Sums:
    """Running sums of the summands of each episode."""

    def __init__(self, episode_ids: IntArray, temperatures: Sequence[float], pixels: tuple[int, ...]) -> None:
        self.ids, self.episode_of = np.unique(episode_ids, return_inverse=True)  # [E], [N]
        self.temperatures = tuple(float(temperature) for temperature in temperatures)
        self.pixels = pixels
        episodes, size = len(self.ids), int(np.prod(pixels))
        self.states, self.ties = np.zeros((2, episodes), dtype=np.int64)
        self.arrays = {
            kind.name: np.zeros((*([len(temperatures)] if kind.by_temperature else []), episodes, size))
            for kind in KINDS.values()
        }
        self.entropy = np.zeros((len(temperatures), episodes))
        self.q_gaps: list[list[float]] = [[] for _ in self.ids]

    def add(self, index: int, terms: _Terms) -> None:
        """Add the summands `terms` of state `index`."""
        episode = self.episode_of[index]
        for name, summand in terms.arrays.items():
            self.arrays[name][..., episode, :] += summand
        self.entropy[:, episode] += terms.entropy
        self.ties[episode] += terms.ties
        self.states[episode] += 1
        self.q_gaps[episode].append(terms.q_gap)

    def maps(self, prefixes: dict[int, EpisodeMaps]) -> EpisodeMaps:
        """Return the sums as maps; `prefixes` has the maps of the first n states, by n."""
        return EpisodeMaps(
            temperatures=self.temperatures,
            arrays={name: array.reshape(*array.shape[:-1], *self.pixels) for name, array in self.arrays.items()},
            episode_ids=self.ids, states_per_episode=self.states, entropy=self.entropy, ties=self.ties,
            q_gaps=np.concatenate(self.q_gaps), prefixes=prefixes,
        )  # fmt: skip


def _check_chunk(chunk: AblatedChunk, state: int, num_states: int) -> None:
    q_values, clean = chunk.q_values, chunk.clean_q_values
    check(chunk.start == state, f"a chunk starts at state {chunk.start}: expected {state}")
    check(state + len(q_values) <= num_states, f"ablated Q-values beyond the {num_states} states with an episode id")
    fits = q_values.ndim in (4, 5) and clean.shape == (len(q_values), q_values.shape[-1]) and clean.shape[1] > 1
    check(fits, f"ablated {list(q_values.shape)}, clean {list(clean.shape)}: expected [n, (C,) H, W, A], [n, A], A ≥ 2")
    check_finite(chunk)
