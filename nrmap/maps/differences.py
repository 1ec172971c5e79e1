"""Differences in sparsity: S of one method minus S of another, for two policies and over training seeds.

Two maps of the same states share their episodes. The jackknife leaves an episode out of both, so
effects on both cancel and the interval is that of the difference.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import sparsity_of_rows
from nrmap.statistics.intervals import Estimate, estimate_of_sum, student_quantile
from nrmap.support.errors import check
from nrmap.support.records import Record, RecordFactory

MIN_SEEDS = 3  # that both methods have: two say next to nothing about the spread
DIFFERENCE = "sparsity_difference"


def paired_differences(
    make: RecordFactory, maps: EpisodeMaps, base: EpisodeMaps, players: NDArray[np.int64]
) -> list[Record]:
    """Make records of S of `maps` minus S of `base`, the maps of two policies on the same states.

    There is one "sparsity_difference" for each kind of map and temperature that both have; `make`
    fills in the common fields. `players` [E] is the index of the policy that played an episode, see
    `estimate_of_sum`. Raises NrmapError when episode ids, numbers of states or pixels differ.
    """
    maps = replace(maps, players=players)
    of_base = {(kind.name, temperature) for kind, temperature, _ in base.each()}
    records = []
    for kind, temperature, _ in maps.each():
        if (kind.name, temperature) in of_base:
            found = paired_difference(maps, base, kind.name, temperature)
            records.append(make(metric=DIFFERENCE, map_kind=kind.name, temperature=temperature, **asdict(found)))
    return records


def paired_difference(maps: EpisodeMaps, base: EpisodeMaps, kind: str, temperature: float | None = None) -> Estimate:
    """Estimate S of one map in `maps` minus S of the same map in `base`, from another policy on the same states.

    The value is None if either map is 0 everywhere. For the interval see `estimate_of_sum`. Raises NrmapError when
    episode ids, numbers of states or pixels differ, and for a map that `maps` or `base` lacks.
    """
    check(
        np.array_equal(maps.episode_ids, base.episode_ids)
        and np.array_equal(maps.states_per_episode, base.states_per_episode)
        and maps.pixels == base.pixels,
        "the maps are not of the same episodes and pixels",
    )
    both = np.stack([maps[kind, temperature], base[kind, temperature]], axis=1)  # [E, 2, …]
    undefined = np.isnan(sparsity_of_rows(both.sum(axis=0)))  # [2]
    furthest = np.sqrt(both[0, 0].size) - 1  # S lies in [1, √pixels]
    why_zero = KINDS[kind].zero_reason(maps.num_states)
    return estimate_of_sum(
        both,
        lambda pairs: sparsity_of_rows(pairs[:, 0]) - sparsity_of_rows(pairs[:, 1]),  # [R] of [R, 2, …]
        bounds=(-furthest, furthest),
        players=maps.players,
        subject="these two policies",
        why_undefined=f"{'this' if undefined[0] else 'the other'} S is undefined: {why_zero}",
    )


def seed_difference(
    make: RecordFactory, values: Mapping[int, float | None], base: Mapping[int, float | None]
) -> Record | None:
    """Make the record of the mean over training seeds of S in `values` minus S in `base`.

    `values` and `base` map a seed to S, None where S is undefined. Only seeds in both count. The result is None for
    fewer than `MIN_SEEDS` of them. The interval is the paired t: an SA-DDQN agent starts from the DDQN agent of its
    seed, so the two are not independent. If S of any of these seeds is None, the value is None too, because a mean over
    the other seeds would be biased. There is no interval if all differences are equal.
    """
    seeds = sorted(values.keys() & base.keys())
    if len(seeds) < MIN_SEEDS:
        return None
    pairs = [(values[seed], base[seed]) for seed in seeds]
    differences = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    if len(differences) < len(seeds):
        note = f"S is undefined in {len(seeds) - len(differences)} of {len(seeds)} pairs of policies"
        return make(metric=DIFFERENCE, value=None, note=note)
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / len(seeds) ** 0.5
    if np.ptp(differences) == 0:
        note = "all differences are equal: no variance to estimate an interval from"
        return make(metric=DIFFERENCE, value=mean, note=note)
    half, interval = student_quantile(len(seeds) - 1) * error, f"paired t over {len(seeds)} training seeds"
    return make(metric=DIFFERENCE, value=mean, low=mean - half, high=mean + half, interval=interval)
