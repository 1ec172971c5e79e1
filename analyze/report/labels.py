"""What tells apart the policies of one method, and the analyses of one policy, where there are several."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from analyze.report.names import is_control
from nrmap.atari.envs import EnvSpec
from nrmap.learning.learner import LearnerSpec
from nrmap.learning.replay import ReplaySpec
from nrmap.learning.settings import ExplorationSpec, TrainSettings
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.policies.policy import PolicyCard
from nrmap.support.records import Record


@dataclass(frozen=True)
class Training:
    """One training run. `method` is its label: the method, and in brackets what tells it from others like it.

    A run without a policy is not finished; `folder` is relative to the outputs.
    """

    folder: str
    game: str
    method: str
    seed: int
    reference: bool
    settings: Mapping[str, Any]
    curves: Mapping[str, Any] | None
    card: PolicyCard | None
    sha256: str | None


@dataclass(frozen=True)
class Result:
    """One metrics.json: its records, and the settings, inputs and provenance kept beside them."""

    folder: str
    reference: bool
    records: tuple[Record, ...]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    provenance: Mapping[str, Any]
    maps: Path | None

    @property
    def policy_sha256(self) -> str | None:
        """The policy that was measured; None for players that are no policy."""
        return next((record.policy_sha256 for record in self.records if record.policy_sha256), None)

    @property
    def states(self) -> tuple[str, int] | None:
        """Which states the maps were made of, and how many; None where there are no maps."""
        whole = (record for record in self.records if record.states_from and record.item is None)
        return next(((record.states_from or "", record.num_states or 0) for record in whole), None)

    def states_path(self, outputs: Path) -> Path:
        """The file of the states that the maps were made of."""
        return outputs / str(self.inputs.get("states_path", ""))


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one mapping, `learner.batch_size` to its value as JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def differences(variants: Sequence[Mapping[str, str]]) -> list[str]:
    """For each of several flat settings what tells it from the others, in words as short as they can be.

    One setting if it alone tells them apart, else two if no more differ; "" where that fails.
    """
    keys = list(dict.fromkeys(key for one in variants for key in one))
    differing = [key for key in keys if len({one.get(key) for one in variants}) > 1]
    distinct = len({json.dumps(one, sort_keys=True) for one in variants})
    alone = [key for key in differing if len({one.get(key) for one in variants}) == distinct]
    alone.sort(key=lambda key: (not key.startswith("regulariser."), key != "steps"))
    chosen = alone[:1] or (differing if len(differing) <= 2 else [])
    return [", ".join(f"{key.rpartition('.')[2]}={one.get(key, 'none')}" for key in chosen) for one in variants]


def labelled_trainings(trainings: list[Training]) -> list[Training]:
    """Method labels that tell configurations of one method apart, where there are several; seeds do not count."""
    groups: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    for index, training in enumerate(trainings):
        groups[training.game, training.method, training.reference].append(index)
    labelled = list(trainings)
    for indices in groups.values():
        flat = [_without_seeds(flattened(_with_defaults(trainings[index].settings))) for index in indices]
        if all(one == flat[0] for one in flat):
            continue
        for index, text in zip(indices, differences(flat), strict=True):
            training = trainings[index]
            label = text or f"run {Path(training.folder).name[:6]}"
            labelled[index] = replace(training, method=f"{training.method} ({label})")
    return labelled


# What the parts of a training's settings are; those of an older training lack the settings that came later.
_PARTS: Mapping[str, type] = {
    "env": EnvSpec,
    "exploration": ExplorationSpec,
    "replay": ReplaySpec,
    "learner": LearnerSpec,
    "regulariser": RegulariserSpec,
    "parent": TrainSettings,
}


def _with_defaults(settings: Mapping[str, Any], spec: type = TrainSettings) -> dict[str, Any]:
    """`settings` of a `spec` with the defaults of what they lack: to a training that is what it had."""
    defaults = {field.name: field.default for field in fields(spec) if field.default is not MISSING}
    return {
        key: _with_defaults(value, _PARTS[key]) if key in _PARTS and isinstance(value, Mapping) else value
        for key, value in {**defaults, **settings}.items()
    }


def _without_seeds(flat: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in flat.items() if key.rpartition(".")[2] != "seed"}


def labelled_results(results: Sequence[Result], trainings: Sequence[Training]) -> list[Result]:
    """Records that carry their policy's label, and whose states and episodes say which, where there are several.

    Rows of a table are compared with each other, so two sets of states must not have one name,
    nor returns of different episodes.
    """
    names = _Names(results, trainings)
    return [
        replace(result, records=tuple(names.renamed(record, result) for record in result.records)) for result in results
    ]


class _Names:
    """Which policies, sets of states and analyses there are of each name."""

    def __init__(self, results: Sequence[Result], trainings: Sequence[Training]) -> None:
        self._methods = {training.sha256: training.method for training in trainings if training.sha256}
        self._reference = {training.sha256 for training in trainings if training.reference}
        # By the hash of a set of states: a policy that was measured on them, to which a control there is compared.
        self._owners: dict[str, Record] = {}
        for result in results:
            if result.states and result.policy_sha256 and not is_control(result.records[0].method):
                self._owners.setdefault(states_sha256(result), result.records[0])
        self._policies: dict[_Key, set[str]] = defaultdict(set)
        self._states: dict[_Key, set[str]] = defaultdict(set)
        # The same without whose states they are: the policies of every seed have a pool of their own.
        self._states_of_all: dict[_Key, set[str]] = defaultdict(set)
        analyses: dict[_Key, list[Result]] = defaultdict(list)
        evaluations: dict[str, list[Result]] = defaultdict(list)
        for result in results:
            sha256 = result.policy_sha256
            if result.records and result.states is None:
                evaluations[result.records[0].game].append(result)
            if sha256 is None:
                continue
            self._policies[self._policy_key(result.records[0])].add(sha256)
            if result.states:
                self._states[self._states_key(result)].add(states_sha256(result))
                self._states_of_all[self._states_key(result)[1:]].add(states_sha256(result))
                analyses[sha256, result.states, states_sha256(result)].append(result)
        self._extras: dict[str, str] = {}
        for groups, settings in ((analyses, ablation_of), (evaluations, _episodes_of)):
            for alike in groups.values():
                texts = differences([settings(result) for result in alike])
                self._extras |= {result.folder: text for result, text in zip(alike, texts, strict=True)}

    def renamed(self, record: Record, result: Result) -> Record:
        """`record` of `result` with its policy's label as the method, and that of its states.

        Of evaluations on several sets of episodes the method says which; the players that are no
        policies are told apart by what they do, in the place of the attack, and so it stands there.
        """
        extra = [self._extras[result.folder]] if self._extras.get(result.folder) else []
        if record.policy_sha256 is None:
            return replace(record, attack=_with_words(record.attack, extra)) if record.attack else record
        method = self._method(record)
        if len(self._policies[self._policy_key(record)]) > 1:
            method = _with_words(method, [record.policy_sha256[:6]])
        if result.states is None:
            return replace(record, method=_with_words(method, extra))
        key, owner = self._states_key(result), self._owners.get(states_sha256(result))
        if method == "random_weights" and owner is not None:
            # One network on several policies' states of one name: each set makes another row.
            if result.states[0] == "own":
                method = _with_words(method, [f"on {self._method(owner)} seed {owner.seed}"])
            elif len(self._states_of_all[key[1:]]) > 1:
                method = _with_words(method, [f"on states of seed {owner.seed}"])
        states = record.states_from
        if states is not None:
            which = [states_sha256(result)[:6]] if len(self._states[key]) > 1 else []
            states = _with_words(states, [*extra, *which])
        return replace(record, method=method, states_from=states)

    def _method(self, record: Record) -> str:
        return self._methods.get(record.policy_sha256 or "", record.method)

    def _policy_key(self, record: Record) -> "_Key":
        return record.game, self._method(record), record.seed, record.policy_sha256 in self._reference

    def _states_key(self, result: Result) -> "_Key":
        """A pool is one for all the policies of a seed, its own states are each policy's; controls have no own ones."""
        owner = result.records[0]
        if is_control(owner.method):
            owner = self._owners.get(states_sha256(result), owner)
        whose = owner.policy_sha256 if result.states and result.states[0] == "own" else owner.seed
        return whose, owner.game, result.states, owner.policy_sha256 in self._reference


_Key = tuple[Any, ...]


def _with_words(label: str, words: Sequence[str]) -> str:
    """`sa_ddqn (kappa=0.02, 3f2a1c)` of either `sa_ddqn` or `sa_ddqn (kappa=0.02)`."""
    if not words:
        return label
    added = ", ".join(words)
    return f"{label[:-1]}, {added})" if label.endswith(")") else f"{label} ({added})"


def states_sha256(result: Result) -> str:
    """The hash of the set of states that the maps were made of."""
    return str(result.inputs.get("states_sha256"))


def _episodes_of(result: Result) -> dict[str, str]:
    """The settings of an evaluation that say which episodes were played; records have their number only."""
    flat = flattened(result.settings)
    return {key: flat[key] for key in ("run_seed", "stream") if key in flat}


def ablation_of(result: Result) -> dict[str, str]:
    """The settings of an analysis that records do not say."""
    flat = flattened(result.settings)
    return {key: value for key, value in flat.items() if not key.startswith(("temperatures", "prefix_sizes"))}
