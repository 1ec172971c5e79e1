"""Make the records of maps: sparsity, effective pixels, map entropy and grid number, with intervals over episodes."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.maps.episode_maps import EpisodeMaps, load_maps
from nrmap.maps.grid import grid_excess, grid_excess_of_rows, smallest_side
from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import map_entropy, relative_map_entropy, sparsity_of_rows, sparsity_of_sum
from nrmap.statistics.intervals import estimate_of_sum
from nrmap.support.errors import check
from nrmap.support.files import sha256_of_file
from nrmap.support.records import GAP_QUANTILES, Metrics, Record, RecordFactory, read_metrics


def read_measured(path: Path) -> Metrics:
    """Read the metrics in `path`, and check their kinds of maps.

    Raises NrmapError as `read_metrics` does, for a file without records, and for an unknown kind of map.
    """
    metrics = read_metrics(path)
    check(bool(metrics.records), f"{path} has no records")
    for record in metrics.records:
        check(record.map_kind in (None, *KINDS), f"{path} has an unknown kind of map: {record.map_kind!r}")
    return metrics


def load_measured(path: Path, inputs: Mapping[str, Any]) -> EpisodeMaps:
    """Load the maps in `path`, and check that they belong to the `inputs` of their metrics.

    Each input, such as "policy_sha256", must equal the metadata's value of that name, and "maps_sha256" the hash of the
    file. A name that either side lacks is not compared. Raises NrmapError as `load_maps` does, and for an unequal
    input.
    """
    maps, metadata = load_maps(path)
    found = {**metadata, "maps_sha256": sha256_of_file(path)}
    for name in dict.fromkeys(("policy_sha256", "states_sha256", "maps_sha256", *inputs)):
        expected = inputs.get(name)
        theirs = found.get(name, expected)
        check(expected in (None, theirs), f"{path} holds other maps: its {name} is {theirs}, expected {expected}")
    return maps


def map_records(maps: EpisodeMaps, make: RecordFactory) -> list[Record]:
    """Make all records of the maps of one policy on one set of states; `make` fills in the policy and the states.

    Each kind of map, at each temperature if it depends on one, has a "sparsity" (eq. 9), "effective_pixels" (S²),
    "map_entropy" (UAI eq. 8, of the sum over states), "relative_map_entropy" (of M / max |M|) and the records of
    `_grid_records`. It also has a "sparsity" for each of `maps.prefixes`. "flip_pair_rate" and "tie_pair_rate" are the
    fractions of (state, pixel) pairs that flip the arg max or leave it to rounding; "q_gap_quantile" are quantiles of
    the Q-gap. Raises NrmapError for maps without a flip map, and for NaN or infinite values.
    """
    one_policy = np.zeros(len(maps.episode_ids), dtype=np.int64)
    players = one_policy if maps.players is None else maps.players
    make = partial(make, num_states=maps.num_states, episodes=len(maps.episode_ids))
    records = [
        record
        for kind, temperature, by_episode in maps.each()
        for record in _records_of_map(
            partial(make, map_kind=kind.name, temperature=temperature),
            by_episode,
            players,
            kind.zero_reason(maps.num_states),
        )
    ]
    for size, prefix in sorted(maps.prefixes.items()):
        seen = prefix.states_per_episode > 0  # [E]
        for kind, temperature, of_all in prefix.each():
            found = sparsity_of_sum(of_all[seen], kind.zero_reason(size), players[seen])
            fields = {"map_kind": kind.name, "temperature": temperature, "num_states": size, "prefix": True}
            records.append(make(metric="sparsity", **fields, episodes=int(seen.sum()), **asdict(found)))
    pairs = maps.num_states * int(np.prod(maps.pixels))
    records.append(make(metric="flip_pair_rate", value=float(maps["flip_map"].sum()) / pairs))
    records.append(make(metric="tie_pair_rate", value=int(maps.ties.sum()) / pairs))
    for quantile in GAP_QUANTILES:
        gap = float(np.quantile(maps.q_gaps, quantile))
        records.append(make(metric="q_gap_quantile", value=gap, quantile=quantile))
    return records


def _records_of_map(
    make: RecordFactory, by_episode: NDArray[np.float64], players: NDArray[np.int64], why_zero: str
) -> Iterator[Record]:
    total = by_episode.sum(axis=0)
    yield make(metric="sparsity", **asdict(sparsity_of_sum(by_episode, why_zero, players)))
    bounds = (1.0, float(total.size))
    squared = estimate_of_sum(
        by_episode, lambda sums: sparsity_of_rows(sums) ** 2, bounds=bounds, players=players, why_undefined=why_zero
    )
    yield make(metric="effective_pixels", **asdict(squared))
    yield make(metric="map_entropy", value=map_entropy(total))
    yield make(metric="relative_map_entropy", **asdict(relative_map_entropy(total, why_zero)))
    yield from _grid_records(make, by_episode, players, why_zero)


def _grid_records(
    make: RecordFactory, by_episode: NDArray[np.float64], players: NDArray[np.int64], why_zero: str
) -> Iterator[Record]:
    """Yield records of the grid of period 8 in a map, summed over channels if they were ablated separately.

    "grid_excess" is the grid number of the map's central crop, with an interval. Two more, without an interval, are for
    the vertical and the horizontal direction. "grid_p_value" tests the number against random maps without a grid.
    "grid_null_quantile" are the 5%, 50% and 95% quantiles over these random maps, "grid_crop_quantile" those over the
    crop and crops at random offsets. For a small map or a constant crop one "grid_excess" and "grid_p_value" are None,
    and the others are left out.
    """
    height, width = by_episode.shape[-2:]
    flat = by_episode.reshape(len(by_episode), -1, height, width).sum(axis=1)  # [E, H, W]
    total = flat.sum(axis=0)
    large_enough = min(height, width) >= smallest_side()
    found = grid_excess(total) if large_enough else None
    if found is None:
        why = "the map is constant over the crop" if total.any() else why_zero
        if not large_enough:
            why = f"a {height} × {width} map is too small: sides of {smallest_side()} pixels are needed"
        for metric in ("grid_excess", "grid_p_value"):
            yield make(metric=metric, value=None, note=why)
        return
    excess = estimate_of_sum(flat, grid_excess_of_rows, bounds=(0.0, np.inf), players=players)
    yield make(metric="grid_excess", **asdict(excess))
    for direction in ("vertical", "horizontal"):
        yield make(metric="grid_excess", value=getattr(found, direction), direction=direction)
    yield make(metric="grid_p_value", value=found.p_value)
    for name, quantiles in (("null", found.null_quantiles), ("crop", found.crop_quantiles)):
        for probability, quantile in zip((0.05, 0.5, 0.95), quantiles, strict=True):
            yield make(metric=f"grid_{name}_quantile", value=quantile, quantile=probability)
