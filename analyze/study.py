"""Stages of an analysis: states, evaluation, attacks on states, baselines. `analyze.maps` has the others.

A stage writes its file once. The path contains a hash of the stage's settings, inputs and version,
so a finished stage is not repeated, and other settings or inputs lead to another file.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from analyze.settings import AnalysisSettings
from analyze.stages import measured_once, once
from nrmap.api import attack, certify
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.episode_seeds import EVALUATION_STREAM, episode_seed
from nrmap.maps.measures import read_measured
from nrmap.maps.null_networks import policy_fields
from nrmap.play.evaluation import WORST_CASE, EvaluationSettings, evaluate, evaluate_baselines
from nrmap.play.given_states import GivenStates, read_states
from nrmap.play.rollout import env_of
from nrmap.play.states import RolloutStates, check_same_game, collect_states, pool_states, save_states
from nrmap.policies.agent import Agent, check_states
from nrmap.robustness.bounds import bounded_network
from nrmap.robustness.certify import IntervalCertifier
from nrmap.statistics.intervals import estimate_rate
from nrmap.support.clock import Clock
from nrmap.support.errors import NrmapError, check
from nrmap.support.files import identity_of, sha256_of_file
from nrmap.support.identity import VERSIONS, recorded, stage_identity
from nrmap.support.layout import METRICS_FILE, Layout
from nrmap.support.progress import Progress
from nrmap.support.records import Record, read_metrics

log = logging.getLogger(__name__)

PARALLEL_EPISODES = 16
ROLL_OUTS_FOLDER = "roll_outs"


@dataclass(frozen=True)
class Study:
    """An analysis: its settings, layout of results, ablation engine, disk budget and clock.

    Ablated Q-values of one policy on one set of states are kept on disk if they take at most `disk_budget_gb` GB.
    """

    settings: AnalysisSettings
    layout: Layout
    engine: Literal["auto", "incremental", "dense"] = "auto"
    disk_budget_gb: float = 2.0
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True)
class StatesFile:
    """A states file: its path, hash and content."""

    path: Path
    sha256: str
    states: RolloutStates | GivenStates


def ensure_states(study: Study, policies: Sequence[Agent]) -> StatesFile:
    """Return the states to map: of the file `states_from`, else of greedy episodes of `policies`, pooled if several.

    Raises NrmapError for states that do not fit the first policy and, without a file, for a policy that plays no game.
    """
    first, from_file = policies[0], study.settings.states.from_file
    if from_file is not None:
        return _states_file(from_file, first)
    parts = [_ensure_own_states(study, policy) for policy in policies]
    if len(parts) == 1:
        return parts[0]
    identity = stage_identity("pool", states_sha256=[part.sha256 for part in parts])
    path = study.layout.states(game=first.game, identity=identity)
    played = [part.states for part in parts if isinstance(part.states, RolloutStates)]
    return once(path, lambda: save_states(path, pool_states(played)), partial(_played_states, study, policies))


def _ensure_own_states(study: Study, policy: Agent) -> StatesFile:
    check(policy.env is not None, f"{policy.label} plays no game: add states_from=FILE.npy, a file of its states")
    path = own_states_path(study, policy)

    def make() -> None:
        with Progress(f"{policy.label}: roll-out", unit="steps", clock=study.clock) as progress:
            states = collect_states(policy, **_sample(study), num_envs=PARALLEL_EPISODES, progress=progress.update)
        save_states(path, states)

    return once(path, make, partial(_played_states, study, [policy]))


def _played_states(study: Study, policies: Sequence[Agent], path: Path) -> StatesFile:
    """Read the states in `path`; NrmapError unless `policies` played them, as the study asks for."""
    found, sample = _states_file(path, policies[0]), study.settings.states
    states = found.states
    if not isinstance(states, RolloutStates):
        raise NrmapError(f"{path} does not say who played its states")
    players, ours = [origin.policy_sha256 for origin in states.origins], [policy.sha256 for policy in policies]
    check(players == ours, f"{path} holds states that other policies played: {players}, expected {ours}")
    first_seed = episode_seed(sample.run_seed, EVALUATION_STREAM, 0, 0)
    played = len(states.states), len(states.episodes), states.episodes[0].seed
    asked = sample.num_states * len(ours), sample.episodes * len(ours), first_seed
    check(played == asked, f"{path} holds another sample (states, episodes, first seed): {played}, expected {asked}")
    return found


def _sample(study: Study) -> dict[str, int]:
    settings = study.settings.states
    return {"num_states": settings.num_states, "episodes": settings.episodes, "run_seed": settings.run_seed}


def own_states_path(study: Study, policy: Agent) -> Path:
    """Return the path of the file for states from greedy episodes of `policy`; it may not exist yet."""
    identity = stage_identity("states", policy_sha256=policy.sha256, **_sample(study))
    return study.layout.states(game=policy.game, identity=identity)


def _states_file(path: Path, policy: Agent) -> StatesFile:
    states = read_states(path)
    check_fits(states, policy)
    return StatesFile(path, sha256_of_file(path), states)


def check_fits(states: RolloutStates | GivenStates, policy: Agent) -> None:
    """Raise NrmapError unless `policy` can take the states: same shape, and same game where both have one."""
    if isinstance(states, RolloutStates) and policy.env is not None:
        check_same_game(states, policy.env)
    check_states(torch.from_numpy(states.states), policy.state_shape)


def ensure_evaluation(study: Study, policy: Agent) -> list[Record]:
    """Return the records of the evaluation of `policy`. Play only if it is neither published nor finished before.

    An interrupted evaluation continues after its last finished roll-out. NrmapError if `policy` does not fit its game.
    """
    published = _published_evaluation(study, policy)
    if published is not None:
        return list(read_measured(published).records)
    settings, inputs = _possible(study, policy), evaluation_inputs(policy)
    path = _play_path(study, policy, "evaluation", settings)
    roll_outs = path.with_name(ROLL_OUTS_FOLDER)

    def keep(roll_out: str, play_it: Callable[[], list[Record]]) -> list[Record]:
        part = roll_outs / f"{roll_out}.json"
        return measured_once(part, play_it, settings=asdict(settings), inputs={**inputs, "roll_out": roll_out})

    def make() -> list[Record]:
        with Progress(f"{policy.label}: evaluation", unit="steps", clock=study.clock) as progress:
            return evaluate(
                policy, settings, num_envs=settings.episodes,
                certify=_certifier(policy), keep=keep, progress=progress.update,
            )  # fmt: skip

    records = measured_once(path, make, settings=asdict(settings), inputs=inputs)
    shutil.rmtree(roll_outs, ignore_errors=True)
    return records


def _play_path(study: Study, policy: Agent, stage: str, settings: EvaluationSettings, **inputs: Any) -> Path:
    identity = stage_identity(stage, policy_sha256=policy.sha256, settings=asdict(settings), **inputs)
    folder = study.layout.of_policy(
        "evaluation", game=policy.game, method=policy.method, seed=policy.seed or 0, identity=identity
    )
    return folder / METRICS_FILE


def _certifier(policy: Agent, level: int = logging.DEBUG) -> IntervalCertifier | None:
    """Return the certifier of `policy`; None if it has no interval bounds, with the reason logged at `level`."""
    try:
        return IntervalCertifier(bounded_network(policy))
    except NrmapError as error:
        log.log(level, "%s is not certified: %s", policy.label, error)
        return None


def _possible(study: Study, policy: Agent, level: int = logging.INFO) -> EvaluationSettings:
    """Drop attacks and certificates that need bounds or a gradient `policy` lacks; log these attacks at `level`."""
    settings, has_bounds = study.settings.evaluation, _certifier(policy, level) is not None
    kept = []
    for run in settings.attack_runs:
        if has_bounds if run.attack == WORST_CASE else policy.input_scale is not None:
            kept.append(run)
        else:
            log.log(level, "%s is not attacked by %s: it has no bounds or no gradient", policy.label, run.attack)
    return replace(settings, attack_runs=tuple(kept), certify_epsilons=settings.certify_epsilons if has_bounds else ())


def ensure_attacks(study: Study, policy: Agent, states: StatesFile) -> list[Record]:
    """Return flip and certified rates on `states`, for an agent without a game; [] if no attack or bound applies."""
    settings, seen = _possible(study, policy), states.states.states
    of_states = {"states_sha256": states.sha256, "version": VERSIONS["evaluation"]}
    path, inputs = _play_path(study, policy, "attacks", settings, **of_states), evaluation_inputs(policy) | of_states
    lengths = np.bincount(states.states.episode_ids).tolist()
    runs = [run for run in settings.attack_runs if run.attack != WORST_CASE]  # which attacks whole episodes

    def rate(found: Tensor, **fields: Any) -> Record:
        counts = np.bincount(states.states.episode_ids, weights=found.cpu().numpy()).astype(int).tolist()
        found_rate = asdict(estimate_rate(counts, lengths))
        return Record(**policy_fields(policy), num_states=len(seen), episodes=len(lengths), **fields, **found_rate)

    def make() -> list[Record]:
        records = []
        for run in runs:
            found = attack(policy, seen, run.attack, run.attack_epsilon, seed=settings.run_seed)
            records.append(rate(found.flipped, metric="flip_rate", **run.record_fields))
        for epsilon in settings.certify_epsilons:
            proven = certify(policy, seen, epsilon)
            records.append(rate(proven, metric="certified_rate", attack="clean", attack_epsilon=epsilon))
        return records

    if not runs and not settings.certify_epsilons:
        return []
    return measured_once(path, make, settings=asdict(settings), inputs=inputs)


def evaluation_inputs(policy: Agent) -> dict[str, Any]:
    """Return the `inputs` of an evaluation's metrics file: the policy's hash and the version of evaluations."""
    return {"policy_sha256": policy.sha256, "version": VERSIONS["evaluation"]}


def _published_evaluation(study: Study, policy: Agent) -> Path | None:
    """Find the metrics published for exactly this policy and these settings; None if there are none."""
    wanted = identity_of({"settings": asdict(study.settings.evaluation), "inputs": evaluation_inputs(policy)})
    for path in study.layout.published(policy.game, policy.method, f"seed{policy.seed}"):
        there = read_metrics(path)
        if identity_of({"settings": there.settings, "inputs": there.inputs}) == wanted:
            return path
    return None


def ensure_baselines(study: Study, policy: Agent) -> list[Record]:
    """Return records of constant actions and random play on the evaluation's episodes, played now if missing."""
    env, settings = env_of(policy), study.settings.evaluation
    path = _baselines_path(study, policy)

    def make() -> list[Record]:
        with Progress(f"{env.game}: baselines", unit="steps", clock=study.clock) as progress:
            return evaluate_baselines(
                env, episodes=settings.episodes, run_seed=settings.run_seed, stream=settings.stream,
                num_envs=settings.episodes, progress=progress.update,
            )  # fmt: skip

    return measured_once(path, make, settings=baselines_settings(env, asdict(settings)), inputs={})


def _baselines_path(study: Study, policy: Agent) -> Path:
    env = env_of(policy)
    identity = stage_identity("baselines", **baselines_settings(env, asdict(study.settings.evaluation)))
    published = study.layout.published(env.game, "baseline", identity)
    if published and _published_evaluation(study, policy) is not None:
        return published[0]
    return study.layout.baselines(game=env.game, identity=identity) / METRICS_FILE


def missing_play(study: Study, policy: Agent) -> tuple[bool, EvaluationSettings | None]:
    """Return whether the baselines are missing, and the settings of the evaluation, or None if it exists."""
    settings = _possible(study, policy, logging.DEBUG)
    found = _published_evaluation(study, policy) or _play_path(study, policy, "evaluation", settings)
    return not _baselines_path(study, policy).exists(), None if found.exists() else settings


def baselines_settings(env: EnvSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what baselines depend on: `env`, and `episodes`, `run_seed` and `stream` of `settings`.

    Raises NrmapError if `settings` lacks one of them.
    """
    names = ("episodes", "run_seed", "stream")
    check(set(names) <= settings.keys(), f"the settings of an evaluation lack {' or '.join(names)}")
    return {"env": recorded(env), **{name: settings[name] for name in names}}
