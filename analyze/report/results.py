"""The contents of an outputs folder: trainings, results, and both together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analyze.report.names import PolicyName
from nrmap.policies.policy import PolicyCard
from nrmap.support.records import CONSTANT_ACTION, Record, select


@dataclass(frozen=True)
class Training:
    """One training run, not finished while it has no policy; `folder` is relative to the outputs.

    `variant` tells it apart from other configurations of its method, where there are several.
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
    options: tuple[str, ...] = ()  # of the command that started it; older trainings have none
    variant: str | None = None

    @property
    def name(self) -> PolicyName:
        """The name of its policy."""
        return PolicyName(self.method, self.variant, seed=self.seed)

    @property
    def steps_before(self) -> int:
        """The agent steps of all its ancestors."""
        steps, parent = 0, self.settings.get("parent")
        while parent:
            steps, parent = steps + parent["steps"], parent.get("parent")
        return steps


@dataclass(frozen=True)
class Result:
    """One metrics.json: its records, at least one, and the settings, inputs and provenance beside them."""

    folder: str
    reference: bool
    records: tuple[Record, ...]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    provenance: Mapping[str, Any]
    maps: Path | None

    @property
    def first(self) -> Record:
        """A record of the whole result: all of them share the policy and the states."""
        return next((record for record in self.records if not record.is_part), self.records[0])

    @property
    def policy_sha256(self) -> str | None:
        """The policy that was measured; None for baselines."""
        return self.records[0].policy_sha256

    @property
    def is_of_maps(self) -> bool:
        """Whether maps were measured, and not play."""
        return self.records[0].states_from is not None

    @property
    def states_sha256(self) -> str:
        """The hash of the set of states that the maps were made of."""
        return str(self.inputs.get("states_sha256"))

    @property
    def protocol(self) -> dict[str, str]:
        """The settings that its records do not hold: of maps the ablation, of players the episodes and environment."""
        flat = flattened(self.settings)
        if not self.is_of_maps:
            return {key: flat[key] for key in flat if key in ("run_seed", "stream") or key.startswith("env.")}
        return {key: value for key, value in flat.items() if not key.startswith(("temperatures", "prefix_sizes"))}

    def states_path(self, outputs: Path) -> Path:
        """The file of the states that the maps were made of."""
        return outputs / str(self.inputs.get("states_path", ""))


@dataclass(frozen=True)
class Found:
    """Everything found. `problems` are files that could not be read, and why.

    `differences` between methods are no measurements of a policy, so they are separate.
    """

    outputs: Path
    trainings: tuple[Training, ...]
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    differences: tuple[Record, ...] = ()

    @property
    def reference(self) -> frozenset[str]:
        """The hashes of the reference policies."""
        return frozenset(training.sha256 for training in self.trainings if training.reference and training.sha256)

    def parts(self) -> list["Part"]:
        """Every game that has policies, in each the reference policies before those trained here."""
        games = sorted({training.game for training in self.trainings} | {record.game for record in self.records})
        parts = [self._part(game, reference) for game in games for reference in (True, False)]
        return [part for part in parts if part.trainings or any(result.first.is_trained for result in part.results)]

    def _part(self, game: str, reference: bool) -> "Part":
        """State-independent baselines go with both parts. A null network goes with the policies of its states."""

        def belongs(sha256: str | None) -> bool:
            return sha256 is None or (sha256 in self.reference) == reference

        mapped = [result for result in self.results if result.is_of_maps and result.first.is_trained]
        ours = {result.states_sha256 for result in mapped if belongs(result.policy_sha256)}
        elsewhere = {result.states_sha256 for result in mapped} - ours
        results = [
            result
            for result in self.results
            if result.first.game == game
            and (
                result.states_sha256 not in elsewhere if result.first.is_null_network else belongs(result.policy_sha256)
            )
        ]
        measured = {record for result in results for record in result.records}
        return Part(
            game,
            reference,
            [record for record in self.records if record in measured],
            [training for training in self.trainings if (training.game, training.reference) == (game, reference)],
            results,
            [record for record in self.differences if record.game == game and belongs(record.policy_sha256)],
        )


@dataclass(frozen=True)
class Part:
    """All results of one game's policies, either of the reference policies or of those trained here."""

    game: str
    reference: bool
    records: Sequence[Record]
    trainings: Sequence[Training]
    results: Sequence[Result]
    differences: Sequence[Record] = ()

    @property
    def name(self) -> str:
        """For files and anchors: `Freeway`, `Freeway-reference`."""
        return f"{self.game}-reference" if self.reference else self.game

    @property
    def title(self) -> str:
        """`Freeway`, or `Freeway, reference policies`."""
        return f"{self.game}, reference policies" if self.reference else self.game

    @property
    def trained(self) -> list[Record]:
        """The records without null networks."""
        return [record for record in self.records if not record.is_null_network]


def of_most_episodes(records: Iterable[Record]) -> list[Record]:
    """Keep the record over most episodes where records differ in their episodes only."""
    best: dict[Record, Record] = {}
    for record in sorted(records, key=lambda record: record.episodes or 0):
        same = replace(record, value=0.0, low=None, high=None, interval=None, note=None, episodes=None, num_states=None)
        best[same] = record
    return list(best.values())


def best_constant_actions(records: Sequence[Record]) -> list[Record]:
    """The mean returns of the constant actions that return most: several where they tie, none without any."""
    constants = select(records, metric="return_mean", method=CONSTANT_ACTION)
    most = max((record.value or 0.0 for record in constants), default=0.0)
    return [record for record in constants if (record.value or 0.0) == most]


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
