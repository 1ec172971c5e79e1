"""Tell apart policies of one method, analyses with different settings, and sets of states of one name."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from analyze.report.names import gathered, name_of
from analyze.report.results import FoundTraining, Result, flattened
from nrmap.atari.env_spec import EnvSpec
from nrmap.learning.exploration import ExplorationSpec
from nrmap.learning.learner import LearnerSpec
from nrmap.learning.replay import ReplaySpec
from nrmap.learning.settings import TrainSettings
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.support.files import identity_of
from nrmap.support.records import Record


def differences(variants: Sequence[Mapping[str, str]]) -> list[str]:
    """Describe each of several flat settings by what differs from the others: "kappa=0.02".

    One key is named if it alone tells all apart. Else both are named if just two keys differ. Otherwise all texts
    are "".
    """
    keys = list(dict.fromkeys(key for settings in variants for key in settings))
    differing = [key for key in keys if len({settings.get(key) for settings in variants}) > 1]
    distinct = len({json.dumps(settings, sort_keys=True) for settings in variants})
    alone = [key for key in differing if len({settings.get(key) for settings in variants}) == distinct]
    alone.sort(key=lambda key: (not key.startswith("regulariser."), key != "steps"))
    chosen = alone[:1] or (differing if len(differing) <= 2 else [])
    return [
        ", ".join(f"{key.rpartition('.')[2]}={settings.get(key, 'none')}" for key in chosen) for settings in variants
    ]


# Settings that files of older trainings lack, by name, and the value in force then.
_DEFAULTS = flattened(
    {
        field.name: field.default
        for spec in (EnvSpec, ExplorationSpec, ReplaySpec, LearnerSpec, RegulariserSpec, TrainSettings)
        for field in fields(spec)
        if field.default is not MISSING
    }
)


def with_variants(trainings: list[FoundTraining]) -> list[FoundTraining]:
    """Return the trainings with `variant` filled in where one method has several configurations.

    Configurations are several if any setting but the seed differs.
    """
    variants: dict[str, str] = {}
    for alike in gathered(trainings, lambda training: (training.game, training.method, training.reference)).values():
        flat = [flattened(training.settings) for training in alike]
        names = {key: key.rpartition(".")[2] for settings in flat for key in settings}
        flat = [
            {key: settings.get(key, _DEFAULTS.get(names[key], "none")) for key in names if names[key] != "seed"}
            for settings in flat
        ]
        if any(settings != flat[0] for settings in flat):
            for training, text in zip(alike, differences(flat), strict=True):
                variants[training.folder] = text or f"run {Path(training.folder).name[:6]}"
    return [replace(training, variant=variants.get(training.folder)) for training in trainings]


def told_apart(results: Sequence[Result], trainings: Sequence[FoundTraining]) -> list[Result]:
    """Return the results, with more fields of their records filled in where two would have the same row of a table.

    `variant` tells policies apart, `states_set` sets of states, `protocol` settings, and `source_method` and
    `source_seed` random weights on the states of several policies.
    """
    variants = {training.sha256: training.variant for training in trainings}
    reference = {training.sha256: training.reference for training in trainings}
    policies: dict[Any, set[str]] = defaultdict(set)
    sets: dict[Any, set[str]] = defaultdict(set)
    mapped_on: dict[Any, set[str]] = defaultdict(set)
    owners: dict[str, Record] = {}  # by set of states, a policy that was mapped on it
    alike: dict[Any, list[Result]] = defaultdict(list)
    for result in results:
        first, sha256, states = result.first, result.policy_sha256, result.states_sha256
        where = (first.game, first.states_from, first.num_states)
        if sha256 is not None:
            policies[first.game, name_of(first), variants.get(sha256), reference.get(sha256)].add(sha256)
        if not result.is_of_maps:
            alike[first.game, first.is_baseline].append(result)
            continue
        alike[sha256, where, states].append(result)
        if first.is_null_network:
            mapped_on[where].add(states)
        else:
            # A pool is shared by all policies of a seed.
            sets[where, sha256 if first.states_from == "own" else first.seed, reference.get(sha256)].add(states)
            owners.setdefault(states, first)
    ambiguous = {sha256 for group in (*policies.values(), *sets.values()) if len(group) > 1 for sha256 in group}
    protocols: dict[str, str] = {}
    for group in alike.values():
        settings = [result.protocol for result in group]
        if any(protocol != settings[0] for protocol in settings):
            for result, protocol, text in zip(group, settings, differences(settings), strict=True):
                protocols[result.folder] = text or f"settings {identity_of(protocol)[:6]}"
    changed = []
    for result in results:
        first, sha256, states = result.first, result.policy_sha256, result.states_sha256
        changes: dict[str, Any] = {"protocol": protocols.get(result.folder)}
        if sha256 is not None:
            words = [variants.get(sha256), sha256[:6] if sha256 in ambiguous else None]
            changes["variant"] = ", ".join(filter(None, words)) or None
        if states in ambiguous:
            changes["states_set"] = states[:6]
        several = len(mapped_on[first.game, first.states_from, first.num_states]) > 1
        if first.method == "random_weights" and several and states in owners:
            # One network was mapped on several policies' states: each set makes another row.
            owner = owners[states]
            changes |= {"source_seed": owner.seed}
            changes |= {"source_method": owner.method} if first.states_from == "own" else {}
        changed.append(replace(result, records=tuple(replace(record, **changes) for record in result.records)))
    return changed
