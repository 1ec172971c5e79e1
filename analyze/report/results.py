"""The contents of an outputs folder: trainings, results, and both together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analyze.report.names import PolicyName
from nrmap.policies.policy import PolicyCard
from nrmap.support.records import CONSTANT_ACTION, Record, select

# Two records that agree in all other fields measure the same.
_RESULT_FIELDS = ("value", "low", "high", "interval", "note")


@dataclass(frozen=True)
class FoundTraining:
    """One training run, unfinished if `card` and `sha256` are None; `folder` is relative to the outputs folder.

    `reference` is the scale of a reference policy, None for a policy trained here. `variant` names the configuration
    if the method has several, as in "kappa=0.02".
    """

    folder: str
    game: str
    method: str
    seed: int
    reference: str | None
    settings: Mapping[str, Any]
    curves: Mapping[str, Any] | None
    card: PolicyCard | None
    sha256: str | None
    options: tuple[str, ...] = ()  # of the command that started it; older trainings have none
    variant: str | None = None

    @property
    def name(self) -> PolicyName:
        """The name of the trained policy."""
        return PolicyName(self.method, self.variant, seed=self.seed)

    @property
    def steps_before(self) -> int:
        """Agent steps of the earlier trainings that this one continues; 0 from scratch."""
        steps, parent = 0, self.settings.get("parent")
        while parent:
            steps, parent = steps + parent["steps"], parent.get("parent")
        return steps


@dataclass(frozen=True)
class Result:
    """The content of one metrics.json, at least one record; `maps`: its file of maps, None for play and if missing."""

    folder: str
    reference: bool
    records: tuple[Record, ...]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    provenance: Mapping[str, Any]
    maps: Path | None

    @property
    def first(self) -> Record:
        """The first record that is not a part (`Record.is_part`), or the first of all if every record is a part."""
        return next((record for record in self.records if not record.is_part), self.records[0])

    @property
    def policy_sha256(self) -> str | None:
        """The hash of the measured policy; None for baselines."""
        return self.records[0].policy_sha256

    @property
    def is_of_maps(self) -> bool:
        """Whether maps were measured, and not play."""
        return self.records[0].states_from is not None

    @property
    def states_sha256(self) -> str:
        """The hash of the states that were mapped or attacked; "None" for results of episodes."""
        return str(self.inputs.get("states_sha256"))

    @property
    def protocol(self) -> dict[str, str]:
        """The settings that records lack, as texts.

        For play: `run_seed`, `stream` and `env.*`. For maps: all but temperatures and prefix sizes.
        """
        flat = flattened(self.settings)
        if not self.is_of_maps:
            return {key: flat[key] for key in flat if key in ("run_seed", "stream") or key.startswith("env.")}
        return {key: value for key, value in flat.items() if not key.startswith(("temperatures", "prefix_sizes"))}

    def states_path(self, outputs: Path) -> Path:
        """Return the path of the mapped states; a recorded path that is relative is inside `outputs`.

        Returns `outputs` itself if no path is recorded, as for play.
        """
        return outputs / str(self.inputs.get("states_path", ""))


@dataclass(frozen=True)
class Found:
    """Everything found under an outputs folder. `problems` say which files were not used, and why.

    `differences` between methods are separate from `records`, which measure one policy each.
    """

    outputs: Path
    trainings: tuple[FoundTraining, ...]
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    folders: tuple[str, ...] = ()  # of the records, relative to `outputs`
    differences: tuple[Record, ...] = ()

    @cached_property
    def reference(self) -> dict[str, str]:
        """The scales of the reference policies, by hash."""
        return {
            training.sha256: training.reference for training in self.trainings if training.reference and training.sha256
        }

    def parts(self) -> list["Part"]:
        """Return the parts that have a training or a trained policy.

        A game has a part for each scale of reference policies, and one for all other policies.
        """
        games = sorted({training.game for training in self.trainings} | {record.game for record in self.records})
        scales = [*sorted({training.reference for training in self.trainings if training.reference}), None]
        parts = [self._part(game, reference) for game in games for reference in scales]
        return [part for part in parts if part.trainings or any(result.first.is_trained for result in part.results)]

    def _part(self, game: str, reference: str | None) -> "Part":
        """Select one part of `game`: a scale of reference policies, or with `reference` None all other policies.

        Baselines are in the parts with a policy that plays in the same environment, as an agent without a training
        may. Null networks are in the parts with a policy mapped on the same states, or in all parts without such a
        policy.
        """
        trainings = [each for each in self.trainings if (each.game, each.reference) == (game, reference)]
        known, environments = {each.sha256 for each in self.trainings}, [each.settings["env"] for each in trainings]

        def is_ours(measured: Result | Record) -> bool:
            sha256 = measured.policy_sha256
            return sha256 is None or self.reference.get(sha256) == reference

        mapped = [result for result in self.results if result.is_of_maps and result.first.is_trained]
        elsewhere = {result.states_sha256 for result in mapped} - {r.states_sha256 for r in mapped if is_ours(r)}
        trained = (each for each in self.results if each.first.game == game and each.first.is_trained)
        any_environment = any(is_ours(result) and result.policy_sha256 not in known for result in trained)

        def belongs(result: Result) -> bool:
            if result.first.is_baseline:
                return any_environment or result.settings["env"] in environments
            return result.states_sha256 not in elsewhere if result.first.is_null_network else is_ours(result)

        results = [result for result in self.results if result.first.game == game and belongs(result)]
        measured = {record for result in results for record in result.records}
        return Part(
            game,
            reference,
            [record for record in self.records if record in measured],
            trainings,
            results,
            [record for record in self.differences if record.game == game and is_ours(record)],
        )


@dataclass(frozen=True)
class Part:
    """All results of one game's reference policies of the scale `reference`; of those trained here if that is None."""

    game: str
    reference: str | None
    records: Sequence[Record]
    trainings: Sequence[FoundTraining]
    results: Sequence[Result]
    differences: Sequence[Record] = ()

    @property
    def name(self) -> str:
        """The name in files and anchors: `Freeway`, `Freeway-quick`."""
        return f"{self.game}-{self.reference}" if self.reference else self.game

    @property
    def title(self) -> str:
        """The heading: `Freeway`, or `Freeway, reference policies, scale=quick`."""
        return f"{self.game}, reference policies, scale={self.reference}" if self.reference else self.game

    @property
    def trained(self) -> list[Record]:
        """The records of policies and baselines, without null networks."""
        return [record for record in self.records if not record.is_null_network]


def measurement_of(record: Record, *ignored: str) -> tuple[Any, ...]:
    """Return what a record measured: all fields except its result and the `ignored` ones."""
    return tuple(value for name, value in vars(record).items() if name not in _RESULT_FIELDS and name not in ignored)


def of_most_episodes(records: Iterable[Record]) -> list[Record]:
    """Of records that differ only in results and numbers of episodes and states, keep the one over most episodes."""
    by_episodes = sorted(records, key=lambda record: record.episodes or 0)
    return list({measurement_of(record, "episodes", "num_states"): record for record in by_episodes}.values())


def best_constant_actions(records: Sequence[Record]) -> list[Record]:
    """Return the mean-return records of the best constant actions: several if tied, [] without constant actions."""
    constants = select(records, metric="return_mean", method=CONSTANT_ACTION)
    most = max((record.value or 0.0 for record in constants), default=0.0)
    return [record for record in constants if (record.value or 0.0) == most]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as a flat dict: `learner.batch_size` to its value as JSON, a string as it is.

    `prefix` goes before every key.
    """
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat
