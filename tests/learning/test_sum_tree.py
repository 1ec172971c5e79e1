"""The sum tree against a plain cumulated sum."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nrmap.learning.sum_tree import SumTree

# Integers add exactly in float64, so the tree must agree with np.cumsum to the last boundary.
whole_weights = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)
real_weights = st.lists(st.floats(0, 1e3), min_size=1, max_size=40).filter(lambda weights: sum(weights) > 1e-6)


def filled(weights) -> SumTree:
    tree = SumTree(len(weights))
    tree.fill(np.array(weights, dtype=np.float64))
    return tree


@given(whole_weights)
def test_find_is_a_search_in_the_cumulated_sum(weights):
    tree = filled(weights)
    masses = np.arange(0, sum(weights), 0.5)
    expected = np.searchsorted(np.cumsum(weights), masses, side="right")
    np.testing.assert_array_equal(tree.find(masses), expected)
    assert tree.total == sum(weights)


@given(real_weights, st.integers(0, 2**32 - 1))
def test_find_with_rounding_stays_at_positive_weights(weights, seed):
    tree = filled(weights)
    drawn = np.random.default_rng(seed).random(50) * tree.total
    # The largest mass below the total, and one that rounding has put on it.
    masses = np.concatenate([drawn, [0.0, np.nextafter(tree.total, 0), tree.total]])
    found = tree.find(masses)
    assert (np.array(weights)[found] > 0).all()
    cumulated = np.cumsum(weights)
    slack = 1e-12 * cumulated[-1]
    assert (masses <= cumulated[found] + slack).all()
    assert (masses >= cumulated[found] - np.array(weights)[found] - slack).all()


@given(real_weights, st.lists(st.tuples(st.integers(0, 39), st.floats(0, 1e3)), max_size=30))
def test_changing_weights_one_by_one_equals_filling_anew(weights, changes):
    tree, expected = filled(weights), np.array(weights, dtype=np.float64)
    for index, weight in changes:
        tree[np.array([index % len(weights)])] = weight
        expected[index % len(weights)] = weight
    np.testing.assert_array_equal(tree.weights, expected)
    # Bit for bit: a resumed run fills the tree that the uninterrupted one has been changing.
    assert tree.total == filled(expected).total
    if tree.total > 0:
        masses = np.linspace(0, tree.total, 33)
        np.testing.assert_array_equal(tree.find(masses), filled(expected).find(masses))


def test_many_weights_are_changed_at_once_and_the_last_of_equal_indices_wins():
    tree = filled([1.0, 2.0, 3.0, 4.0, 5.0])
    tree[np.array([0, 3, 3])] = np.array([7.0, 8.0, 9.0])
    np.testing.assert_array_equal(tree[np.array([3, 0])], [9, 7])
    copy = tree.weights
    np.testing.assert_array_equal(copy, [7, 2, 3, 9, 5])
    copy[:] = 0
    assert tree.total == 26
