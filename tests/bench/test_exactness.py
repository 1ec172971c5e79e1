"""Mismatches, ties and differences on hand-made numbers."""

import pytest
import torch

from bench.exactness import TOLERANCE, compare


@pytest.mark.parametrize("size", [0.1, 1.0, 1e4])
def test_a_differing_arg_max_is_a_tie_within_the_tolerance_and_else_a_mismatch(size):
    tolerance = TOLERANCE * max(1.0, size)
    exact = torch.tensor(
        [[size, size - 0.5 * tolerance], [size, size - 1.5 * tolerance], [size, size - 0.5 * tolerance]],
        dtype=torch.float64,
    )
    found = exact.clone()
    found[0, 1] = found[1, 1] = size + 0.01 * tolerance
    result = compare(found, exact)
    assert (result.argmax_mismatches, result.argmax_ties) == (1, 1)
    assert result.max_abs_q_diff == pytest.approx(1.51 * tolerance)
    assert result.max_scaled_q_diff == pytest.approx(1.51 * TOLERANCE)
    assert not result.exact
    assert compare(exact.float().double(), exact.float().double()).exact
    # A large difference without a mismatch is not exact either.
    assert not compare(exact * 2, exact).exact
