"""Sparsity and map entropy: known maps, exact decimals, scipy, and properties at every scale."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats
from scipy.special import softmax

from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import map_entropy, relative_map_entropy, sparsity, sparsity_of_rows
from nrmap.statistics.intervals import Estimate
from nrmap.support.errors import NrmapError

# Multiples of 1/1000, so that a scale does not push single pixels out of the floats.
PIXELS = st.integers(-(10**6), 10**6).map(lambda value: value / 1000)
MAPS = arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=PIXELS)
SCALES = st.sampled_from([1e-300, 1e-160, 1e-9, 1.0, 1e9, 1e160, 1e300])


def test_a_map_of_zeros_is_undefined_and_says_why():
    why = KINDS["kmap"].zero_reason(256)
    assert why == "the map is 0 everywhere: no pixel flips an action to one of lower Q on these 256 states"
    for measure in (sparsity, relative_map_entropy):
        assert measure(np.zeros((3, 3)), why) == Estimate(None, note=why)
        assert measure(np.zeros((3, 3))).note == "the map is 0 everywhere"
    # The entropy of the softmax of zeros is defined: that of a flat map. And at the end of the floats:
    assert map_entropy(np.zeros((84, 84))) == pytest.approx(math.log(7056), rel=1e-12)
    ends = [1e308, -1e308], [1e308, 1e308, -1e308], [5.0]
    assert [map_entropy(values) for values in ends] == pytest.approx([0, math.log(2), 0], abs=0)


@given(MAPS, SCALES)
def test_sparsity_has_no_scale_no_order_and_bounds(values, scale):
    measure = sparsity(values)
    if not values.any():
        assert measure.value is None
        return
    assert 1 - 1e-12 <= measure.value <= math.sqrt(values.size) * (1 + 1e-12)
    assert measure.value == pytest.approx(np.abs(values).sum() / np.linalg.norm(values.ravel()), rel=1e-12)
    assert sparsity(values * scale).value == pytest.approx(measure.value, rel=1e-9)
    assert sparsity(-values[::-1]).value == pytest.approx(measure.value, rel=1e-12)
    relative = relative_map_entropy(values)
    assert relative_map_entropy(values * scale).value == pytest.approx(relative.value, rel=1e-9, abs=1e-12)
    assert relative.value == pytest.approx(stats.entropy(softmax(values / np.abs(values).max()).ravel()), rel=1e-9)


@given(MAPS)
def test_rows_are_single_maps(values):
    rows = np.stack([values, 2 * values, np.zeros_like(values)])
    first, second, third = sparsity_of_rows(rows)
    assert np.isnan(third)
    assert (sparsity(values).value is None) == np.isnan(first)
    if values.any():
        assert first == sparsity(values).value == pytest.approx(second, rel=1e-12)


@given(arrays(np.float64, 9, elements=PIXELS))
def test_map_entropy_keeps_its_digits(values):
    # Values up to 200 apart: entropies down to 200 e^-200, where a softmax in floats leaves 0.
    values = values / 10
    with localcontext() as context:
        context.prec = 110
        weights = [Decimal(value).exp() for value in values.tolist()]
        total = sum(weights)
        exact = -sum(float(weight / total * (weight / total).ln()) for weight in weights)
    assert map_entropy(values) == pytest.approx(exact, rel=1e-9, abs=1e-300)
    assert 0 <= map_entropy(values) <= math.log(9) + 1e-12
    assert map_entropy(values[::-1] + 17.25) == pytest.approx(map_entropy(values), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("measure", [sparsity, map_entropy, relative_map_entropy])
@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf, 0.0], []])
def test_maps_that_are_not_finite_or_empty_are_refused(measure, bad):
    with pytest.raises(NrmapError, match="a map of shape"):
        measure(bad)
