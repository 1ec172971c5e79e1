"""Which states come first where a measure is shown against the number of states."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import qmc


def prefix_ranks(episode_ids: ArrayLike) -> NDArray[np.int64]:
    """The place of every state [N] in one fixed order whose every beginning is spread evenly.

    S against N needs nested sets of states that differ in size alone. The order takes one state
    of every episode in turn, and within an episode the van der Corput sequence says which next,
    so that any number of states is spread over the whole episode. A second such sequence shifts
    the episodes against one another: also the first state of each comes from all over the game.
    The states of an episode are assumed to be in the order of play.
    """
    ids = np.asarray(episode_ids, dtype=np.int64)
    unique = np.unique(ids)
    shifts = _van_der_corput(len(unique))
    turns, states = [], []
    for shift, episode in zip(shifts, unique, strict=True):
        members = np.flatnonzero(ids == episode)
        # 4n points of the sequence hit each of n equal cells at least once.
        cells = ((_van_der_corput(4 * len(members)) + shift) % 1 * len(members)).astype(np.int64)
        _, first_hits = np.unique(cells, return_index=True)
        states.append(members[cells[np.sort(first_hits)]])
        turns.append(np.arange(len(members)))
    order = np.concatenate(states)[np.argsort(np.concatenate(turns), kind="stable")]
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[order] = np.arange(len(ids))
    return ranks


def _van_der_corput(count: int) -> NDArray[np.float64]:
    points: NDArray[np.float64] = qmc.Halton(d=1, scramble=False).random(count)[:, 0]  # 0, 1/2, 1/4, 3/4, 1/8, …
    return points
