"""Which maps are compared with which: every method with the vanilla one, seed by seed and over the seeds."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from analyze.differences import paired_differences, seed_difference
from analyze.names import base_method, is_control, policy_label
from analyze.report.found import Found, read_maps
from analyze.report.labels import Result, ablation_of, states_sha256
from nrmap.episode_maps import EpisodeMaps
from nrmap.errors import NrmapError
from nrmap.records import Record
from nrmap.sparsity import MAP_NAMES

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
        read: dict[Path, EpisodeMaps | None] = {}
        for other, base in product(others, bases):
            maps, base_maps = (_read_once(one, read, found.outputs, problems) for one in (other, base))
            if maps is None or base_maps is None:
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
                yield from paired_differences(make, maps, base_maps)
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


def _read_once(
    result: Result, read: dict[Path, EpisodeMaps | None], outputs: Path, problems: list[str]
) -> EpisodeMaps | None:
    """The maps of a result; None where the file is damaged, which is told once."""
    assert result.maps is not None, "results without maps are not compared"
    if result.maps not in read:
        try:
            read[result.maps] = read_maps(result.maps)
        except NrmapError as error:
            problems.append(str(error).replace(f"{outputs}/", ""))
            read[result.maps] = None
    return read[result.maps]


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
