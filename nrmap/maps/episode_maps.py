"""Maps kept by episode: they add up, merge from shards, and are files."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.support.errors import NrmapError, check
from nrmap.support.files import atomic_path

FORMAT_VERSION = 1
HEADER_KEY = "nrmap_maps"
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EpisodeMaps:
    """The maps of E episodes, each summed over that episode's states.

    Pixels are [H, W], or [C, H, W] where each channel was ablated apart; T is the number of
    temperatures. Episodes are in ascending order of their ids. `hmap` = `kl` + `entropy` up to
    rounding. `prefixes` maps a size n to the maps of the first n states in the order of
    nrmap.statistics.nested_subsets.prefix_ranks; an episode without a state in a prefix has zeros there.

    Raises NrmapError for arrays whose shapes do not fit together.
    """

    temperatures: tuple[float, ...]
    episode_ids: IntArray  # [E]
    states_per_episode: IntArray  # [E]
    kmap: FloatArray  # [E, H, W], Σ_s of equation 4
    margin_drop: FloatArray  # [E, H, W], Σ_s of the signed drop in Q(·,a*) − max_{a≠a*} Q(·,a)
    hmap: FloatArray  # [T, E, H, W], Σ_s of equation 5, in nats
    kl: FloatArray  # [T, E, H, W], Σ_s KL(π(s) ‖ π(Z_ij(s))), in nats
    entropy: FloatArray  # [T, E], Σ_s entropy(π(s)), in nats
    flips: IntArray  # [E], (state, pixel) pairs whose ablation changes the arg max
    ties: IntArray  # [E], (state, pixel) pairs whose ablated arg max is left to rounding
    q_gaps: FloatArray  # [N], Q(s,a*) − max_{a≠a*} Q(s,a) of every state, episode by episode
    prefixes: Mapping[int, "EpisodeMaps"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        episodes, pixels = self.episode_ids.shape, self.kmap.shape[1:]
        each_temperature = (len(self.temperatures), *episodes)
        expected = {
            **dict.fromkeys(("states_per_episode", "flips", "ties"), episodes),
            **dict.fromkeys(("kmap", "margin_drop"), episodes + pixels),
            **dict.fromkeys(("hmap", "kl"), each_temperature + pixels),
            "entropy": each_temperature,
            "q_gaps": (self.num_states,),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            check(found == shape, f"{name} of {len(self.episode_ids)} episodes is {found}: expected {shape}")

    @property
    def num_states(self) -> int:
        """N, over all episodes."""
        return int(self.states_per_episode.sum())

    def total(self) -> "TotalMaps":
        """The maps of all states: sums over the episodes, added in ascending order of their ids."""
        return TotalMaps(
            temperatures=self.temperatures,
            num_states=self.num_states,
            kmap=self.kmap.sum(axis=0),
            margin_drop=self.margin_drop.sum(axis=0),
            hmap=self.hmap.sum(axis=1),
            kl=self.kl.sum(axis=1),
        )


@dataclass(frozen=True, eq=False)
class TotalMaps:
    """Maps summed over `num_states` states; what each is, EpisodeMaps says."""

    temperatures: tuple[float, ...]
    num_states: int
    kmap: FloatArray  # [H, W]
    margin_drop: FloatArray  # [H, W]
    hmap: FloatArray  # [T, H, W]
    kl: FloatArray  # [T, H, W]


_BY_EPISODE = ("episode_ids", "states_per_episode", "kmap", "margin_drop", "flips", "ties")
_BY_TEMPERATURE = ("hmap", "kl", "entropy")
_INTEGERS = ("episode_ids", "states_per_episode", "flips", "ties")
_ARRAYS = (*_BY_EPISODE, *_BY_TEMPERATURE, "q_gaps")


def merge_maps(shards: Sequence[EpisodeMaps]) -> EpisodeMaps:
    """The maps of all the shards' episodes, bit for bit those of one sweep over all the states.

    Raises NrmapError when an episode is in two shards, or when the shards differ in their
    temperatures, pixels or prefix sizes.
    """
    check(len(shards) > 0, "no shards to merge")
    first = shards[0]
    for shard in shards:
        for what, mine, theirs in (
            ("temperatures", first.temperatures, shard.temperatures),
            ("pixels", first.kmap.shape[1:], shard.kmap.shape[1:]),
            ("prefix sizes", sorted(first.prefixes), sorted(shard.prefixes)),
        ):
            check(mine == theirs, f"shards have different {what}: {mine} and {theirs}")
    ids = np.concatenate([shard.episode_ids for shard in shards])
    unique, counts = np.unique(ids, return_counts=True)
    check(len(unique) == len(ids), f"episodes in more than one shard: {unique[counts > 1].tolist()}")
    order = np.argsort(ids)
    gaps = [part for shard in shards for part in np.split(shard.q_gaps, shard.states_per_episode.cumsum()[:-1])]
    return EpisodeMaps(
        temperatures=first.temperatures,
        **{name: np.concatenate([getattr(shard, name) for shard in shards])[order] for name in _BY_EPISODE},
        **{name: np.concatenate([getattr(shard, name) for shard in shards], 1)[:, order] for name in _BY_TEMPERATURE},
        q_gaps=np.concatenate([gaps[index] for index in order]),
        prefixes={size: merge_maps([shard.prefixes[size] for shard in shards]) for size in sorted(first.prefixes)},
    )


def save_maps(path: Path, maps: EpisodeMaps, metadata: Mapping[str, Any]) -> None:
    """Write `maps` to `path` as npz, atomically, with `metadata` (policy, states, settings) as JSON inside.

    Equal maps and metadata give equal bytes. The arrays have the names of EpisodeMaps' fields,
    those of a prefix after `prefix<n>/`; any reader of npz files can use them.
    """
    header = {"format": FORMAT_VERSION, "prefixes": sorted(maps.prefixes), "metadata": dict(metadata)}
    arrays: dict[str, Any] = {HEADER_KEY: np.array(json.dumps(header, sort_keys=True, allow_nan=False))}
    arrays["temperatures"] = np.array(maps.temperatures)
    arrays |= {name: getattr(maps, name) for name in _ARRAYS}
    for size, part in maps.prefixes.items():
        arrays |= {f"prefix{size}/{name}": getattr(part, name) for name in _ARRAYS}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_maps(path: Path) -> tuple[EpisodeMaps, dict[str, Any]]:
    """The maps in `path` and their metadata.

    Raises NrmapError when the file is missing, truncated, not a file of maps, of another format
    version, or when an array is missing or has the wrong type or shape.
    """
    check(path.is_file(), f"no maps file {path}")
    try:
        opened = np.load(path, allow_pickle=False)
        check(isinstance(opened, np.lib.npyio.NpzFile), f"{path} is an npy file: expected npz")
        with opened as file:
            arrays = {name: file[name] for name in file.files}
        check(HEADER_KEY in arrays, f"{path} is an npz file but holds no maps: it has no {HEADER_KEY!r}")
        header = json.loads(str(arrays[HEADER_KEY]))
        check(isinstance(header, dict), f"{path} is damaged: what it says of its maps is not readable")
    # RuntimeError is what zipfile says of damaged flags: an unknown compression, a password.
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise NrmapError(f"{path} is not a readable maps file: {error}") from error
    version = header.get("format")
    check(version == FORMAT_VERSION, f"{path} has maps format {version!r}: expected {FORMAT_VERSION}")
    for key, kind in (("prefixes", list), ("metadata", dict)):
        check(isinstance(header.get(key), kind), f"{path} is damaged: what it says of its {key} is not readable")
    prefixes = {size: _from_arrays(path, arrays, f"prefix{size}/", {}) for size in header["prefixes"]}
    return _from_arrays(path, arrays, "", prefixes), header["metadata"]


def _from_arrays(path: Path, arrays: Mapping[str, Any], prefix: str, prefixes: dict[int, EpisodeMaps]) -> EpisodeMaps:
    for name in ("temperatures", *(prefix + name for name in _ARRAYS)):
        check(name in arrays, f"{path}: the array {name} is missing")
        kind = np.int64 if name.removeprefix(prefix) in _INTEGERS else np.float64
        check(arrays[name].dtype == kind, f"{path}: {name} is {arrays[name].dtype}, expected {kind.__name__}")
    try:
        return EpisodeMaps(
            temperatures=tuple(arrays["temperatures"].tolist()),
            **{name: arrays[prefix + name] for name in _ARRAYS},
            prefixes=prefixes,
        )
    except NrmapError as error:
        raise NrmapError(f"{path}: {error}") from error
