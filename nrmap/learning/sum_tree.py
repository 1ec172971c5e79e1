"""Sampling in proportion to priorities that change (Schaul et al. 2016, appendix B.2.1)."""

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """A binary tree over `size` non-negative weights; changing or sampling k weights costs O(k log size).

    Node i has children 2i and 2i + 1 and holds their sum; the leaves are the weights. Every
    inner node is recomputed from its children, so no rounding error builds up.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._depth = max(size - 1, 1).bit_length()
        self._first_leaf = 1 << self._depth
        self._nodes = np.zeros(2 * self._first_leaf)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._nodes[1])

    @property
    def weights(self) -> NDArray[np.float64]:
        """A copy of all weights, [size]."""
        return self._nodes[self._first_leaf : self._first_leaf + self.size].copy()

    def __getitem__(self, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        return self._nodes[self._first_leaf + indices]

    def __setitem__(self, indices: NDArray[np.integer], weights: NDArray[np.float64] | float) -> None:
        nodes = self._first_leaf + np.asarray(indices)
        self._nodes[nodes] = weights
        for _ in range(self._depth):
            nodes = nodes >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def fill(self, weights: NDArray[np.float64]) -> None:
        """Set all weights [size] at once."""
        self._nodes[self._first_leaf : self._first_leaf + self.size] = weights
        for depth in reversed(range(self._depth)):
            nodes = np.arange(1 << depth, 2 << depth)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, masses: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return, for each of `masses` [B] in [0, total), the first index where the cumulative weight exceeds it."""
        masses = np.array(masses, dtype=np.float64)
        nodes = np.ones(len(masses), dtype=np.int64)
        for _ in range(self._depth):
            nodes = 2 * nodes
            left = self._nodes[nodes]
            # A mass that rounding puts past the last weight must not end in an empty branch.
            goes_right = (masses >= left) & (self._nodes[nodes + 1] > 0)
            masses = np.where(goes_right, masses - left, masses)
            nodes = nodes + goes_right
        return nodes - self._first_leaf
