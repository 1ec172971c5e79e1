"""Maps of whole episodes: of all in one job, or of a share of them in each of several jobs, merged."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from analyze.settings import MapSettings, Resources
from nrmap.ablation import AblatedChunk, make_engine
from nrmap.ablation.episodewise import EpisodewiseEngine
from nrmap.ablation.store import ablated_q_values
from nrmap.maps.episode_maps import EpisodeMaps, load_maps, merge_maps
from nrmap.maps.sweep import sweep_maps
from nrmap.play.states import RolloutStates
from nrmap.policies.policy import Policy
from nrmap.statistics.nested_subsets import prefix_ranks
from nrmap.support.errors import check
from nrmap.support.identity import stage_identity
from nrmap.support.layout import Layout
from nrmap.support.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Share number `index`, from 0, of an analysis that is spread over `count` jobs."""

    index: int
    count: int

    def __post_init__(self) -> None:
        check(self.count >= 1, f"shards={self.count}: expected at least 1")
        check(
            0 <= self.index < self.count, f"shard={self.index}: expected 0 to {self.count - 1} with {self.count} shards"
        )

    def path(self, folder: Path) -> Path:
        """Where this shard's maps lie beside the maps in `folder`, until they are merged."""
        return shards_folder(folder) / f"{self.index}-of-{self.count}.npz"

    def episodes(self, episode_ids: ArrayLike) -> list[int]:
        """The episodes of this shard, of the N states' `episode_ids` [N]; NrmapError when there are more shards."""
        episodes = np.unique(episode_ids).tolist()
        check(self.count <= len(episodes), f"shards={self.count}: the states are of {len(episodes)} episodes only")
        return episodes[self.index :: self.count]


def requested_shard(config: Mapping[str, Any]) -> Shard | None:
    """The share that the keys `shards` and `shard` ask for; None for all the maps."""
    count, index = config["shards"], config["shard"]
    check(isinstance(count, int) and count >= 1, f"shards={count!r}: expected a whole number, at least 1")
    check(index is None or isinstance(index, int), f"shard={index!r}: expected a whole number, or null to merge")
    return None if index is None else Shard(index, count)


def shards_folder(folder: Path) -> Path:
    """Where the shards of the maps in `folder` lie."""
    return folder / "shards"


def merged(folder: Path, episode_ids: ArrayLike, make: Callable[[list[int]], EpisodeMaps]) -> EpisodeMaps:
    """The maps of every episode in `episode_ids` [N]: the shards of `folder`, and what `make` gives of the others.

    Raises NrmapError for a shard that cannot be read.
    """
    missing = set(np.unique(episode_ids).tolist())
    parts = []
    for path in sorted(shards_folder(folder).glob("*-of-*.npz")):
        maps, _ = load_maps(path)
        found = set(maps.episode_ids.tolist())
        if found <= missing:  # else they are in a shard of another count too
            parts.append(maps)
            missing -= found
    if parts:
        log.info("%s shards found, of all but %s episodes", len(parts), len(missing))
    if missing:
        parts.append(make(sorted(missing)))
    return merge_maps(parts)


def episode_maps(
    policy: Policy,
    states: RolloutStates,
    episodes: Sequence[int],
    *,
    settings: MapSettings,
    inputs: Mapping[str, str | None],
    states_from: str,
    resources: Resources,
    layout: Layout,
) -> EpisodeMaps:
    """The maps of `policy` on the states of `episodes`, bit for bit the same whichever other episodes there are.

    `inputs` holds the hashes of policy and states, which name the ablated Q-values that are kept.
    The bits are those of one machine and one number of threads.
    """
    ids = states.episode_ids
    rows = np.flatnonzero(np.isin(ids, list(episodes)))
    key: dict[str, Any] = {**inputs, **asdict(settings.ablation)}
    if len(rows) < len(ids):
        key["episodes"] = list(episodes)
    identity = stage_identity("ablation", **key)
    engine = make_engine(policy, spec=settings.ablation, engine=resources.engine, differences_only=True)
    with Progress(f"{policy.label}: maps on {states_from} states", unit="states") as progress:
        chunks = ablated_q_values(
            layout.ablated(game=policy.env.game, identity=identity),
            EpisodewiseEngine(engine, ids[rows]),
            torch.from_numpy(states.states[rows]),  # [n, C, H, W]
            key=key,
            disk_budget=int(resources.disk_budget_gb * 1e9),
        )
        return sweep_maps(
            _shown(chunks, progress, total=len(rows)),
            episode_ids=ids[rows],
            temperatures=settings.temperatures,
            rounding_floor=engine.rounding_floor,
            prefix_sizes=[size for size in settings.prefix_sizes if size < len(ids)],
            ranks=prefix_ranks(ids)[rows],
        )


def _shown(chunks: Iterable[AblatedChunk], progress: Progress, *, total: int) -> Iterator[AblatedChunk]:
    for chunk in chunks:
        yield chunk
        progress.update(chunk.start + len(chunk.q_values), total)
