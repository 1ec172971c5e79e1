"""Stages of an analysis: shards of maps, maps with their records, null networks, figures."""

import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from analyze.stages import once, read_stage, write_metrics
from analyze.study import StatesFile, Study, check_fits
from nrmap.ablation import make_engine
from nrmap.ablation.store import ablated_q_values
from nrmap.maps.episode_maps import EpisodeMaps, merge_maps, save_maps
from nrmap.maps.measures import load_measured, map_records
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks, policy_fields
from nrmap.maps.sweep import sweep_maps, sweep_workers
from nrmap.policies.agent import Agent
from nrmap.policies.policy import Policy
from nrmap.statistics.nested_subsets import prefix_ranks
from nrmap.support.errors import check, named, shortened
from nrmap.support.files import read_json, sha256_of_file, write_json
from nrmap.support.identity import VERSIONS, stage_identity
from nrmap.support.layout import MAPS_FILE, METRICS_FILE
from nrmap.support.progress import Progress
from nrmap.support.records import Record
from nrmap.support.schema import Name
from nrmap.support.tracking import summary_name

log = logging.getLogger(__name__)

FIGURES_FILE = "figures.json"
# Metrics of null networks that the W&B panels compare.
SUMMARISED_IN_WANDB = ("sparsity", "grid_excess")


@dataclass(frozen=True)
class MapsResult:
    """The maps of one policy on one set of states, and their records."""

    folder: Path
    maps: EpisodeMaps
    records: list[Record]


@dataclass(frozen=True)
class Shard:
    """Part number `index`, from 0, of maps that are spread over `count` jobs."""

    index: int
    count: int

    def path(self, folder: Path) -> Path:
        """Return the path of this shard's maps; `ensure_maps` deletes the file once all maps are in `folder`."""
        return shards_folder(folder) / f"{self.index}-of-{self.count}.npz"

    def episodes(self, episode_ids: ArrayLike) -> list[int]:
        """Return this shard's episodes, out of `episode_ids` [N]. Raises NrmapError for more shards than episodes."""
        episodes = np.unique(episode_ids).tolist()
        check(self.count <= len(episodes), f"shards={self.count}: the states are of {len(episodes)} episodes only")
        return episodes[self.index :: self.count]


def shards_folder(folder: Path) -> Path:
    """Return the folder for the shards of the maps in `folder`."""
    return folder / "shards"


def ensure_maps(study: Study, policy: Agent, states: StatesFile) -> MapsResult:
    """Return all maps of `policy` on `states` with their records; make and measure them unless their files exist.

    Finished shards are merged and then removed; only missing episodes are ablated. Ablated Q-values within the disk
    budget are kept, so another temperature costs little. Raises NrmapError for states that do not fit the policy, for
    files that are damaged or of other inputs, and as `episode_maps` does.
    """
    settings, folder = study.settings.maps, maps_folder(study, policy, states)
    inputs = _inputs(policy, states)

    def make() -> None:
        ids = states.states.episode_ids
        paths = sorted(shards_folder(folder).glob("[!.]*-of-*.npz"))  # dotfiles: unfinished files of killed jobs
        shards = (_shard_of(study, policy, states, path) for path in paths)
        maps = _merged(shards, ids, lambda episodes: episode_maps(study, policy, states, episodes))
        maps = replace(maps, players=states.states.episode_origins[maps.episode_ids])
        save_maps(folder / MAPS_FILE, maps, {"policy": policy.label, **inputs})
        fields = {**policy_fields(policy), **study.settings.states.record_fields}
        records = map_records(maps, partial(Record, **fields))
        path = _as_recorded(states.path, study.layout.outputs)
        digest = sha256_of_file(folder / MAPS_FILE)
        context = {"states_path": path, "version": VERSIONS["maps"], "maps_sha256": digest, **inputs}
        write_metrics(folder / METRICS_FILE, records, settings=asdict(settings), inputs=context)
        shutil.rmtree(shards_folder(folder), ignore_errors=True)

    def read(path: Path) -> MapsResult:
        metrics = read_stage(path, settings=asdict(settings), inputs=inputs)
        return MapsResult(folder, _maps_of(policy, folder / MAPS_FILE, metrics.inputs), list(metrics.records))

    return once(folder / METRICS_FILE, make, read)


def _maps_of(policy: Agent, path: Path, inputs: Mapping[str, Any]) -> EpisodeMaps:
    """Load the maps in `path`. Raises NrmapError unless they are of `inputs` and have the pixels of the states."""
    maps = load_measured(path, inputs)
    expected = policy.state_shape[-len(maps.pixels) :]
    check(maps.pixels == expected, f"{path} holds maps of {maps.pixels} pixels: expected {expected}, as the states")
    return maps


def ensure_shard(study: Study, policy: Agent, states: StatesFile, shard: Shard) -> Path:
    """Make one shard's maps, which `ensure_maps` merges; return their path, or that of all maps if these exist.

    Raises NrmapError as `ensure_maps` does, and for more shards than episodes.
    """
    folder = maps_folder(study, policy, states)
    episodes = shard.episodes(states.states.episode_ids)
    if (folder / METRICS_FILE).exists():
        return ensure_maps(study, policy, states).folder / MAPS_FILE
    path = shard.path(folder)

    def make() -> None:
        maps = episode_maps(study, policy, states, episodes)
        save_maps(path, maps, {"policy": policy.label, **_shard_inputs(study, policy, states)})

    def read(path: Path) -> None:
        found = _maps_of(policy, path, _shard_inputs(study, policy, states)).episode_ids.tolist()
        check(found == episodes, f"{path} holds the episodes {shortened(found)}: expected {shortened(episodes)}")

    once(path, make, read)
    return path


def _shard_of(study: Study, policy: Agent, states: StatesFile, path: Path) -> EpisodeMaps:
    with named(after=f"; remove {path} to make it anew"):
        return _maps_of(policy, path, _shard_inputs(study, policy, states))


def _shard_inputs(study: Study, policy: Agent, states: StatesFile) -> dict[str, Any]:
    return {**_inputs(policy, states), "version": VERSIONS["maps"], **asdict(study.settings.maps.ablation)}


def _inputs(policy: Agent, states: StatesFile) -> dict[str, str | None]:
    return {"policy_sha256": policy.sha256, "states_sha256": states.sha256}


def maps_label(study: Study, policy: Agent) -> str:
    """Return the name of the mapping work on `policy`, for progress lines."""
    return f"{policy.label}: maps on {study.settings.states.label} states"


def maps_folder(study: Study, policy: Agent, states: StatesFile) -> Path:
    """Return the folder for maps of `policy` on `states`. Raises NrmapError for states that do not fit `policy`."""
    check_fits(states.states, policy)
    settings, label = study.settings.maps, study.settings.states.label
    identity = stage_identity("maps", **_inputs(policy, states), settings=asdict(settings), states_from=label)
    fields, method = policy_fields(policy), policy.method
    if fields.get("source_method") is not None:
        method = f"{method}-{fields['source_method']}-seed-{fields['source_seed']}"
    return study.layout.of_policy("maps", game=policy.game, method=method, seed=policy.seed or 0, identity=identity)


def _merged(
    shards: Iterable[EpisodeMaps], episode_ids: ArrayLike, make: Callable[[list[int]], EpisodeMaps]
) -> EpisodeMaps:
    """Merge the maps of all episodes in `episode_ids` [N]; `make` maps the episodes that `shards` lack."""
    missing = set(np.unique(episode_ids).tolist())
    parts = []
    for maps in shards:
        found = set(maps.episode_ids.tolist())
        if found <= missing:  # otherwise it overlaps a shard of another `count`
            parts.append(maps)
            missing -= found
    if parts:
        log.info("%s shards found, of all but %s episodes", len(parts), len(missing))
    if missing:
        parts.append(make(sorted(missing)))
    return merge_maps(parts)


def episode_maps(study: Study, policy: Agent, states: StatesFile, episodes: Sequence[int]) -> EpisodeMaps:
    """Map `policy` on the states of the episodes whose ids are `episodes`.

    The maps do not depend on any other episode; another machine or number of threads may round differently. Raises
    NrmapError as `make_engine`, `ablated_q_values` and `sweep_maps` do.
    """
    settings = study.settings.maps
    ids = states.states.episode_ids
    rows = np.flatnonzero(np.isin(ids, list(episodes)))
    key: dict[str, Any] = {**_inputs(policy, states), **asdict(settings.ablation)}
    if len(rows) < len(ids):
        key["episodes"] = list(episodes)
    identity = stage_identity("ablation", **key)
    engine = make_engine(policy, spec=settings.ablation, engine=study.engine, differences_only=True)
    with Progress(maps_label(study, policy), unit="states", clock=study.clock) as progress:
        chunks = ablated_q_values(
            study.layout.ablated(game=policy.game, identity=identity),
            engine,
            torch.from_numpy(states.states.states[rows]),  # [n, C, H, W]
            key=key,
            disk_budget=int(study.disk_budget_gb * 1e9),
            episode_ids=ids[rows],
        )
        return sweep_maps(
            chunks,
            episode_ids=ids[rows],
            temperatures=settings.temperatures,
            rounding_floor=engine.rounding_floor,
            prefix_sizes=[size for size in settings.prefix_sizes if size < len(ids)],
            ranks=prefix_ranks(ids)[rows],
            workers=sweep_workers(policy.device),
            progress=progress.update,
        )


def null_networks_of(study: Study, policy: Agent) -> list[Policy]:
    """Make `settings.controls` null networks of each kind; [] for 0, and if nrmap does not know the layers of `policy`.

    Random weights depend on the network's shape and the seed of the evaluation only, so policies that share states
    also share the maps of these networks.
    """
    draws, seed = study.settings.controls, study.settings.evaluation.run_seed
    if not draws or not isinstance(policy, Policy):
        return []
    return [network for kind in NULL_NETWORKS for network in null_networks(policy, kind, draws, seed)]


def ensure_null_networks(study: Study, policy: Agent, states: StatesFile) -> list[Record]:
    """Map the null networks of `policy` on `states`, unless done before, and return the records; [] without networks.

    Raises NrmapError as `ensure_maps` does.
    """
    networks = null_networks_of(study, policy)
    if study.settings.controls and not networks:
        log.info("no null networks of %s: nrmap does not know its layers", policy.label)
    return [record for network in networks for record in ensure_maps(study, network, states).records]


def null_network_summary(records: Iterable[Record]) -> Mapping[str, float]:
    """Return the means of sparsity and grid number over the draws of each kind of null network, by name for W&B.

    A name is `random_weights_kl_sparsity_T1`. A metric that is undefined for any draw is left out.
    """
    values: dict[str, list[Any]] = defaultdict(list)
    for record in records:
        if record.metric in SUMMARISED_IN_WANDB and not record.is_part:
            name = summary_name(record.metric_key, temperature=record.temperature)
            values[f"{record.method}_{name}"].append(record.value)
    return {name: fmean(each) for name, each in values.items() if None not in each}


def ensure_figures(policy: Agent, states: StatesFile, maps: MapsResult) -> dict[str, Path]:
    """Draw the figures of the maps into their folder, unless they exist; return the paths of the PNG files by name.

    Raises NrmapError as `save_map_figures` and `read_json` do.
    """
    index = maps.folder / FIGURES_FILE

    def make() -> None:
        from analyze.report.map_sheets import save_map_figures  # loads matplotlib

        made = save_map_figures(maps.maps, policy=policy, states=states.states, folder=maps.folder)
        write_json(index, {name: path.name for name, path in made.items()})

    read = partial(read_json, form=dict[str, Name])
    files = once(index, make, read)
    if not all((maps.folder / file).is_file() for file in files.values()):
        index.unlink(missing_ok=True)  # so that one process draws them again, under the lock
        files = once(index, make, read)
    return {name: maps.folder / file for name, file in files.items()}


def _as_recorded(path: Path, folder: Path) -> str:
    """Return `path`, relative to `folder` if inside, so that recorded paths survive a move of the folder.

    Any other path becomes absolute: the report reads it from another working folder.
    """
    path, folder = path.absolute(), folder.absolute()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
