"""Differences in sparsity: against brute force on small maps, and the paired t against its formula."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from jackknife_loop import jackknife_loop
from swept_maps import sweep

from nrmap.maps.differences import paired_differences, seed_difference
from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.support.records import Record

MAKE = partial(Record, "Freeway", "sa_ddqn", 0, compared_with="ddqn")
EPISODES, SIDE, ONE_PLAYER = 17, 5, np.zeros(17, dtype=np.int64)


def random_maps(seed: int, temperatures=(0.5, 1.0)) -> EpisodeMaps:
    """Maps of 17 episodes of two states, whose pixels matter in some of them."""
    rng, states = np.random.default_rng(seed), 2 * EPISODES
    clean, matters = rng.normal(size=(states, 3)), rng.random((states, SIDE, SIDE, 1)) < 0.4
    ablated = clean[:, None, None] + rng.normal(size=(states, SIDE, SIDE, 3)) * matters
    return sweep(ablated, clean, np.repeat(np.arange(EPISODES), 2), temperatures)


def brute_force(ours, theirs, players) -> tuple[float, float, float]:
    """S(ours) − S(theirs) and its jackknife interval, every sum written out."""

    def s(maps, episodes) -> float:
        total = [sum(float(maps[episode][i, j]) for episode in episodes) for i, j in np.ndindex(SIDE, SIDE)]
        return sum(abs(x) for x in total) / sum(x * x for x in total) ** 0.5

    return jackknife_loop(lambda episodes: s(ours, episodes) - s(theirs, episodes), players.tolist())


@pytest.mark.parametrize("players", [ONE_PLAYER, np.arange(EPISODES) % 2])
def test_every_difference_is_jackknifed_over_episodes_of_both_maps(players):
    ours, theirs = random_maps(1), random_maps(2, temperatures=(1.0, 2.0))
    uneven = ours["kmap"] * np.where(np.arange(EPISODES) % 2, 20.0, 1.0)[:, None, None]
    ours = replace(ours, arrays={**ours.arrays, "kmap": uneven})
    records = paired_differences(MAKE, ours, theirs, players)
    both = (("kmap", None), ("hmap", 1.0), ("kl", 1.0), ("margin_drop", None), ("flip_map", None))
    assert [(record.map_kind, record.temperature) for record in records] == list(both)
    of_players = " of 2 policies" if players.any() else ""
    for record, key in zip(records, both, strict=True):
        expected = brute_force(ours[key], theirs[key], players)
        np.testing.assert_allclose((record.value, record.low, record.high), expected, rtol=1e-10)
        assert record.interval == f"jackknife over 17 episodes{of_players}, for these two policies"


@pytest.mark.parametrize(("ours_is_zero", "note"), [(True, "this S is undefined"), (False, "the other S is undefined")])
def test_a_map_of_zeros_has_no_difference(ours_is_zero, note):
    maps = random_maps(1)
    zero = replace(maps, arrays={**maps.arrays, "kmap": np.zeros((EPISODES, SIDE, SIDE))})
    record, *others = paired_differences(MAKE, *((zero, maps) if ours_is_zero else (maps, zero)), ONE_PLAYER)
    assert (record.value, record.low, record.note[: len(note)]) == (None, None, note)
    assert all(other.value is not None for other in others)


def test_over_seeds_the_interval_is_the_paired_t_of_the_seeds_that_both_have():
    ours, theirs = {3: 21.0, 0: 20.0, 1: 26.0, 2: 23.5}, {0: 50.0, 1: 53.0, 2: 55.5, 7: 90.0}
    record = seed_difference(MAKE, ours, theirs)
    pairs = np.array([20.0 - 50.0, 26.0 - 53.0, 23.5 - 55.5])
    centre = pairs.sum() / 3
    half = 4.302652729911275 * (((pairs - centre) ** 2).sum() / 2 / 3) ** 0.5  # t of 0.975 with two degrees of freedom
    np.testing.assert_allclose((record.value, record.low, record.high), (centre, centre - half, centre + half))
    assert (record.metric, record.interval) == ("sparsity_difference", "paired t over 3 training seeds")


def test_over_seeds_there_is_nothing_of_two_and_nothing_defined_of_an_undefined_one():
    three = {0: 1.0, 1: 2.0, 2: 4.0}
    assert seed_difference(MAKE, three, {0: 1.0, 1: 2.0, 3: 4.0}) is None
    record = seed_difference(MAKE, three | {2: None}, three)
    assert (record.value, record.note) == (None, "S is undefined in 1 of 3 pairs of policies")
    equal = seed_difference(MAKE, dict.fromkeys(range(3), 5.0), dict.fromkeys(range(3), 4.0))
    assert (equal.value, equal.low, equal.interval) == (1.0, None, None)
