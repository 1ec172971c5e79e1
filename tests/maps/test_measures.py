"""The records of tiny maps against closed forms, and each quantile under its own probability."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.maps.grid import grid_excess
from nrmap.maps.measures import map_records
from nrmap.support.records import Record, select


def records_of(by_episode, ties=0, q_gaps=(0.0,)):
    """The records of the flip map [E, …] alone; the first episode has all the states and ties."""
    first = np.arange(len(by_episode)) == 0
    maps = EpisodeMaps(
        temperatures=(1.0,), arrays={"flip_map": np.array(by_episode)}, episode_ids=np.arange(len(by_episode)),
        states_per_episode=len(q_gaps) * first, entropy=np.zeros((1, len(by_episode))), ties=ties * first,
        q_gaps=np.array(q_gaps),
    )  # fmt: skip
    return map_records(maps, partial(Record, game="Freeway", method="toy", seed=0))


def value_of(records, metric, **fields):
    (record,) = select(records, metric=metric, **fields)
    return record.value


@given(st.integers(1, 12), st.integers(1, 50).map(lambda tenths: tenths / 10))
def test_a_map_of_one_height_on_some_of_its_pixels(pixels, height):
    """One pixel, a flat map, and all between."""
    records = records_of(height * (np.arange(12) < pixels).reshape(1, 2, 2, 3))
    assert value_of(records, "sparsity") == pytest.approx(pixels**0.5)
    assert value_of(records, "effective_pixels") == pytest.approx(pixels)
    for metric, top in (("map_entropy", height), ("relative_map_entropy", 1)):
        total = pixels * math.exp(top) + 12 - pixels
        # −log p is log(total) − M.
        expected = math.log(total) - pixels * math.exp(top) * top / total
        assert value_of(records, metric) == pytest.approx(expected)


def test_rates_are_per_state_and_pixel_and_gaps_have_their_quantiles():
    flips = np.array([[[3, 0, 1], [0, 2, 0]], [[0, 0, 0], [1, 0, 0]]], dtype=float)  # [E, H, W]
    records = records_of(flips, ties=5, q_gaps=np.random.default_rng(0).permutation(101) / 10)
    assert value_of(records, "flip_pair_rate") == pytest.approx(7 / (101 * 6))
    assert value_of(records, "tie_pair_rate") == pytest.approx(5 / (101 * 6))
    quantiles = {record.quantile: record.value for record in select(records, metric="q_gap_quantile")}
    assert {0.01, 0.5, 0.99} <= quantiles.keys()
    assert list(quantiles.values()) == pytest.approx([10 * quantile for quantile in quantiles])


def test_the_grid_is_that_of_the_sum_over_episodes_and_channels():
    maps = np.random.default_rng(1).random((2, 3, 72, 66))
    maps[0, 2, ::8] += 0.3
    records, expected = records_of(maps), grid_excess(maps.sum(axis=(0, 1)))
    directions = {None: expected.value, "vertical": expected.vertical, "horizontal": expected.horizontal}
    found = {record.direction: record.value for record in select(records, metric="grid_excess")}
    assert found == pytest.approx(directions)
    assert value_of(records, "grid_p_value") == expected.p_value
    for name, quantiles in (("null", expected.null_quantiles), ("crop", expected.crop_quantiles)):
        found = {record.quantile: record.value for record in select(records, metric=f"grid_{name}_quantile")}
        assert found == pytest.approx(dict(zip((0.05, 0.5, 0.95), quantiles, strict=True)))
