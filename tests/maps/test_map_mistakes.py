"""Wrong input is refused by one clear line."""

import math

import pytest
from swept_maps import CLEAN, Q_VALUES, chunked, sweep

from nrmap.ablation import AblatedChunk
from nrmap.maps.sweep import sweep_maps
from nrmap.support.errors import NrmapError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": (1.0, 0.0)}, "temperature 0.0: expected"),
        ({"temperatures": (-2.0,)}, "temperature -2.0: expected"),
        ({"temperatures": (math.nan,)}, "temperature nan: expected"),
        ({"temperatures": (math.inf,)}, "temperature inf: expected"),
        ({"temperatures": ()}, "no temperature"),
        ({"temperatures": (1e-320,)}, "temperature 1e-320 is too small"),
        ({"floor": -1.0}, "rounding floor -1.0"),
        ({"floor": math.nan}, "rounding floor nan"),
        ({"episode_ids": [0, 0, 1]}, "beyond the 3 states"),
        ({"episode_ids": [0, 0, 1, 1, 1]}, "of 4 states: expected 5"),
        ({"episode_ids": []}, "expected \\[N\\]"),
        ({"prefix_sizes": (0,)}, "prefix of 0 states"),
        ({"prefix_sizes": (5,)}, "there are only 4"),
        ({"ranks": [0, 1]}, "ranks of shape"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(NrmapError, match=message):
        sweep(Q_VALUES, CLEAN, **options)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_q_values_that_are_not_finite_are_refused(bad):
    q_values, clean = Q_VALUES.clone(), CLEAN.clone()
    q_values[2, 1, 1, 3], clean[3, 0] = bad, bad
    for number, arrays in ((2, (q_values, CLEAN)), (3, (Q_VALUES, clean))):
        with pytest.raises(NrmapError, match=f"for state {number} or its ablations"):
            sweep(*arrays, size=2)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (list(reversed(chunked(Q_VALUES, CLEAN, 2))), "starts at state 2: expected 0"),
        ([AblatedChunk(0, Q_VALUES, CLEAN[:, :3])], r"expected \[n, \(C,\) H, W, A\]"),
        ([AblatedChunk(0, Q_VALUES[..., :1], CLEAN[:, :1])], "A ≥ 2"),
        ([], "of 0 states: expected 4"),
    ],
)
def test_chunks_out_of_order_or_of_wrong_shape_are_refused(chunks, message):
    with pytest.raises(NrmapError, match=message):
        sweep_maps(chunks, episode_ids=[0] * 4, temperatures=(1.0,), rounding_floor=0.0)
