"""Differences in sparsity between each method and the vanilla one: for each seed, and between means over seeds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.report.load import readable, readable_maps
from analyze.report.names import PolicyName, gathered, group_of, grouped, name_of, states_of
from analyze.report.results import Found, Result, measurement_of
from nrmap.maps.differences import paired_differences, seed_difference
from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.play.given_states import GivenStates, read_states
from nrmap.play.states import RolloutStates
from nrmap.support.errors import NrmapError, check
from nrmap.support.records import Record, RecordFactory, select

BASE = "ddqn"


def with_differences(found: Found) -> Found:
    """Return `found` with the differences in S between every method and the vanilla one, and problems with files.

    Two policies are compared if game, states, ablation, training seed and scale of reference policies agree. A
    difference between means over seeds has seed None and the hash of the first policy of the method, which tells
    whether the policies are reference policies.
    """
    problems: list[str] = []
    # A policy that was analysed twice is compared twice, with equal values.
    paired = {measurement_of(record): record for record in _paired(found, problems)}
    return replace(
        found,
        differences=(*paired.values(), *differences_over_seeds(found.records, found.reference)),
        problems=tuple(dict.fromkeys([*found.problems, *problems])),
    )


def _difference_factory(record: Record, base: PolicyName, **fields: Any) -> RecordFactory:
    """Return a factory of records that compare the policy of `record`, on its states, with `base`."""
    names = ("game", "method", "seed", "variant", "policy_sha256", "states_from", "states_set", "protocol")
    shared = {name: getattr(record, name) for name in names}
    return partial(Record, **shared | {"compared_with": base.method, "compared_variant": base.variant} | fields)


def _paired(found: Found, problems: list[str]) -> Iterator[Record]:
    mapped = (result for result in found.results if result.maps and result.first.is_trained)
    for group in gathered(mapped, partial(_shared, found)).values():
        bases = [result for result in group if result.first.method == BASE]
        others = [result for result in group if result.first.method != BASE]
        if not (bases and others):
            continue
        files = {result.folder: readable_maps(result, found.outputs, problems) for result in group}
        states = readable(read_states, bases[0].states_path(found.outputs), found.outputs, problems)
        for other, base in product(others, bases):
            maps, base_maps = files[other.folder], files[base.folder]
            if maps is None or base_maps is None or states is None:
                continue
            names = name_of(other.first), name_of(base.first)
            make = _difference_factory(
                other.first, names[1], num_states=maps.num_states, episodes=len(maps.episode_ids)
            )
            try:
                yield from paired_differences(make, maps, base_maps, _players(states, maps))
            except NrmapError as error:
                problems.append(f"no difference between {' and '.join(name.label for name in names)}: {error}")


def _shared(found: Found, result: Result) -> tuple[Any, ...]:
    """Return the properties that two results must share to be compared."""
    first, scale = result.first, found.reference.get(result.policy_sha256 or "")
    ablation = json.dumps(result.protocol, sort_keys=True)
    return first.game, first.seed, scale, first.states_from, result.states_sha256, ablation


def _players(states: RolloutStates | GivenStates, maps: EpisodeMaps) -> NDArray[np.int64]:
    """Return the number [E] of the policy that played each episode of the maps.

    Raises NrmapError if `states` lack an episode.
    """
    there, ids = len(states.episode_origins), maps.episode_ids
    check(bool(((ids >= 0) & (ids < there)).all()), f"the maps are of episodes that the {there} of the states are not")
    players: NDArray[np.int64] = states.episode_origins[ids]
    return players


def differences_over_seeds(records: Sequence[Record], reference: Mapping[str, str]) -> Iterator[Record]:
    """Yield differences in S between means over training seeds, for each set of states, temperature and kind of map.

    `reference` holds the scales of the reference policies by hash; policies of different scales are not compared.
    """

    def compared(record: Record) -> tuple[Any, ...]:
        scale = reference.get(record.policy_sha256 or "")
        return record.game, scale, states_of(record), record.temperature, record.map_kind

    sizes = select(records, metric="sparsity", is_trained=True, is_part=False)
    for group in gathered((record for record in sizes if record.seed is not None), compared).values():
        methods = grouped(group, group_of)
        others, bases = ([m for m in methods if (m.method == BASE) is wanted] for wanted in (False, True))
        for method, base in product(others, bases):
            first = min(methods[method], key=lambda record: record.seed or 0)
            same = {name: getattr(first, name) for name in ("num_states", "temperature", "map_kind")}
            make = _difference_factory(first, base, seed=None, **same)
            of_means = seed_difference(make, _by_seed(methods[method]), _by_seed(methods[base]))
            if of_means is not None:
                yield of_means


def _by_seed(records: Sequence[Record]) -> Mapping[int, float | None]:
    return {record.seed: record.value for record in records if record.seed is not None}
