"""Which maps are compared with which: every method with the vanilla one, seed by seed and over the seeds."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.report.labels import Result, ablation_of, states_sha256
from analyze.report.load import Found, read_maps
from analyze.report.names import base_method, is_control, policy_label
from nrmap.maps.differences import paired_differences, seed_difference
from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.maps.sparsity import MAP_NAMES
from nrmap.play.states import RolloutStates, load_states
from nrmap.support.errors import NrmapError, check
from nrmap.support.records import Record

BASE = "ddqn"
_SPARSITIES = {f"{kind}_sparsity": kind for kind in MAP_NAMES}


def with_differences(found: Found) -> Found:
    """`found` with the differences in S between every method and the vanilla one, and what could not be compared.

    A difference is a record of the one method; its item is the label of the other. Two policies
    are compared on the same states, N, ablation and training seed. Over the seeds the record has
    no seed, and the policy's hash is that of the first one: it says where the policies are from.
    """
    problems: list[str] = []
    paired = {_key(record): record for record in _paired(found, problems)}
    return replace(
        found,
        differences=(*paired.values(), *_over_seeds(found)),
        problems=tuple(dict.fromkeys([*found.problems, *problems])),
    )


def _key(record: Record) -> tuple[object, ...]:
    """What was compared on what: a policy that was analysed twice is compared twice, with equal values."""
    return record.policy_sha256, record.item, record.metric, record.states_from, record.num_states, record.temperature


def _paired(found: Found, problems: list[str]) -> Iterator[Record]:
    groups: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in found.results:
        if result.maps is not None and result.states is not None and not is_control(result.records[0].method):
            groups[_shared(result, found)].append(result)
    for group in groups.values():
        bases, others = ([one for one in group if _is_base(one) is wanted] for wanted in (True, False))
        files = _Files(found.outputs, problems)
        for other, base in product(others, bases):
            maps, base_maps, states = files.maps(other), files.maps(base), files.states(base)
            if maps is None or base_maps is None or states is None:
                continue
            first, second = _first(other), _first(base)
            make = partial(
                Record,
                first.game,
                first.method,
                first.seed,
                states_from=first.states_from,
                num_states=maps.num_states,
                episodes=len(maps.episode_ids),
                item=second.method,
                policy_sha256=first.policy_sha256,
            )
            try:
                yield from paired_differences(make, maps, base_maps, _players(states, maps))
            except NrmapError as error:
                labels = (policy_label(one.method, one.seed) for one in (first, second))
                problems.append(f"no difference between {' and '.join(labels)}: {error}")


def _shared(result: Result, found: Found) -> tuple[object, ...]:
    """What two policies must have in common to be compared."""
    first = _first(result)
    ablation = json.dumps(ablation_of(result), sort_keys=True)
    states = first.states_from, states_sha256(result)
    return first.game, first.seed, result.policy_sha256 in found.reference, states, ablation


def _first(result: Result) -> Record:
    return next(record for record in result.records if record.states_from is not None)


def _is_base(result: Result) -> bool:
    return base_method(_first(result).method) == BASE


def _players(states: RolloutStates, maps: EpisodeMaps) -> NDArray[np.int64]:
    """Which of the policies that the states are from played each of the maps' episodes, [E]."""
    there = len(states.episodes)
    check(bool((maps.episode_ids < there).all()), f"the maps are of episodes that the {there} of the states are not")
    players: NDArray[np.int64] = states.episode_origins[maps.episode_ids]
    return players


class _Files:
    """Files that are read once; one that is missing or damaged is told once and is None."""

    def __init__(self, outputs: Path, problems: list[str]) -> None:
        self._outputs = outputs
        self._problems = problems
        self._read: dict[Path, Any] = {}

    def maps(self, result: Result) -> EpisodeMaps | None:
        """The maps of a result that has some."""
        assert result.maps is not None, "results without maps are not compared"
        maps: EpisodeMaps | None = self._once(result.maps, read_maps)
        return maps

    def states(self, result: Result) -> RolloutStates | None:
        """The states that the maps of a result were made of."""
        states: RolloutStates | None = self._once(result.states_path(self._outputs), load_states)
        return states

    def _once(self, path: Path, read: Callable[[Path], Any]) -> Any:
        if path not in self._read:
            try:
                self._read[path] = read(path)
            except NrmapError as error:
                self._problems.append(str(error).replace(f"{self._outputs}/", ""))
                self._read[path] = None
        return self._read[path]


def _over_seeds(found: Found) -> Iterator[Record]:
    """The differences between the means over training seeds, on own states as well as on shared ones."""
    groups: dict[tuple[Any, ...], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in found.records:
        if record.metric in _SPARSITIES and record.states_from and record.item is None and record.seed is not None:
            from_reference = record.policy_sha256 in found.reference
            what = (record.game, from_reference, record.states_from, record.num_states)
            if not is_control(record.method):
                groups[*what, record.temperature, record.metric][record.method].append(record)
    for (game, _, states_from, num_states, temperature, metric), methods in groups.items():
        others, bases = ([m for m in methods if (base_method(m) == BASE) is wanted] for wanted in (False, True))
        for method, base in product(others, bases):
            first = min(methods[method], key=lambda record: record.seed or 0)
            make = partial(
                Record,
                game,
                method,
                None,
                states_from=states_from,
                num_states=num_states,
                temperature=temperature,
                item=base,
                policy_sha256=first.policy_sha256,
            )
            of_means = seed_difference(make, _SPARSITIES[metric], _by_seed(methods[method]), _by_seed(methods[base]))
            if of_means is not None:
                yield of_means


def _by_seed(records: Sequence[Record]) -> Mapping[int, float | None]:
    return {record.seed: record.value for record in records if record.seed is not None}
