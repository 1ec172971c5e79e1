"""The stages of a study that play: states, evaluation, baselines. `analyze.maps` has those that map.

A stage makes a file once. Its folder is named by the hash of its settings and of its input files,
so a finished stage is not repeated, and other settings or inputs lead to another folder.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from analyze.settings import AnalysisSettings, Resources
from nrmap.atari.envs import EnvSpec
from nrmap.play.evaluation import (
    EvaluationProgress,
    PlaysRollOut,
    evaluate,
    evaluate_baselines,
)
from nrmap.play.states import RolloutStates, check_same_game, collect_states, load_states, pool_states, save_states
from nrmap.policies.policy import Policy
from nrmap.robustness.certify import IntervalCertifier
from nrmap.support.files import identity_of, locked, read_json, sha256_of_file
from nrmap.support.identity import VERSIONS, recorded, stage_identity
from nrmap.support.layout import METRICS_FILE, Layout
from nrmap.support.progress import Progress
from nrmap.support.records import Record, read_records, write_records
from nrmap.support.runtime import provenance

PARALLEL_EPISODES = 16
ROLL_OUTS_FOLDER = "roll_outs"


@dataclass(frozen=True)
class Study:
    """The settings of an analysis, and the folders, the device and the resources for its stages."""

    settings: AnalysisSettings
    layout: Layout
    device: torch.device
    resources: Resources


@dataclass(frozen=True)
class StatesFile:
    """A file of states and its content."""

    path: Path
    sha256: str
    states: RolloutStates


def ensure_states(study: Study, policies: Sequence[Policy]) -> StatesFile:
    """The states of the policies' greedy episodes, pooled if there are several policies; or the states file named."""
    env, from_file = policies[0].env, study.settings.states.from_file
    if from_file is not None:
        return _states_file(from_file, env)
    parts = [_ensure_own_states(study, policy) for policy in policies]
    if len(parts) == 1:
        return parts[0]
    identity = stage_identity("pool", states_sha256=[part.sha256 for part in parts])
    path = study.layout.states(game=env.game, identity=identity)
    once(path, lambda: save_states(path, pool_states([part.states for part in parts])))
    return _states_file(path, env)


def _ensure_own_states(study: Study, policy: Policy) -> StatesFile:
    settings = study.settings.states
    sample = {"num_states": settings.num_states, "episodes": settings.episodes, "run_seed": settings.run_seed}
    identity = stage_identity("states", policy_sha256=policy.sha256, **sample)
    path = study.layout.states(game=policy.env.game, identity=identity)

    def make() -> None:
        with Progress(f"{policy.label}: roll-out", unit="steps") as progress:
            states = collect_states(
                policy, **sample, num_envs=PARALLEL_EPISODES, progress=progress.update
            )  # fmt: skip
        save_states(path, states)

    once(path, make)
    return _states_file(path, policy.env)


def _states_file(path: Path, env: EnvSpec) -> StatesFile:
    states = load_states(path)
    check_same_game(states, env)
    return StatesFile(path, sha256_of_file(path), states)


def ensure_evaluation(study: Study, policy: Policy) -> list[Record]:
    """Records of the evaluation of `policy`: published with a reference policy, finished before, or made now.

    An interrupted evaluation continues after its last whole roll-out.
    """
    card, settings, inputs = policy.card, study.settings.evaluation, evaluation_inputs(policy)
    published = _published_evaluation(study, policy)
    if published is not None:
        return read_records(published)
    identity = stage_identity("evaluation", policy_sha256=policy.sha256, settings=asdict(settings))
    folder = study.layout.evaluation(game=policy.env.game, method=card.method, seed=card.seed, identity=identity)
    roll_outs = folder / ROLL_OUTS_FOLDER

    def keep(roll_out: str, play_it: PlaysRollOut) -> list[Record]:
        path = roll_outs / f"{roll_out}.json"
        once(path, lambda: write_records(path, play_it()))
        return read_records(path)

    def make() -> None:
        with Progress(f"{policy.label}: evaluation", unit="steps") as progress:
            records = evaluate(
                policy, settings, num_envs=settings.episodes,
                certify=IntervalCertifier(policy.network), keep=keep, progress=_show_part(progress),
            )  # fmt: skip
        write_metrics(folder / METRICS_FILE, records, settings=asdict(settings), inputs=inputs)
        shutil.rmtree(roll_outs, ignore_errors=True)

    once(folder / METRICS_FILE, make)
    return read_records(folder / METRICS_FILE)


def evaluation_inputs(policy: Policy) -> dict[str, Any]:
    """The inputs of an evaluation, as its metrics record them."""
    return {"policy_sha256": policy.sha256, "version": VERSIONS["evaluation"]}


def _published_evaluation(study: Study, policy: Policy) -> Path | None:
    """The metrics published with a reference policy, if they have this policy and these settings."""
    card = policy.card
    wanted = {"settings": asdict(study.settings.evaluation), "inputs": evaluation_inputs(policy)}
    for path in study.layout.published(policy.env.game, card.method, f"seed{card.seed}"):
        there = read_json(path)
        if identity_of({name: there[name] for name in wanted}) == identity_of(wanted):
            return path
    return None


def ensure_baselines(study: Study, policy: Policy) -> list[Record]:
    """Records of the constant actions and the random policy on the evaluation's episodes; published ones as there."""
    env, settings = policy.env, study.settings.evaluation
    own = baselines_settings(env, asdict(settings))
    identity = stage_identity("baselines", **own)
    published = study.layout.published(env.game, "baseline", identity)
    if published and _published_evaluation(study, policy) is not None:
        return read_records(published[0])
    path = study.layout.baselines(game=env.game, identity=identity) / METRICS_FILE

    def make() -> None:
        with Progress(f"{env.game}: baselines", unit="steps") as progress:
            records = evaluate_baselines(
                env, episodes=settings.episodes, run_seed=settings.run_seed, stream=settings.stream,
                num_envs=settings.episodes, progress=_show_part(progress),
            )  # fmt: skip
        write_metrics(path, records, settings=own, inputs={})

    once(path, make)
    return read_records(path)


def baselines_settings(env: EnvSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The game and the settings of an evaluation that its baselines depend on."""
    return {"env": recorded(env), **{name: settings[name] for name in ("episodes", "run_seed", "stream")}}


def _show_part(progress: Progress) -> EvaluationProgress:
    return lambda part, done, total: progress.update(done, total, part)


def write_metrics(path: Path, records: list[Record], *, settings: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Write a stage's records with their settings, inputs and provenance."""
    write_records(path, records, settings=settings, inputs=inputs, provenance=provenance())


def once(path: Path, make: Callable[[], None]) -> None:
    """Call `make`, which writes `path`, unless `path` exists; other processes wait for it."""
    if not path.is_file():
        with locked(path.with_name(f".{path.name}.lock"), f"waiting for another process to write {path}"):
            if not path.is_file():
                make()
