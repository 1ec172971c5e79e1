"""From maps to records: sparsity, effective pixels and map entropy, with intervals over episodes."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nrmap.episode_maps import EpisodeMaps
from nrmap.evaluation import GAP_QUANTILES, MakesRecord
from nrmap.intervals import Interval, interval_of_sum, sparsity_interval
from nrmap.records import Record
from nrmap.sparsity import (
    MapKind,
    Measure,
    effective_pixels,
    map_entropy,
    relative_map_entropy,
    sparsity,
    sparsity_of_rows,
    zero_reason,
)


def map_records(
    maps: EpisodeMaps, *, game: str, method: str, seed: int | None, states_from: str, policy_sha256: str | None
) -> list[Record]:
    """Everything that is measured on the maps of one policy on one set of states.

    For each kind of map ("kmap", "margin_drop", and at every temperature "hmap", "kl"): its
    "_sparsity" (eq. 9), "_effective_pixels" (S²), "_map_entropy" (UAI eq. 8, on the sum over
    states) and "_relative_map_entropy" (on M / max |M|); the sparsity also for every prefix of
    the states, with item "prefix". Then the share of (state, pixel) pairs that flip the arg max
    ("flip_pair_rate") or leave it to rounding ("tie_pair_rate"), and the Q-gap's quantiles.
    """
    make = partial(
        Record,
        game,
        method,
        seed,
        states_from=states_from,
        policy_sha256=policy_sha256,
        num_states=maps.num_states,
        episodes=len(maps.episode_ids),
    )
    records = [
        record
        for kind, temperature, by_episode in _kinds(maps)
        for record in _records_of_map(partial(make, temperature=temperature), kind, by_episode, maps.num_states)
    ]
    for size, prefix in sorted(maps.prefixes.items()):
        for kind, temperature, by_episode in _kinds(prefix):
            value = sparsity(by_episode.sum(axis=0), zero_reason(kind, size))
            fields = {"temperature": temperature, "num_states": size, "item": "prefix"}
            interval = sparsity_interval(by_episode)
            records.append(_record(partial(make, **fields), f"{kind}_sparsity", value, interval))
    pairs = maps.num_states * int(np.prod(maps.kmap.shape[1:]))
    records.append(make(metric="flip_pair_rate", value=int(maps.flips.sum()) / pairs))
    records.append(make(metric="tie_pair_rate", value=int(maps.ties.sum()) / pairs))
    for quantile in GAP_QUANTILES:
        gap = float(np.quantile(maps.q_gaps, quantile))
        records.append(make(metric="q_gap_quantile", value=gap, item=str(quantile)))
    return records


def _kinds(maps: EpisodeMaps) -> Iterator[tuple[MapKind, float | None, NDArray[np.float64]]]:
    """Every map as its kind, its temperature and its parts by episode [E, …]."""
    yield "kmap", None, maps.kmap
    yield "margin_drop", None, maps.margin_drop
    for index, temperature in enumerate(maps.temperatures):
        yield "hmap", temperature, maps.hmap[index]
        yield "kl", temperature, maps.kl[index]


def _records_of_map(
    make: MakesRecord, kind: MapKind, by_episode: NDArray[np.float64], num_states: int
) -> Iterator[Record]:
    total = by_episode.sum(axis=0)
    why_zero = zero_reason(kind, num_states)
    pixels = total.size
    yield _record(make, f"{kind}_sparsity", sparsity(total, why_zero), sparsity_interval(by_episode))
    squared = interval_of_sum(by_episode, lambda sums: sparsity_of_rows(sums) ** 2, bounds=(1.0, float(pixels)))
    yield _record(make, f"{kind}_effective_pixels", effective_pixels(total, why_zero), squared)
    yield make(metric=f"{kind}_map_entropy", value=map_entropy(total))
    yield _record(make, f"{kind}_relative_map_entropy", relative_map_entropy(total, why_zero), None)


def _record(make: MakesRecord, metric: str, measure: Measure, interval: Interval | None) -> Record:
    if interval is None:
        return make(metric=metric, value=measure.value, note=measure.reason)
    return make(
        metric=metric,
        value=measure.value,
        low=interval.low,
        high=interval.high,
        interval=interval.method if interval.low is not None else None,
        note=measure.reason or interval.reason,
    )
