"""Which states come first where a measure is shown against the number of states."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def prefix_ranks(episode_ids: ArrayLike) -> NDArray[np.int64]:
    """The place of every state [N] in one fixed order whose every beginning is spread evenly.

    S against N needs nested sets of states that differ in size alone. The order takes one state
    of every episode in turn, and within an episode the van der Corput sequence says which next,
    so that any number of states is spread over the whole episode. A second such sequence shifts
    the episodes against one another: also the first state of each comes from all over the game.
    A third says which episode's turn is next: where episodes of one policy lie behind those of
    another, both have their share from the start. The states of an episode are assumed to be in
    the order of play.
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
    """The first `count` points of the sequence 0, 1/2, 1/4, 3/4, 1/8, …: each lies in a largest gap before it."""
    numbers, points = np.arange(count), np.zeros(count)
    for bit in range(count.bit_length()):  # the binary digits in reverse, behind the point
        points += (numbers >> bit & 1) / 2 ** (bit + 1)
    return points


def _spread(count: int, shift: float) -> NDArray[np.int64]:
    """0 … `count` − 1, in the order in which the sequence moved by `shift` first hits each of `count` equal cells."""
    # 4n points of the sequence hit each of n equal cells at least once.
    cells = ((van_der_corput(4 * count) + shift) % 1 * count).astype(np.int64)
    _, first_hits = np.unique(cells, return_index=True)
    order: NDArray[np.int64] = cells[np.sort(first_hits)]
    return order
