"""The stages of an analysis, each a file that is made once: states, evaluation, maps.

A stage's folder is named by the hash of its settings and of its input files. A finished one is
not run again; a changed setting or input leads to another folder.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch

from analyze import shards
from analyze.report.figures import map_figures
from analyze.settings import MapSettings, Resources, StatesSettings
from nrmap.atari.envs import EnvSpec
from nrmap.maps.episode_maps import EpisodeMaps, load_maps, save_maps
from nrmap.maps.measures import map_records
from nrmap.maps.null_networks import policy_fields
from nrmap.play.evaluation import (
    EvaluationProgress,
    EvaluationSettings,
    PlaysRollOut,
    evaluate,
    evaluate_baselines,
)
from nrmap.play.states import RolloutStates, check_same_game, collect_states, load_states, pool_states, save_states
from nrmap.policies.policy import Policy
from nrmap.robustness.certify import IntervalCertifier
from nrmap.support.errors import NrmapError
from nrmap.support.files import identity_of, read_json, sha256_of_file, write_json
from nrmap.support.identity import VERSIONS, stage_identity
from nrmap.support.layout import MAPS_FILE, METRICS_FILE, Layout
from nrmap.support.progress import Progress
from nrmap.support.records import Record, read_records, write_records
from nrmap.support.runtime import provenance

log = logging.getLogger(__name__)

PARALLEL_EPISODES = 16
FIGURES_FILE = "figures.json"
ROLL_OUTS_FOLDER = "roll_outs"


@dataclass(frozen=True)
class StatesFile:
    """A file of states and its content."""

    path: Path
    sha256: str
    states: RolloutStates


@dataclass(frozen=True)
class MapsResult:
    """The maps of one policy on one set of states, and what was measured on them."""

    folder: Path
    maps: EpisodeMaps
    records: list[Record]


def ensure_states(
    policies: Sequence[Policy], settings: StatesSettings, *, layout: Layout, device: torch.device
) -> StatesFile:
    """The states of `policies`' greedy episodes, pooled when there are several; or those of the file named."""
    game = policies[0].env.game
    if settings.from_file is not None:
        return _states_file(settings.from_file, policies[0].env)
    parts = [_ensure_own_states(policy, settings, layout=layout, device=device) for policy in policies]
    if len(parts) == 1:
        return parts[0]
    identity = stage_identity("pool", states_sha256=[part.sha256 for part in parts])
    path = layout.states(game=game, identity=identity)
    _once(path, lambda: save_states(path, pool_states([part.states for part in parts])))
    return _states_file(path, policies[0].env)


def _ensure_own_states(policy: Policy, settings: StatesSettings, *, layout: Layout, device: torch.device) -> StatesFile:
    what = {"num_states": settings.num_states, "episodes": settings.episodes, "run_seed": settings.run_seed}
    identity = stage_identity("states", policy_sha256=policy.sha256, **what)
    path = layout.states(game=policy.env.game, identity=identity)

    def make() -> None:
        with Progress(f"{policy.label}: roll-out", unit="steps") as progress:
            states = collect_states(
                policy, **what, num_envs=PARALLEL_EPISODES, device=device, progress=progress.update
            )  # fmt: skip
        save_states(path, states)

    _once(path, make)
    return _states_file(path, policy.env)


def _states_file(path: Path, env: EnvSpec) -> StatesFile:
    states = load_states(path)
    check_same_game(states, env)
    return StatesFile(path, sha256_of_file(path), states)


def ensure_evaluation(
    policy: Policy, settings: EvaluationSettings, *, layout: Layout, device: torch.device
) -> list[Record]:
    """Returns, actions and flips of `policy`, clean and under every attack of `settings`, and what is certified.

    That of a reference policy comes with it. One that was cut off goes on after its last whole roll-out.
    """
    reference = _published_evaluation(policy, settings, layout)
    if reference is not None:
        return read_records(reference)
    card, inputs = policy.card, evaluation_inputs(policy)
    identity = stage_identity("evaluation", policy_sha256=policy.sha256, settings=asdict(settings))
    folder = layout.evaluation(game=policy.env.game, method=card.method, seed=card.seed, identity=identity)
    roll_outs = folder / ROLL_OUTS_FOLDER

    def keep(roll_out: str, play_it: PlaysRollOut) -> list[Record]:
        path = roll_outs / f"{roll_out}.json"
        _once(path, lambda: write_records(path, play_it()))
        return read_records(path)

    def make() -> None:
        with Progress(f"{policy.label}: evaluation", unit="steps") as progress:
            records = evaluate(
                policy, settings, num_envs=settings.episodes, device=device,
                certify=IntervalCertifier(policy.network), keep=keep, progress=_show_part(progress),
            )  # fmt: skip
        _write_metrics(folder / METRICS_FILE, records, settings=asdict(settings), inputs=inputs)
        shutil.rmtree(roll_outs, ignore_errors=True)

    _once(folder / METRICS_FILE, make)
    return read_records(folder / METRICS_FILE)


def evaluation_inputs(policy: Policy) -> dict[str, Any]:
    """What the metrics of an evaluation say that it was made of."""
    return {"policy_sha256": policy.sha256, "version": VERSIONS["evaluation"]}


def _published_evaluation(policy: Policy, settings: EvaluationSettings, layout: Layout) -> Path | None:
    """The metrics that came with `policy`, if it is a reference policy and they are of these settings."""
    card = policy.card
    path = layout.reference(game=policy.env.game, method=card.method, seed=card.seed) / METRICS_FILE
    if not path.is_file():
        return None
    there = read_json(path)
    wanted = {"settings": asdict(settings), "inputs": evaluation_inputs(policy)}
    return path if identity_of({name: there[name] for name in wanted}) == identity_of(wanted) else None


def ensure_baselines(policy: Policy, settings: EvaluationSettings, *, layout: Layout) -> list[Record]:
    """The returns of every constant action and of a random policy on the episodes that `policy` plays.

    Those of a reference policy come with it, as its evaluation does.
    """
    env, game = policy.env, policy.env.game
    what = baselines_settings(env, asdict(settings))
    identity = stage_identity("baselines", **what)
    reference = layout.reference_baselines(game=game, identity=identity) / METRICS_FILE
    if reference.is_file() and _published_evaluation(policy, settings, layout) is not None:
        return read_records(reference)
    path = layout.baselines(game=game, identity=identity) / METRICS_FILE

    def make() -> None:
        with Progress(f"{game}: baselines", unit="steps") as progress:
            records = evaluate_baselines(
                env, episodes=settings.episodes, run_seed=settings.run_seed, stream=settings.stream,
                num_envs=settings.episodes, progress=_show_part(progress),
            )  # fmt: skip
        _write_metrics(path, records, settings=what, inputs={})

    _once(path, make)
    return read_records(path)


def baselines_settings(env: EnvSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of an evaluation those that the baselines depend on, and the game."""
    return {"env": asdict(env), **{name: settings[name] for name in ("episodes", "run_seed", "stream")}}


def ensure_maps(
    policy: Policy,
    states: StatesFile,
    settings: MapSettings,
    *,
    states_from: str,
    resources: Resources,
    layout: Layout,
) -> MapsResult:
    """All maps of `policy` on `states`; the ablated Q-values are kept, so another temperature comes cheap.

    What shards of the same maps there are is merged and then removed; only missing episodes are ablated.
    """
    inputs, folder = _maps_place(policy, states, settings, states_from=states_from, layout=layout)

    def make() -> None:
        maps = shards.merged(
            folder,
            states.states.episode_ids,
            lambda episodes: shards.episode_maps(
                policy, states.states, episodes,
                settings=settings, inputs=inputs, states_from=states_from, resources=resources, layout=layout,
            ),
        )  # fmt: skip
        save_maps(folder / MAPS_FILE, maps, {"policy": policy.label, **inputs})
        of_file = {} if states_from in ("own", "pool") else {"states_from": "file", "states_set": states_from}
        fields: dict[str, Any] = {**policy_fields(policy), "states_from": states_from, **of_file}
        records = map_records(maps, partial(Record, **fields), states.states.episode_origins[maps.episode_ids])
        path = _as_recorded(states.path, layout.outputs)
        context = {"states_path": path, "version": VERSIONS["maps"], **inputs}
        _write_metrics(folder / METRICS_FILE, records, settings=asdict(settings), inputs=context)
        shutil.rmtree(shards.shards_folder(folder), ignore_errors=True)

    _once(folder / METRICS_FILE, make)
    maps, _ = load_maps(folder / MAPS_FILE)
    return MapsResult(folder, maps, read_records(folder / METRICS_FILE))


def ensure_shard(
    policy: Policy,
    states: StatesFile,
    settings: MapSettings,
    shard: shards.Shard,
    *,
    states_from: str,
    resources: Resources,
    layout: Layout,
) -> Path:
    """The maps of one shard's episodes, for `ensure_maps` to merge; or all maps, if they are there already."""
    inputs, folder = _maps_place(policy, states, settings, states_from=states_from, layout=layout)
    episodes = shard.episodes(states.states.episode_ids)
    if (folder / METRICS_FILE).is_file():
        return folder / MAPS_FILE

    def make() -> None:
        maps = shards.episode_maps(
            policy, states.states, episodes,
            settings=settings, inputs=inputs, states_from=states_from, resources=resources, layout=layout,
        )  # fmt: skip
        save_maps(shard.path(folder), maps, {"policy": policy.label, **inputs})

    _once(shard.path(folder), make)
    return shard.path(folder)


def _maps_place(
    policy: Policy, states: StatesFile, settings: MapSettings, *, states_from: str, layout: Layout
) -> tuple[dict[str, str | None], Path]:
    """The hashes of what maps are made of, and the folder that they name; NrmapError for states of another game."""
    check_same_game(states.states, policy.env)
    inputs = {"policy_sha256": policy.sha256, "states_sha256": states.sha256}
    identity = stage_identity("maps", **inputs, settings=asdict(settings), states_from=states_from)
    fields = policy_fields(policy)
    source = fields.get("source_method")
    method = policy.card.method if source is None else f"{policy.card.method}-{source}-seed-{fields['source_seed']}"
    folder = layout.maps(game=policy.env.game, method=method, seed=policy.card.seed, identity=identity)
    return inputs, folder


def ensure_figures(policy: Policy, states: StatesFile, maps: MapsResult) -> dict[str, Path]:
    """The pictures of the maps, by name, in the maps' folder."""
    index = maps.folder / FIGURES_FILE

    def make() -> None:
        made = map_figures(maps.maps, policy=policy, states=states.states, folder=maps.folder)
        write_json(index, {name: path.name for name, path in made.items()})

    _once(index, make)
    return {name: maps.folder / file for name, file in read_json(index).items()}


def _show_part(progress: Progress) -> EvaluationProgress:
    return lambda part, done, total: progress.update(done, total, part)


def _write_metrics(path: Path, records: list[Record], *, settings: dict[str, Any], inputs: dict[str, Any]) -> None:
    write_records(path, records, settings=settings, inputs=inputs, provenance=provenance())


def _as_recorded(path: Path, folder: Path) -> str:
    """`path` as metrics name it: from `folder` on where it lies there, so that the folder can be moved."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _once(path: Path, make: Callable[[], None]) -> None:
    """Call `make`, which writes `path`, unless it is there; of several processes one makes it, the others wait."""
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                make()
    except OSError as error:
        raise NrmapError(f"cannot write {path}: {error.strerror or error}") from error
