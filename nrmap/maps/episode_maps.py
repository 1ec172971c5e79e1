"""Sum, merge, save and load the maps of each episode."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nrmap.maps.kinds import KINDS, FloatArray, MapKind
from nrmap.support.errors import NrmapError, check, named, shortened, unknown_choice
from nrmap.support.files import ArrayForms, array_of, read_npz, write_npz
from nrmap.support.schema import LARGEST, schema, validated

FORMAT_VERSION: Literal[3] = 3
KINDS_OF_FORMAT_1 = ("kmap", "hmap", "kl", "margin_drop")
HEADER_KEY = "nrmap_maps"
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _MapsByKind:
    """Maps of several kinds, looked up by name, or by name and temperature: `maps["kmap"]`, `maps["hmap", 1.0]`.

    `arrays` has an array for each kind, by its key in `KINDS`. Where a kind depends on the temperature,
    the first axis of its array runs over `temperatures`. Looking up an unknown map raises NrmapError.
    """

    temperatures: tuple[float, ...]
    arrays: Mapping[str, FloatArray]

    def __getitem__(self, key: str | tuple[str, float | None]) -> FloatArray:
        name, temperature = key if isinstance(key, tuple) and len(key) == 2 else (key, None)
        with suppress(TypeError, ValueError, OverflowError):  # Fraction, a NumPy or torch number
            temperature = temperature if isinstance(temperature, str | None) else float(temperature)
        if not isinstance(name, str) or name not in self.arrays:
            raise unknown_choice("map", name, self.arrays)
        if not KINDS[name].by_temperature:
            check(
                temperature is None,
                f"map {name!r} has no temperature, found {shortened(temperature)}: use maps[{name!r}]",
            )
            return self.arrays[name]
        if not isinstance(temperature, float | int):
            raise NrmapError(f"map {name!r} needs a temperature: use maps[{name!r}, {self.temperatures[0]}]")
        if temperature not in self.temperatures:
            within = min(max(temperature, -1e300), 1e300)  # whole numbers may be too large for a float
            nearest = min(self.temperatures, key=lambda known: abs(known - within))
            known = shortened(self.temperatures)
            raise NrmapError(f"no temperature {shortened(temperature)}: use maps[{name!r}, {nearest}], of {known}")
        return self.arrays[name][self.temperatures.index(temperature)]

    def each(self) -> Iterator[tuple[MapKind, float | None, FloatArray]]:
        """Yield every map with its kind and its temperature, None if it has none, in the order of `KINDS`."""
        for kind in KINDS.values():
            if kind.name in self.arrays:
                for temperature in self.temperatures if kind.by_temperature else (None,):
                    yield kind, temperature, self[kind.name, temperature]


@dataclass(frozen=True, eq=False)
class TotalMaps(_MapsByKind):
    """Maps summed over `num_states` states, [H, W] or [C, H, W] each."""

    num_states: int

    def at(self, temperature: float) -> "TotalMaps":
        """Return the maps at `temperature` and those that depend on none.

        Raises NrmapError if there are maps at other temperatures only.
        """
        there = {
            name: self[name, temperature][None] if KINDS[name].by_temperature else array
            for name, array in self.arrays.items()
        }
        return TotalMaps((temperature,), there, self.num_states)


@dataclass(frozen=True, eq=False)
class EpisodeMaps(_MapsByKind):
    """The maps of E episodes, each summed over that episode's states.

    Each map is [E, H, W], or [E, C, H, W] if channels were ablated one at a time. Episodes are in ascending order of
    their ids. `prefixes` maps a size n to the maps of the first n states in the order of
    nrmap.statistics.nested_subsets.prefix_ranks; an episode without a state in a prefix has zeros there.

    Raises NrmapError without a map, an episode or a temperature, and for arrays whose shapes do not fit together.
    Raises NrmapError for equal or unordered episode ids, for negative counts, and for temperatures that are equal, not
    finite or not above 0.
    """

    episode_ids: IntArray  # [E]
    states_per_episode: IntArray  # [E]
    entropy: FloatArray  # [T, E], Σ_s entropy(π(s)), in nats; HMAP is the KL map plus this, up to rounding
    ties: IntArray  # [E], (state, pixel) pairs whose ablated arg max is left to rounding
    q_gaps: FloatArray  # [N], Q(s,a*) − max_{a≠a*} Q(s,a) of every state, episode by episode
    prefixes: Mapping[int, "EpisodeMaps"] = field(default_factory=dict)
    players: IntArray | None = None  # [E], numbers of the policies that played the episodes; None: one policy

    def __post_init__(self) -> None:
        check(len(self.arrays) > 0 and len(self.episode_ids) > 0, "maps of no kind or episode: expected at least one")
        positive = all(0 < temperature < np.inf for temperature in self.temperatures)
        different = len({*self.temperatures}) == len(self.temperatures) > 0
        check(positive and different, f"temperatures={self.temperatures}: expected different numbers above 0")
        episodes = self.episode_ids.shape
        each_temperature = (len(self.temperatures), *episodes)
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "states_per_episode": (self.states_per_episode, episodes),
            "ties": (self.ties, episodes),
            "entropy": (self.entropy, each_temperature),
            "q_gaps": (self.q_gaps, (self.num_states,)),
        }
        if self.players is not None:
            expected["players"] = self.players, episodes
        for name, array in self.arrays.items():
            leading = each_temperature if KINDS[name].by_temperature else episodes
            expected[name] = array, leading + self.pixels
        for name, (array, shape) in expected.items():
            found = array.shape
            check(found == shape, f"{name} of {len(self.episode_ids)} episodes is {found}: expected {shape}")
        check(
            bool((self.episode_ids[1:] > self.episode_ids[:-1]).all()),
            "the episodes are not in ascending order of different ids",
        )
        counts = min(self.states_per_episode.min(), self.ties.min())
        check(bool(counts >= 0), f"{counts} states or ties in an episode: expected at least 0")

    @property
    def num_states(self) -> int:
        """N, the number of states of all episodes."""
        return int(self.states_per_episode.sum())

    @property
    def pixels(self) -> tuple[int, ...]:
        """The shape of one map, [H, W] or [C, H, W]."""
        name, array = next(iter(self.arrays.items()))
        return array.shape[1 + KINDS[name].by_temperature :]

    def total(self) -> TotalMaps:
        """Sum the maps over all episodes, in ascending order of the episodes' ids."""
        sums = {name: array.sum(axis=int(KINDS[name].by_temperature)) for name, array in self.arrays.items()}
        return TotalMaps(self.temperatures, sums, self.num_states)


_INTEGERS = ("episode_ids", "states_per_episode", "ties")
_OTHER_ARRAYS = (*_INTEGERS, "entropy", "q_gaps")


def merge_maps(shards: Sequence[EpisodeMaps]) -> EpisodeMaps:
    """Merge maps of different episodes, bit for bit equal to one sweep over all the states.

    `players` is None if any shard has none. Raises NrmapError without shards, for an episode in two shards, and for
    shards that differ in kinds of maps, temperatures, pixels or prefix sizes.
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

    players = [shard.players for shard in shards if shard.players is not None]
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
        players=joined(players) if len(players) == len(shards) else None,
    )


def save_maps(path: Path, maps: EpisodeMaps, metadata: Mapping[str, Any]) -> None:
    """Write `maps` to `path` as npz, atomically, with `metadata` (policy, states, settings) as JSON inside.

    Equal maps and metadata give equal bytes. Arrays are named after the kinds of maps and the fields of EpisodeMaps,
    with `prefix<n>/` in front for the first n states; any reader of npz files can use them. Raises NrmapError for what
    `load_maps` would refuse, for metadata that JSON cannot hold, and if `path` cannot be written.
    """
    players = None if maps.players is None else tuple(maps.players.tolist())
    header = _Header(FORMAT_VERSION, tuple(maps.arrays), tuple(sorted(maps.prefixes)), players, {})
    arrays: dict[str, Any] = {"temperatures": np.array(maps.temperatures, dtype=np.float64)}
    for prefix, part in {"": maps, **{f"prefix{size}/": part for size, part in maps.prefixes.items()}}.items():
        arrays |= {prefix + name: array for name, array in part.arrays.items()}
        arrays |= {prefix + name: getattr(part, name) for name in _OTHER_ARRAYS}
    with named(f"cannot write {path}: "):
        for name, form in _forms(header).items():
            array_of(arrays, name, *form)
        _check_values(arrays)
    write_npz(path, HEADER_KEY, asdict(header) | {"metadata": dict(metadata)}, arrays)


def load_maps(path: Path) -> tuple[EpisodeMaps, dict[str, Any]]:
    """Load the maps and the metadata in `path`. Kinds of maps that `KINDS` does not have are left out.

    Files of the earlier formats 1 (four kinds) and 2 (players in the metadata or nowhere) are upgraded. Raises
    NrmapError when the file is missing, damaged, not a file of maps, or of another format version. Raises NrmapError
    when an array is missing, has the wrong type or shape, or holds NaN, infinite values or magnitudes above `LARGEST`,
    and for what `EpisodeMaps` refuses.
    """
    header, arrays = read_npz(path, HEADER_KEY, "maps", read_header=_read_header, forms=_forms)
    players = None if header.players is None else np.array(header.players, dtype=np.int64)
    with named(f"{path}: "):
        _check_values(arrays)
        prefixes = {size: _from_arrays(arrays, header, f"prefix{size}/") for size in header.prefixes}
        return _from_arrays(arrays, header, "", players=players, prefixes=prefixes), header.metadata


def _check_values(arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        check(bool((abs(array) <= LARGEST).all()), f"{name} holds NaN or infinite values, or some above {LARGEST}")


@schema
class _Header:
    """The JSON header of a file of maps."""

    format: Literal[3]
    kinds: tuple[str, ...]
    prefixes: tuple[Annotated[int, Field(ge=1)], ...]
    players: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] | None
    metadata: dict[str, Any]

    @property
    def known_kinds(self) -> list[str]:
        return [name for name in KINDS if name in self.kinds]


def _read_header(value: Any) -> _Header:
    if isinstance(value, dict):
        if value.get("format") == 1:
            value |= {"format": 2, "kinds": list(KINDS_OF_FORMAT_1)}
        if value.get("format") == 2 and isinstance(value.get("metadata"), dict):
            value |= {"format": FORMAT_VERSION, "players": value["metadata"].pop("players", None)}
    return validated(_Header, value)


def _forms(header: _Header) -> ArrayForms:
    own: dict[str, tuple[type, tuple[int, ...]]] = {
        **{
            name: (np.float64, (3 + KINDS[name].by_temperature, 4 + KINDS[name].by_temperature))
            for name in header.known_kinds
        },
        **dict.fromkeys(_INTEGERS, (np.int64, (1,))),
        "entropy": (np.float64, (2,)),
        "q_gaps": (np.float64, (1,)),
    }
    prefixes = ("", *(f"prefix{size}/" for size in header.prefixes))
    return {"temperatures": (np.float64, (1,)), **{prefix + name: own[name] for prefix in prefixes for name in own}}


def _from_arrays(arrays: Mapping[str, Any], header: _Header, prefix: str, **more: Any) -> EpisodeMaps:
    return EpisodeMaps(
        temperatures=tuple(arrays["temperatures"].tolist()),
        arrays={name: arrays[prefix + name] for name in header.known_kinds},
        **{name: arrays[prefix + name] for name in _OTHER_ARRAYS},
        **more,
    )
