"""An order of states whose prefixes are spread evenly, for curves against the number of states."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def prefix_ranks(episode_ids: ArrayLike) -> NDArray[np.int64]:
    """Return the rank of every state [N] in a fixed order whose prefixes are spread evenly over episodes and time.

    Ranks begin at 0. A curve of a measure against N needs nested sets of states that differ in size alone. The order
    takes one state of each episode in turn. Van der Corput sequences have three uses: they choose the next state within
    an episode, order the episodes, so that pooled policies alternate, and shift the episodes against one another, so
    that even their first states cover the whole game. `episode_ids` are integers [N], N ≥ 1; the states of an episode
    must be in the order of play.
    """
    ids = np.asarray(episode_ids, dtype=np.int64)
    unique = np.unique(ids)
    unique = unique[_spread(len(unique), shift=0.0)]
    turns, states = [], []
    for shift, episode in zip(van_der_corput(len(unique)), unique, strict=True):
        members = np.flatnonzero(ids == episode)
        states.append(members[_spread(len(members), shift)])
        turns.append(np.arange(len(members)))
    order = np.concatenate(states)[np.argsort(np.concatenate(turns), kind="stable")]
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[order] = np.arange(len(ids))
    return ranks


def van_der_corput(count: int) -> NDArray[np.float64]:
    """The first `count` points of the sequence 0, 1/2, 1/4, 3/4, 1/8, …: each point halves a largest gap."""
    numbers, points = np.arange(count), np.zeros(count)
    for bit in range(count.bit_length()):  # the binary digits of the number, mirrored at the point
        points += (numbers >> bit & 1) / 2 ** (bit + 1)
    return points


def _spread(count: int, shift: float) -> NDArray[np.int64]:
    """Return the numbers of `count` equal cells of [0, 1), in the order in which points first hit them.

    The points are van der Corput's sequence plus `shift`, modulo 1.
    """
    # 4n points of the sequence hit each of n equal cells at least once.
    cells = ((van_der_corput(4 * count) + shift) % 1 * count).astype(np.int64)
    _, first_hits = np.unique(cells, return_index=True)
    return cells[np.sort(first_hits)]
