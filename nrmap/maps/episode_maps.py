"""Maps by episode: they add up, merge from shards and are saved as npz files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.maps.kinds import KINDS, FloatArray, MapKind
from nrmap.support.errors import NrmapError, check, unknown_choice
from nrmap.support.files import read_npz, write_npz

FORMAT_VERSION = 2
KINDS_OF_FORMAT_1 = ("kmap", "hmap", "kl", "margin_drop")
HEADER_KEY = "nrmap_maps"
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _MapsByKind:
    """Maps of several kinds: `maps["kmap"]` is an array, `maps["hmap", 1.0]` that at a temperature.

    `arrays` holds them by the name of their kind, a key of `KINDS`. Where a kind depends on the
    temperature, its first axis is that of `temperatures`.
    """

    temperatures: tuple[float, ...]
    arrays: Mapping[str, FloatArray]

    def __getitem__(self, key: str | tuple[str, float | None]) -> FloatArray:
        name, temperature = key if isinstance(key, tuple) else (key, None)
        if name not in self.arrays:
            raise unknown_choice("map", name, self.arrays)
        if not KINDS[name].by_temperature:
            check(temperature is None, f"map {name!r} has no temperature, found {temperature!r}: use maps[{name!r}]")
            return self.arrays[name]
        if not isinstance(temperature, float | int):
            raise NrmapError(f"map {name!r} needs a temperature: use maps[{name!r}, {self.temperatures[0]}]")
        if temperature not in self.temperatures:
            nearest = min(self.temperatures, key=lambda known: abs(known - temperature))
            raise NrmapError(f"no temperature {temperature}: use maps[{name!r}, {nearest}], of {self.temperatures}")
        return self.arrays[name][self.temperatures.index(temperature)]

    def each(self) -> Iterator[tuple[MapKind, float | None, FloatArray]]:
        """Every map with its kind and, where it depends on one, its temperature, in the order of `KINDS`."""
        for kind in KINDS.values():
            if kind.name in self.arrays:
                for temperature in self.temperatures if kind.by_temperature else (None,):
                    yield kind, temperature, self[kind.name, temperature]


@dataclass(frozen=True, eq=False)
class TotalMaps(_MapsByKind):
    """Maps summed over `num_states` states, [H, W] or [C, H, W] each."""

    num_states: int


@dataclass(frozen=True, eq=False)
class EpisodeMaps(_MapsByKind):
    """The maps of E episodes, each summed over that episode's states.

    Each map is [E, H, W], or [E, C, H, W] where each channel was ablated apart. Episodes are in
    ascending order of their ids. `prefixes` maps a size n to the maps of the first n states in the
    order of nrmap.statistics.nested_subsets.prefix_ranks; an episode without a state in a prefix
    has zeros there.

    Raises NrmapError for arrays whose shapes do not fit together.
    """

    episode_ids: IntArray  # [E]
    states_per_episode: IntArray  # [E]
    entropy: FloatArray  # [T, E], Σ_s entropy(π(s)), in nats; HMAP is the KL map plus this, up to rounding
    ties: IntArray  # [E], (state, pixel) pairs whose ablated arg max is left to rounding
    q_gaps: FloatArray  # [N], Q(s,a*) − max_{a≠a*} Q(s,a) of every state, episode by episode
    prefixes: Mapping[int, "EpisodeMaps"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(len(self.arrays) > 0, "maps of no kind: expected at least one")
        episodes = self.episode_ids.shape
        each_temperature = (len(self.temperatures), *episodes)
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "states_per_episode": (self.states_per_episode, episodes),
            "ties": (self.ties, episodes),
            "entropy": (self.entropy, each_temperature),
            "q_gaps": (self.q_gaps, (self.num_states,)),
        }
        for name, array in self.arrays.items():
            leading = each_temperature if KINDS[name].by_temperature else episodes
            expected[name] = array, leading + self.pixels
        for name, (array, shape) in expected.items():
            found = array.shape
            check(found == shape, f"{name} of {len(self.episode_ids)} episodes is {found}: expected {shape}")

    @property
    def num_states(self) -> int:
        """N, over all episodes."""
        return int(self.states_per_episode.sum())

    @property
    def pixels(self) -> tuple[int, ...]:
        """[H, W] or [C, H, W]."""
        name, array = next(iter(self.arrays.items()))
        return array.shape[1 + KINDS[name].by_temperature :]

    def total(self) -> TotalMaps:
        """The maps of all states: sums over the episodes, added in ascending order of their ids."""
        sums = {name: array.sum(axis=int(KINDS[name].by_temperature)) for name, array in self.arrays.items()}
        return TotalMaps(self.temperatures, sums, self.num_states)


_INTEGERS = ("episode_ids", "states_per_episode", "ties")
_OTHER_ARRAYS = (*_INTEGERS, "entropy", "q_gaps")


def merge_maps(shards: Sequence[EpisodeMaps]) -> EpisodeMaps:
    """The maps of all the shards' episodes, bit for bit those of one sweep over all the states.

    Raises NrmapError when an episode is in two shards, or when the shards differ in their kinds of
    maps, temperatures, pixels or prefix sizes.
    """
    check(len(shards) > 0, "no shards to merge")
    first = shards[0]
    for shard in shards:
        for what, mine, theirs in (
            ("kinds of maps", list(first.arrays), list(shard.arrays)),
            ("temperatures", first.temperatures, shard.temperatures),
            ("pixels", first.pixels, shard.pixels),
            ("prefix sizes", sorted(first.prefixes), sorted(shard.prefixes)),
        ):
            check(mine == theirs, f"shards have different {what}: {mine} and {theirs}")
    ids = np.concatenate([shard.episode_ids for shard in shards])
    unique, counts = np.unique(ids, return_counts=True)
    check(len(unique) == len(ids), f"episodes in more than one shard: {unique[counts > 1].tolist()}")
    order = np.argsort(ids)

    def joined(parts: Sequence[NDArray[Any]], axis: int = 0) -> NDArray[Any]:
        return np.concatenate(parts, axis).take(order, axis)

    gaps = [part for shard in shards for part in np.split(shard.q_gaps, shard.states_per_episode.cumsum()[:-1])]
    return EpisodeMaps(
        temperatures=first.temperatures,
        arrays={
            name: joined([shard.arrays[name] for shard in shards], int(KINDS[name].by_temperature))
            for name in first.arrays
        },
        **{name: joined([getattr(shard, name) for shard in shards]) for name in _INTEGERS},
        entropy=joined([shard.entropy for shard in shards], 1),
        q_gaps=np.concatenate([gaps[index] for index in order]),
        prefixes={size: merge_maps([shard.prefixes[size] for shard in shards]) for size in sorted(first.prefixes)},
    )


def save_maps(path: Path, maps: EpisodeMaps, metadata: Mapping[str, Any]) -> None:
    """Write `maps` to `path` as npz, atomically, with `metadata` (policy, states, settings) as JSON inside.

    Equal maps and metadata give equal bytes. The arrays have the names of the kinds of maps and of
    EpisodeMaps' fields, those of a prefix after `prefix<n>/`; any reader of npz files can use them.
    """
    header = {
        "format": FORMAT_VERSION,
        "kinds": list(maps.arrays),
        "prefixes": sorted(maps.prefixes),
        "metadata": dict(metadata),
    }
    arrays: dict[str, Any] = {"temperatures": np.array(maps.temperatures)}
    for prefix, part in {"": maps, **{f"prefix{size}/": part for size, part in maps.prefixes.items()}}.items():
        arrays |= {prefix + name: array for name, array in part.arrays.items()}
        arrays |= {prefix + name: getattr(part, name) for name in _OTHER_ARRAYS}
    write_npz(path, HEADER_KEY, header, arrays)


def load_maps(path: Path) -> tuple[EpisodeMaps, dict[str, Any]]:
    """The maps in `path` and their metadata. Kinds of maps that `KINDS` does not have are left out.

    Files of format 1, from before the flip map, have four kinds. Raises NrmapError when the file is
    missing, truncated, not a file of maps, of another format version, or when an array is missing
    or has the wrong type or shape.
    """
    header, arrays = read_npz(path, HEADER_KEY, "maps")
    version = header.get("format")
    check(version in (1, FORMAT_VERSION), f"{path} has maps format {version!r}: expected {FORMAT_VERSION}, or 1")
    if version == 1:
        header["kinds"] = list(KINDS_OF_FORMAT_1)
    for key, type_ in (("kinds", list), ("prefixes", list), ("metadata", dict)):
        check(isinstance(header.get(key), type_), f"{path} is damaged: its {key} are unreadable")
    kinds = [name for name in KINDS if name in header["kinds"]]
    prefixes = {size: _from_arrays(path, arrays, kinds, f"prefix{size}/", {}) for size in header["prefixes"]}
    return _from_arrays(path, arrays, kinds, "", prefixes), header["metadata"]


def _from_arrays(
    path: Path, arrays: Mapping[str, Any], kinds: Sequence[str], prefix: str, prefixes: dict[int, EpisodeMaps]
) -> EpisodeMaps:
    for name in ("temperatures", *(prefix + name for name in (*kinds, *_OTHER_ARRAYS))):
        check(name in arrays, f"{path}: the array {name} is missing")
        type_ = np.int64 if name.removeprefix(prefix) in _INTEGERS else np.float64
        check(arrays[name].dtype == type_, f"{path}: {name} is {arrays[name].dtype}, expected {type_.__name__}")
    try:
        return EpisodeMaps(
            temperatures=tuple(arrays["temperatures"].tolist()),
            arrays={name: arrays[prefix + name] for name in kinds},
            **{name: arrays[prefix + name] for name in _OTHER_ARRAYS},
            prefixes=prefixes,
        )
    except NrmapError as error:
        raise NrmapError(f"{path}: {error}") from error
