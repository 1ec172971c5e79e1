"""Maps against algorithms 1 and 2 as plain loops; channels, threads and mistakes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from paper_algorithms import algorithms_1_and_2
from swept_maps import CLEAN, Q_VALUES, SPEC, ablated, chunked, identical, random_network, random_states, sweep

from nrmap.ablation import AblatedChunk
from nrmap.maps.kinds import KINDS, Ablated
from nrmap.maps.sweep import sweep_maps
from nrmap.support.errors import NrmapError


@pytest.mark.parametrize("channels", [1, 2])
def test_the_algorithms_of_the_paper(channels):
    spec = replace(SPEC, in_channels=channels)
    network, states = random_network(0, spec), random_states(1, 7, spec)
    temperatures = (0.1, 1.0, 10.0)
    maps = sweep(*ablated(network, states), temperatures=temperatures).total()
    for temperature in temperatures:
        expected = algorithms_1_and_2(network, states, temperature)
        assert expected.keys() == {*KINDS, "ties"}
        for name in ("kmap", "margin_drop", "flip_map"):
            np.testing.assert_allclose(maps[name], expected[name], atol=1e-12)
        np.testing.assert_allclose(maps["hmap", temperature], expected["hmap"], rtol=1e-12)
        np.testing.assert_allclose(maps["kl", temperature], expected["kl"], rtol=1e-9, atol=1e-13)
    assert (maps["kmap"] > 0).sum() > 5
    assert maps.num_states == 7


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_kind_reads_a_number_that_all_actions_of_an_ablation_share(kind):
    # With `differences_only` the engine leaves V(s) out.
    rng = np.random.default_rng(0)
    clean, changed, shift = rng.normal(size=4), rng.normal(size=(50, 4)), rng.normal(size=(50, 1))
    plain, shifted = (
        kind.summand(Ablated.of(clean, q_values, rounding_floor=0.0).at(0.7)) for q_values in (changed, changed + shift)
    )
    np.testing.assert_allclose(shifted, plain, atol=1e-12)
    assert np.ptp(plain) > 0.1


def test_channels_ablated_apart():
    spec = replace(SPEC, in_channels=2)
    q_values, clean = ablated(random_network(10, spec), random_states(11, 4, spec), by_channel=True)
    maps = sweep(q_values, clean, [0, 0, 1, 1], temperatures=(1.0, 2.0), prefix_sizes=(2,))
    assert maps["kmap"].shape == (2, 2, 9, 8)
    for channel in range(2):
        one = sweep(q_values[:, channel], clean, [0, 0, 1, 1], temperatures=(1.0, 2.0))
        for kind, temperature, map_ in one.each():
            assert np.array_equal(map_, maps[kind.name, temperature][:, channel])


@pytest.mark.bitwise
def test_threads_change_no_bit():
    of_workers = [sweep(Q_VALUES, CLEAN, [0, 0, 1, 2], size=1, prefix_sizes=[3], workers=workers) for workers in (1, 3)]
    assert identical(*of_workers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"temperatures": (1.0, bad)}, f"temperature {bad}") for bad in (0.0, -2.0, math.nan, math.inf, 1e-320)),
        ({"temperatures": ()}, "no temperature"),
        *(({"floor": bad}, f"rounding floor {bad}") for bad in (-1.0, math.nan)),
        ({"episode_ids": [0, 0, 1]}, "beyond the 3 states"),
        ({"episode_ids": [0, 0, 1, 1, 1]}, "of 4 states: expected 5"),
        ({"episode_ids": []}, r"expected \[N\]"),
        ({"prefix_sizes": (0,)}, "prefix of 0 states"),
        ({"prefix_sizes": (5,)}, "there are only 4"),
        ({"ranks": [0, 1]}, "ranks of shape"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(NrmapError, match=message):
        sweep(Q_VALUES, CLEAN, **options)


NOT_FINITE = Q_VALUES.clone(), CLEAN.clone()
NOT_FINITE[0][2, 1, 1, 3], NOT_FINITE[1][3, 0] = math.inf, math.nan


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (chunked(Q_VALUES, CLEAN, 2)[::-1], "starts at state 2: expected 0"),
        ([AblatedChunk(0, Q_VALUES, CLEAN[:, :3])], r"expected \[n, \(C,\) H, W, A\]"),
        ([AblatedChunk(0, Q_VALUES[..., :1], CLEAN[:, :1])], "A ≥ 2"),
        ([], "of 0 states: expected 4"),
        (chunked(NOT_FINITE[0], CLEAN, 2), "for state 2 or its ablations"),
        (chunked(Q_VALUES, NOT_FINITE[1], 2), "for state 3 or its ablations"),
    ],
)
def test_chunks_out_of_order_of_wrong_shape_or_not_finite_are_refused(chunks, message, workers):
    with pytest.raises(NrmapError, match=message):
        sweep_maps(chunks, episode_ids=[0] * 4, temperatures=(1.0,), rounding_floor=0.0, workers=workers)


@pytest.mark.cuda
def test_maps_from_a_cuda_device():
    here, there = sweep(Q_VALUES, CLEAN).total(), sweep(Q_VALUES.cuda(), CLEAN.cuda()).total()
    assert np.array_equal(here["kmap"], there["kmap"])
    np.testing.assert_allclose(there["hmap", 1.0], here["hmap", 1.0], rtol=1e-12)
    np.testing.assert_allclose(there["kl", 1.0], here["kl", 1.0], rtol=1e-9)
