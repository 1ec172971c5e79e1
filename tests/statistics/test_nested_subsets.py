"""The order of states whose every beginning is spread evenly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nrmap.statistics.nested_subsets import prefix_ranks


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_prefixes_take_turns_among_the_episodes(lengths):
    ids = np.repeat(np.arange(len(lengths)), lengths)
    ranks = prefix_ranks(ids)
    assert sorted(ranks.tolist()) == list(range(len(ids)))
    for size in range(1, len(ids) + 1):
        counts = np.bincount(ids[ranks < size], minlength=len(lengths))
        waiting = counts < lengths
        assert counts.max() <= counts[waiting].min(initial=max(lengths)) + 1


@pytest.mark.parametrize("size", [16, 64, 256])
def test_prefixes_are_spread_over_the_episodes(size):
    episodes, per_episode = 16, 64
    ids = np.repeat(np.arange(episodes), per_episode)
    chosen = np.flatnonzero(prefix_ranks(ids) < size)
    places = (chosen % per_episode + 0.5) / per_episode
    # All together: every sixteenth of the game has its share. In each episode: no gap beyond its share.
    assert np.histogram(places, bins=16, range=(0, 1))[0].tolist() == [size // 16] * 16
    for episode in range(episodes):
        steps = np.sort(chosen[ids[chosen] == episode])
        assert np.diff(steps).max(initial=0) <= per_episode * 16 // size


@pytest.mark.parametrize("size", [2, 4, 16, 18, 64])
def test_of_two_policies_one_behind_the_other_both_have_their_share(size):
    ids = np.repeat(np.arange(32), 16)
    from_the_first = (ids[prefix_ranks(ids) < size] < 16).sum()
    assert abs(2 * from_the_first - size) <= 1
