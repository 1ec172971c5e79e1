"""The arithmetic of maps: exact decimals, limits, invariants, sums, shards, prefixes and equal bits."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from swept_maps import identical, sweep

from nrmap.maps.episode_maps import merge_maps
from nrmap.statistics.nested_subsets import prefix_ranks


def exact_kl(q, q_ablated, temperature):
    with localcontext() as context:
        context.prec = 80
        logits = [[Decimal(value) / Decimal(temperature) for value in values] for values in (q, q_ablated)]
        logs = [[value - sum(other.exp() for other in row).ln() for value in row] for row in logits]
        return max(0.0, float(sum(a.exp() * (a - b) for a, b in zip(*logs, strict=True))))


@given(
    st.lists(st.integers(-3000, 3000).map(lambda q: q / 1000), min_size=3, max_size=3),
    st.lists(st.integers(-1000, 1000).map(lambda change: change / 1000), min_size=3, max_size=3),
    st.sampled_from([1e-6, 1e-3, 1.0, 30.0]),
    st.sampled_from([0.05, 1.0, 100.0]),
)
@settings(max_examples=60, deadline=None)
def test_kl_keeps_its_digits_for_small_changes(q, change, scale, temperature):
    q_ablated = [value + scale * delta for value, delta in zip(q, change, strict=True)]
    kl = sweep(np.array([[[q_ablated]]]), np.array([q]), temperatures=(temperature,))["kl", temperature].item()
    # log π carries an absolute error of a few ulp of Q/T; the change that makes the KL is that uncertain.
    ulp = 1e-15 * (1 + max(map(abs, q + q_ablated)) / temperature)
    exact = exact_kl(q, q_ablated, temperature)
    assert kl == pytest.approx(exact, rel=1e-9, abs=ulp * (math.sqrt(exact) + exact) + ulp**2)


def test_hot_and_cold():
    rng = np.random.default_rng(7)
    clean, q_ablated = rng.normal(size=(1, 4)), rng.normal(size=(1, 6, 5, 4))
    hot, cold = 1e7, 1e-3
    maps = sweep(q_ablated, clean, temperatures=(hot, cold))
    # T → ∞: π is uniform, H = log A, and T² KL is half the variance of the change over the actions.
    np.testing.assert_allclose(maps["hmap", hot], math.log(4), rtol=1e-6)
    np.testing.assert_allclose(maps["kl", hot][0] * hot**2, (q_ablated - clean)[0].var(-1) / 2, rtol=1e-5)
    # T → 0: π is a*, and T·KL = T·H is how far another action has overtaken a*.
    overtaken = q_ablated[0].max(-1) - q_ablated[0][..., clean[0].argmax()]
    np.testing.assert_allclose(maps["kl", cold][0] * cold, overtaken, atol=2e-3)
    np.testing.assert_allclose(maps["hmap", cold], maps["kl", cold], atol=1e-9)


def test_changes_up_to_the_rounding_floor_are_none():
    clean = torch.tensor([[1.0, 1.0 - 1e-7, 0.0]], dtype=torch.float64)
    change = torch.tensor([[0.0, 2e-7, 0.0], [0.0, 2.1e-6, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    maps = sweep((clean + change)[None, None], clean, floor=1e-6, temperatures=(1.0, 0.1))
    assert maps["kmap"][0, 0].tolist() == [0, pytest.approx(1e-7), 0]
    for temperature, entropy in zip(maps.temperatures, maps.entropy, strict=True):
        assert maps["kl", temperature][0, 0, [0, 2]].tolist() == [0, 0]
        assert (maps["hmap", temperature][0, 0, [0, 2]] == entropy).all()
        assert maps["kl", temperature][0, 0, 1] > 0
    assert maps["margin_drop"][0, 0, [0, 2]].tolist() == [0, 0]
    assert maps["flip_map"][0, 0].tolist() == [0, 1, 0]
    assert maps.ties.item() == 0


def test_ties_go_to_the_first_action_and_are_counted():
    clean = torch.tensor([[2.0, 5.0, 5.0]])
    q_ablated = torch.tensor([[[[2.0, 5.0, 5.0], [7.0, 7.0, 1.0], [5.0, 4.0, 5.5]]]])
    maps = sweep(q_ablated, clean)
    # Untouched; a tie won by action 0; a real flip to action 2, which costs nothing.
    assert maps["kmap"][0, 0].tolist() == [0, 3, 0]
    assert maps["flip_map"][0, 0].tolist() == [0, 1, 1]
    assert (maps.ties.item(), maps.q_gaps.tolist()) == (1, [0])
    assert sweep(q_ablated, clean, floor=0.25).ties.item() == 2


@st.composite
def q_arrays(draw):
    count, height, width, actions = (draw(st.integers(1, top)) for top in (6, 3, 3, 17))
    seed, scale = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1e-3, 1.0, 50.0]))
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(count, actions + 1)) * scale
    change = rng.normal(size=(count, height, width, actions + 1)) * (rng.random((count, height, width, 1)) < 0.7)
    ids = rng.integers(0, 4, count) * 7
    return clean[:, None, None] + change * scale * draw(st.sampled_from([1e-6, 0.1, 1.0])), clean, ids


@given(q_arrays(), st.sampled_from([0.01, 1.0, 40.0]))
@settings(max_examples=50, deadline=None)
def test_invariants(arrays, temperature):
    q_values, clean, ids = arrays
    maps = sweep(q_values, clean, ids, temperatures=(temperature,))
    assert (maps["kmap"] >= 0).all()
    h, kl = (maps[kind, temperature] for kind in ("hmap", "kl"))
    assert (kl >= 0).all()
    np.testing.assert_allclose(h - kl, np.broadcast_to(maps.entropy[0, :, None, None], kl.shape),
                               rtol=1e-9, atol=1e-9 * (1 + np.abs(clean).max() / temperature))  # fmt: skip
    assert (maps.entropy <= maps.states_per_episode * math.log(clean.shape[1]) + 1e-12).all()
    assert maps.episode_ids.tolist() == sorted(set(ids.tolist()))
    assert maps.num_states == len(clean)
    gaps = np.diff(np.sort(clean)[:, -2:]).ravel()[np.argsort(ids, kind="stable")]  # episode by episode
    np.testing.assert_allclose(maps.q_gaps, gaps, rtol=1e-12)
    # The unit of Q is arbitrary: with Q and T doubled, K doubles and the policy is the same.
    doubled = sweep(2 * q_values, 2 * clean, ids, temperatures=(2 * temperature,))
    for kind, at, map_ in maps.each():
        factor = 2 if kind.name in ("kmap", "margin_drop") else 1
        assert np.array_equal(doubled[kind.name, at and 2 * at], factor * map_)
    # K costs where the action flips, and only there.
    assert not maps["kmap"][maps["flip_map"] == 0].any()


@pytest.mark.bitwise
@given(q_arrays(), st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_maps_add_and_merge(arrays, size, seed):
    q_values, clean, ids = arrays
    prefixes = tuple({1, (1 + len(clean)) // 2, len(clean)})
    ranks = prefix_ranks(ids)
    maps = sweep(q_values, clean, ids, prefix_sizes=prefixes)
    assert identical(maps, sweep(q_values, clean, ids, size=size, prefix_sizes=prefixes))
    for length, prefix in maps.prefixes.items():
        members = ranks < length
        of_members = sweep(q_values[members], clean[members], ids[members])
        present = np.isin(maps.episode_ids, of_members.episode_ids)
        for kind, temperature, map_ in prefix.each():
            assert np.array_equal(map_[present], of_members[kind.name, temperature])
            assert not map_[~present].any()
        for name in ("states_per_episode", "entropy", "ties"):
            assert np.array_equal(getattr(prefix, name)[..., present], getattr(of_members, name))
        assert np.array_equal(prefix.q_gaps, of_members.q_gaps)
    alone = [sweep(q_values[n : n + 1], clean[n : n + 1]).total() for n in range(len(clean))]
    for kind, temperature, map_ in maps.total().each():
        np.testing.assert_allclose(map_, sum(one[kind.name, temperature] for one in alone), atol=1e-9)
    # Shards of whole episodes, in any order.
    rng = np.random.default_rng(seed)
    shard_of = rng.integers(0, 3, len(maps.episode_ids))[np.searchsorted(maps.episode_ids, ids)]  # [N]
    shards = [
        sweep(q_values[own], clean[own], ids[own], prefix_sizes=prefixes, ranks=ranks[own])
        for own in (shard_of == shard for shard in rng.permutation(np.unique(shard_of)))
    ]
    assert identical(maps, merge_maps(shards))
    # The same episodes under other ids are the same maps in another order.
    renamed = sweep(q_values, clean, -ids)
    for kind, temperature, map_ in maps.each():
        assert np.array_equal(renamed[kind.name, temperature][::-1], map_)


@pytest.mark.bitwise
@pytest.mark.parametrize("actions", [2, 3, 6, 18])
def test_neither_chunks_nor_neighbours_matter(actions):
    """Eleven states in chunks of every size, in episodes and each on its own; in float32, as the engines give them."""
    pixels = (17, 3)  # rows of 51 pixels leave a remainder in every vector width
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(11, actions, generator=generator)
    ablated = clean[:, None, None] + 0.3 * torch.randn(11, *pixels, actions, generator=generator)
    options = {"temperatures": (0.01, 1.0), "prefix_sizes": (4,)}
    episodes = np.repeat([0, 1, 2], [5, 4, 2])
    whole = sweep(ablated, clean, episodes, size=11, **options)
    alone = [sweep(ablated[[n]], clean[[n]], temperatures=(0.01, 1.0)) for n in range(11)]
    for size in range(1, 10):
        assert identical(sweep(ablated, clean, episodes, size=size, **options), whole)
        together = sweep(ablated, clean, range(11), size=size, **options)
        assert np.array_equal(together.entropy, np.concatenate([one.entropy for one in alone], axis=1))
        for kind, temperature, map_ in together.each():
            assert np.array_equal(map_, np.concatenate([one[kind.name, temperature] for one in alone]))
