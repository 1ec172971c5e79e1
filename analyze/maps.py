"""The stages of a study that map: shards, maps with their records, null networks, figures."""

import logging
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from analyze.study import StatesFile, Study, check_fits, once, write_metrics
from nrmap.ablation import make_engine
from nrmap.ablation.store import ablated_q_values
from nrmap.maps.episode_maps import EpisodeMaps, load_maps, merge_maps, save_maps
from nrmap.maps.measures import map_records
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks, policy_fields
from nrmap.maps.sweep import sweep_maps, sweep_workers
from nrmap.policies.agent import Agent
from nrmap.policies.policy import Policy
from nrmap.statistics.nested_subsets import prefix_ranks
from nrmap.support.errors import check
from nrmap.support.files import read_json, write_json
from nrmap.support.identity import VERSIONS, stage_identity
from nrmap.support.layout import MAPS_FILE, METRICS_FILE
from nrmap.support.progress import Progress
from nrmap.support.records import Record, read_records
from nrmap.support.schema import Name
from nrmap.support.tracking import summary_name

log = logging.getLogger(__name__)

FIGURES_FILE = "figures.json"
# The numbers of null networks that the panels of W&B compare.
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
        """The file of this shard's maps, until they are merged into the maps in `folder`."""
        return shards_folder(folder) / f"{self.index}-of-{self.count}.npz"

    def episodes(self, episode_ids: ArrayLike) -> list[int]:
        """The episodes of this shard, out of the N states' `episode_ids` [N]; NrmapError if shards outnumber them."""
        episodes = np.unique(episode_ids).tolist()
        check(self.count <= len(episodes), f"shards={self.count}: the states are of {len(episodes)} episodes only")
        return episodes[self.index :: self.count]


def shards_folder(folder: Path) -> Path:
    """The folder of the shards of the maps in `folder`."""
    return folder / "shards"


def ensure_maps(study: Study, policy: Agent, states: StatesFile) -> MapsResult:
    """All maps of `policy` on `states`, and their records.

    Finished shards are merged and then removed; only missing episodes are ablated. The ablated
    Q-values are kept, so another temperature costs little.
    """
    settings, folder = study.settings.maps, maps_folder(study, policy, states)
    inputs = _inputs(policy, states)

    def make() -> None:
        ids = states.states.episode_ids
        maps = _merged(folder, ids, lambda episodes: episode_maps(study, policy, states, episodes))
        maps = replace(maps, players=states.states.episode_origins[maps.episode_ids])
        save_maps(folder / MAPS_FILE, maps, {"policy": policy.label, **inputs})
        fields = {**policy_fields(policy), **study.settings.states.record_fields}
        records = map_records(maps, partial(Record, **fields))
        path = _as_recorded(states.path, study.layout.outputs)
        context = {"states_path": path, "version": VERSIONS["maps"], **inputs}
        write_metrics(folder / METRICS_FILE, records, settings=asdict(settings), inputs=context)
        shutil.rmtree(shards_folder(folder), ignore_errors=True)

    records = once(folder / METRICS_FILE, make, read_records)
    maps, _ = load_maps(folder / MAPS_FILE)
    return MapsResult(folder, maps, records)


def ensure_shard(study: Study, policy: Agent, states: StatesFile, shard: Shard) -> Path:
    """The maps of one shard's episodes, for `ensure_maps` to merge; or the file of all maps, if it exists."""
    folder = maps_folder(study, policy, states)
    episodes = shard.episodes(states.states.episode_ids)
    if (folder / METRICS_FILE).exists():
        load_maps(folder / MAPS_FILE)
        return folder / MAPS_FILE
    path = shard.path(folder)

    def make() -> None:
        maps = episode_maps(study, policy, states, episodes)
        save_maps(path, maps, {"policy": policy.label, **_inputs(policy, states)})

    once(path, make, load_maps)
    return path


def _inputs(policy: Agent, states: StatesFile) -> dict[str, str | None]:
    return {"policy_sha256": policy.sha256, "states_sha256": states.sha256}


def maps_label(study: Study, policy: Agent) -> str:
    """The work of mapping `policy`, for progress."""
    return f"{policy.label}: maps on {study.settings.states.label} states"


def maps_folder(study: Study, policy: Agent, states: StatesFile) -> Path:
    """The folder of the maps of `policy` on `states`; NrmapError for states of another game."""
    check_fits(states.states, policy)
    settings, label = study.settings.maps, study.settings.states.label
    identity = stage_identity("maps", **_inputs(policy, states), settings=asdict(settings), states_from=label)
    fields, method = policy_fields(policy), policy.method
    if fields.get("source_method") is not None:
        method = f"{method}-{fields['source_method']}-seed-{fields['source_seed']}"
    return study.layout.of_policy("maps", game=policy.game, method=method, seed=policy.seed or 0, identity=identity)


def _merged(folder: Path, episode_ids: ArrayLike, make: Callable[[list[int]], EpisodeMaps]) -> EpisodeMaps:
    """The maps of every episode in `episode_ids` [N]: the shards of `folder`, and `make` of the other episodes.

    Raises NrmapError for a shard that cannot be read.
    """
    missing = set(np.unique(episode_ids).tolist())
    parts = []
    for path in sorted(shards_folder(folder).glob("*-of-*.npz")):
        maps, _ = load_maps(path)
        found = set(maps.episode_ids.tolist())
        if found <= missing:  # else a shard of another count has some of them too
            parts.append(maps)
            missing -= found
    if parts:
        log.info("%s shards found, of all but %s episodes", len(parts), len(missing))
    if missing:
        parts.append(make(sorted(missing)))
    return merge_maps(parts)


def episode_maps(study: Study, policy: Agent, states: StatesFile, episodes: Sequence[int]) -> EpisodeMaps:
    """The maps of `policy` on the states of `episodes`, independent of the other episodes to the last bit.

    Another machine or number of threads may round differently.
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
    """The null networks of `policy`, of each kind as many as settings.controls; none if nrmap does not know its layers.

    Like any maps, theirs are named by weights and states: policies that share states share the maps of random weights.
    """
    draws, seed = study.settings.controls, study.settings.evaluation.run_seed
    if not draws or not isinstance(policy, Policy):
        return []
    return [network for kind in NULL_NETWORKS for network in null_networks(policy, kind, draws, seed)]


def ensure_null_networks(study: Study, policy: Agent, states: StatesFile) -> list[Record]:
    """Records of the maps of `null_networks_of`, on the states of `policy`."""
    networks = null_networks_of(study, policy)
    if study.settings.controls and not networks:
        log.info("no null networks of %s: nrmap does not know its layers", policy.label)
    return [record for network in networks for record in ensure_maps(study, network, states).records]


def null_network_summary(records: Iterable[Record]) -> Mapping[str, float]:
    """The means over the draws of each kind of null network, by `random_weights_kl_sparsity_T1` and the like.

    A value that is undefined for a draw has no mean.
    """
    values: dict[str, list[float | None]] = defaultdict(list)
    for record in records:
        if record.metric in SUMMARISED_IN_WANDB and not record.is_part:
            name = summary_name(record.metric_key, temperature=record.temperature)
            values[f"{record.method}_{name}"].append(record.value)
    means = {}
    for name, each in values.items():
        defined = [value for value in each if value is not None]
        if len(defined) == len(each):
            means[name] = math.fsum(defined) / len(defined)
    return means


def ensure_figures(policy: Agent, states: StatesFile, maps: MapsResult) -> dict[str, Path]:
    """The pictures of the maps, by name, in the maps' folder."""
    index = maps.folder / FIGURES_FILE

    def make() -> None:
        from analyze.report.map_sheets import save_map_figures  # loads matplotlib

        made = save_map_figures(maps.maps, policy=policy, states=states.states, folder=maps.folder)
        write_json(index, {name: path.name for name, path in made.items()})

    files = once(index, make, partial(read_json, form=dict[str, Name]))
    return {name: maps.folder / file for name, file in files.items()}


def _as_recorded(path: Path, folder: Path) -> str:
    """`path` for metrics: relative to `folder` if it is inside, so that the folder can be moved."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
