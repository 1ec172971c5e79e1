"""Maps against algorithms 1 and 2 as plain loops, closed forms and captum."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from paper_algorithms import algorithms_1_and_2
from swept_maps import SPEC, ablated, chunked, identical, random_network, random_states, sweep
from torch import nn

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


def test_by_hand():
    # Q = (3x₀₀ + x₀₁, 2x₁₀, x₁₁) at x = 1 everywhere: (4, 2, 1). Without x₀₀ it is (1, 2, 1).
    weight = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    network[1].weight.data = weight
    maps = sweep(*ablated(network, torch.ones(1, 1, 2, 2)), temperatures=(1.0,))
    assert maps["kmap"][0].tolist() == [[2, 0], [0, 0]]
    assert maps["flip_map"][0].tolist() == [[1, 0], [0, 0]]
    # The margin is 2; it becomes 1 − 2, 3 − 2, 4 − 1 and 4 − 2.
    assert maps["margin_drop"][0].tolist() == [[3, 1], [-1, 0]]
    assert (maps.ties.tolist(), maps.q_gaps.tolist()) == ([0], [2])
    e = math.e
    z = e**4 + e**2 + e
    kl_without_x00 = (e**4 * 3 / z) + math.log((e + e**2 + e) / z)
    np.testing.assert_allclose(maps["kl", 1.0][0], [[kl_without_x00, (e**4 / z) + math.log((e**3 + e**2 + e) / z)],
                                              [(e**2 * 2 / z) + math.log((e**4 + 1 + e) / z),
                                               (e / z) + math.log((e**4 + e**2 + 1) / z)]], rtol=1e-12)  # fmt: skip
    entropy = math.log(z) - (4 * e**4 + 2 * e**2 + e) / z
    np.testing.assert_allclose(maps.entropy, [[entropy]], rtol=1e-14)


def test_captum_feature_ablation():
    network, states = random_network(5), random_states(6, 5)
    maps = sweep(*ablated(network, states), temperatures=(0.3,)).total()
    attribution = FeatureAblation(network)
    with torch.no_grad():
        q = network(states)
        drops = [attribution.attribute(states, target=action) for action in range(4)]  # Q − Q(Z) [5, 1, 9, 8] each
    q_ablated = q[:, :, None, None] - torch.stack([drop[:, 0] for drop in drops], 1)  # [5, A, 9, 8]
    chosen = q_ablated.argmax(1)  # [5, 9, 8]
    k = q.amax(1)[:, None, None] - q[torch.arange(5)[:, None, None], chosen]
    np.testing.assert_allclose(maps["kmap"], k.sum(0), atol=1e-12)
    policy, log_ablated = torch.softmax(q / 0.3, 1), torch.log_softmax(q_ablated / 0.3, 1)
    divergence = nn.functional.kl_div(log_ablated, policy[:, :, None, None].expand_as(log_ablated), reduction="none")
    np.testing.assert_allclose(maps["kl", 0.3], divergence.sum((0, 1)), rtol=1e-8, atol=1e-13)


def test_channels_ablated_apart():
    spec = replace(SPEC, in_channels=2)
    network, states = random_network(10, spec), random_states(11, 4, spec)
    q_values, clean = ablated(network, states, by_channel=True)
    maps = sweep(q_values, clean, [0, 0, 1, 1], temperatures=(1.0, 2.0), prefix_sizes=(2,))
    assert maps["kmap"].shape == (2, 2, 9, 8)
    for channel in range(2):
        one = sweep(q_values[:, channel], clean, [0, 0, 1, 1], temperatures=(1.0, 2.0))
        for kind, temperature, map_ in one.each():
            assert np.array_equal(map_, maps[kind.name, temperature][:, channel])


@pytest.mark.bitwise
def test_threads_change_no_bit():
    q_values, clean = ablated(random_network(12), random_states(13, 7))
    ids = [0, 0, 1, 1, 1, 2, 2]
    alone, beside = (sweep(q_values, clean, ids, (0.1, 1.0), prefix_sizes=[4], workers=n) for n in (1, 3))
    assert identical(alone, beside)
    backwards = reversed(chunked(q_values, clean)[:2])
    with pytest.raises(NrmapError, match="chunk starts at state 3"):
        sweep_maps(backwards, episode_ids=ids, temperatures=[1.0], rounding_floor=0.0, workers=3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_maps_from_a_cuda_device():
    q_values, clean = ablated(random_network(12), random_states(13, 6))
    here, there = sweep(q_values, clean).total(), sweep(q_values.cuda(), clean.cuda()).total()
    assert np.array_equal(here["kmap"], there["kmap"])
    np.testing.assert_allclose(there["hmap", 1.0], here["hmap", 1.0], rtol=1e-12)
    np.testing.assert_allclose(there["kl", 1.0], here["kl", 1.0], rtol=1e-9)
