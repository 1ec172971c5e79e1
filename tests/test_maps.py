"""Maps against algorithms 1 and 2 as plain loops, closed forms, captum, exact decimals and properties."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from hypothesis import given, settings
from hypothesis import strategies as st
from swept_maps import CLEAN, Q_VALUES, SPEC, Chunk, ablated, chunked, identical, random_network, random_states, sweep
from torch import nn

from nrmap.ablation import AblationSpec, make_engine
from nrmap.episode_maps import merge_maps
from nrmap.errors import NrmapError
from nrmap.maps import sweep_maps
from nrmap.prefixes import prefix_ranks

# --- the paper's algorithms, written as they are printed -------------------------------------------


def first_arg_max(values):
    return max(range(len(values)), key=lambda index: (values[index], -index))


def softmax(values, temperature):
    weights = [math.exp((value - max(values)) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def algorithms_1_and_2(network, states, temperature):
    """K, H, the KL map and the margin-drop map of `states` by one loop over states and two over pixels."""
    q = lambda state: network(state[None])[0].tolist()  # noqa: E731
    height, width = states.shape[-2:]
    k, h, kl, drop = ([[0.0] * width for _ in range(height)] for _ in range(4))
    for state in states:
        q_values = q(state)
        best = first_arg_max(q_values)
        policy = softmax(q_values, temperature)
        margin = q_values[best] - max(value for action, value in enumerate(q_values) if action != best)
        for i in range(height):
            for j in range(width):
                augmented = state.clone()
                augmented[:, i, j] = 0
                q_augmented = q(augmented)
                k[i][j] += q_values[best] - q_values[first_arg_max(q_augmented)]
                log_policy = [math.log(p) for p in softmax(q_augmented, temperature)]
                h[i][j] += -sum(p * log_p for p, log_p in zip(policy, log_policy, strict=True))
                kl[i][j] += sum(p * (math.log(p) - log_p) for p, log_p in zip(policy, log_policy, strict=True))
                drop[i][j] += margin - (q_augmented[best] - max(v for a, v in enumerate(q_augmented) if a != best))
    return tuple(np.array(values) for values in (k, h, kl, drop))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_algorithms_of_the_paper(channels):
    spec = replace(SPEC, in_channels=channels)
    network, states = random_network(0, spec), random_states(1, 7, spec)
    temperatures = (0.1, 1.0, 10.0)
    maps = sweep(*ablated(network, states), temperatures=temperatures).total()
    for index, temperature in enumerate(temperatures):
        k, h, kl, drop = algorithms_1_and_2(network, states, temperature)
        np.testing.assert_allclose(maps.kmap, k, atol=1e-12)
        np.testing.assert_allclose(maps.margin_drop, drop, atol=1e-12)
        np.testing.assert_allclose(maps.hmap[index], h, rtol=1e-12)
        np.testing.assert_allclose(maps.kl[index], kl, rtol=1e-9, atol=1e-13)
    assert (maps.kmap > 0).sum() > 5
    assert maps.num_states == 7


class Scaled(nn.Module):
    """A policy: `network` in precision `dtype` with the scaling of uint8 states inside."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, states):
        return self.network(states.to(self.dtype) * (1 / 255))


@pytest.mark.parametrize(
    ("engine", "differences_only"), [("dense", False), ("incremental", False), ("incremental", True)]
)
def test_the_algorithms_of_the_paper_through_the_engines(engine, differences_only):
    network = random_network(2)
    states = (random_states(3, 12) * 255).byte()
    source = make_engine(
        Scaled(network, torch.float32),
        spec=AblationSpec(), engine=engine, state_shape=(1, 9, 8), differences_only=differences_only,
    )  # fmt: skip
    swept = sweep_maps(
        source.ablate(states), episode_ids=[0] * 12, temperatures=(0.5,), rounding_floor=source.rounding_floor
    )
    maps = swept.total()
    k, h, kl, drop = algorithms_1_and_2(Scaled(network, torch.float64), states, 0.5)
    np.testing.assert_allclose(maps.kmap, k, atol=1e-5)
    np.testing.assert_allclose(maps.margin_drop, drop, atol=1e-5)
    np.testing.assert_allclose(maps.hmap[0], h, atol=1e-5)
    np.testing.assert_allclose(maps.kl[0], kl, atol=1e-5)
    assert (k > 0.01).sum() > 5
    # Where a pixel is dark in every state, nothing is ablated: exactly 0.
    dark = (states == 0).all(dim=0)[0].numpy()
    assert dark.any()
    assert not maps.kl[0][dark].any()


def test_by_hand():
    # Q = (3x₀₀ + x₀₁, 2x₁₀, x₁₁) at x = 1 everywhere: (4, 2, 1). Without x₀₀ it is (1, 2, 1).
    weight = torch.tensor([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    network[1].weight.data = weight
    maps = sweep(*ablated(network, torch.ones(1, 1, 2, 2)), temperatures=(1.0,))
    assert maps.kmap[0].tolist() == [[2, 0], [0, 0]]
    # The margin is 2; it becomes 1 − 2, 3 − 2, 4 − 1 and 4 − 2.
    assert maps.margin_drop[0].tolist() == [[3, 1], [-1, 0]]
    assert (maps.flips.tolist(), maps.ties.tolist(), maps.q_gaps.tolist()) == ([1], [0], [2])
    e = math.e
    z = e**4 + e**2 + e
    kl_without_x00 = (e**4 * 3 / z) + math.log((e + e**2 + e) / z)
    np.testing.assert_allclose(maps.kl[0, 0], [[kl_without_x00, (e**4 / z) + math.log((e**3 + e**2 + e) / z)],
                                              [(e**2 * 2 / z) + math.log((e**4 + 1 + e) / z),
                                               (e / z) + math.log((e**4 + e**2 + 1) / z)]], rtol=1e-12)  # fmt: skip
    entropy = math.log(z) - (4 * e**4 + 2 * e**2 + e) / z
    np.testing.assert_allclose(maps.entropy, [[entropy]], rtol=1e-14)


def test_a_linear_network_in_closed_form():
    # Zeroing x_p takes W[:, p] x_p from Q, so everything follows from W, b and x.
    rng = np.random.default_rng(3)
    weight, bias, states = rng.normal(size=(5, 42)), rng.normal(size=5), rng.random((9, 42))
    network = nn.Sequential(nn.Flatten(), nn.Linear(42, 5)).double()
    network[1].weight.data, network[1].bias.data = torch.tensor(weight), torch.tensor(bias)
    maps = sweep(*ablated(network, torch.tensor(states).reshape(9, 1, 6, 7)), temperatures=(0.5,)).total()
    q = states @ weight.T + bias  # [9, 5]
    q_ablated = q[:, None] - states[:, :, None] * weight.T  # [9, 42, 5]
    k = (q.max(1)[:, None] - np.take_along_axis(q, q_ablated.argmax(2), 1)).sum(0)
    np.testing.assert_allclose(maps.kmap.ravel(), k, atol=1e-12)
    log_z = np.log(np.exp(q_ablated / 0.5).sum(2))  # [9, 42]
    policy = np.exp(q / 0.5) / np.exp(q / 0.5).sum(1, keepdims=True)
    h = (log_z - (policy[:, None] * q_ablated / 0.5).sum(2)).sum(0)
    np.testing.assert_allclose(maps.hmap[0].ravel(), h, rtol=1e-12)
    assert (k > 0).any()


def test_a_one_convolution_network_in_closed_form():
    # Zeroing x_ij takes w[c, i − s·y, j − s·x] x_ij from each window (y, x) that holds the pixel.
    rng = np.random.default_rng(4)
    stride, kernel, channels, side = 2, 3, 4, 9
    w, b = rng.normal(size=(channels, kernel, kernel)), rng.normal(size=channels)
    out = (side - kernel) // stride + 1
    v = rng.normal(size=(3, channels, out, out))
    network = nn.Sequential(nn.Conv2d(1, channels, kernel, stride), nn.ReLU(), nn.Flatten(), nn.Linear(v[0].size, 3))
    network.double()
    network[0].weight.data, network[0].bias.data = torch.tensor(w)[:, None], torch.tensor(b)
    network[3].weight.data, network[3].bias.data = torch.tensor(v).flatten(1), torch.zeros(3, dtype=torch.float64)
    states = rng.random((6, side, side))
    maps = sweep(*ablated(network, torch.tensor(states)[:, None]))
    expected = np.zeros((side, side))
    for x in states:
        hidden = np.empty((channels, out, out))
        for y, z in np.ndindex(out, out):
            window = x[stride * y : stride * y + kernel, stride * z : stride * z + kernel]
            hidden[:, y, z] = (w * window).sum((1, 2)) + b
        q = np.einsum("acyz,cyz->a", v, np.maximum(hidden, 0))
        for i, j in np.ndindex(side, side):
            changed = hidden.copy()
            for y, z in np.ndindex(out, out):
                row, column = i - stride * y, j - stride * z
                if 0 <= row < kernel and 0 <= column < kernel:
                    changed[:, y, z] -= w[:, row, column] * x[i, j]
            q_ablated = q + np.einsum("acyz,cyz->a", v, np.maximum(changed, 0) - np.maximum(hidden, 0))
            expected[i, j] += q.max() - q[q_ablated.argmax()]
    np.testing.assert_allclose(maps.kmap[0], expected, atol=1e-12)
    assert (expected > 0).any()


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
    np.testing.assert_allclose(maps.kmap, k.sum(0), atol=1e-12)
    policy, log_ablated = torch.softmax(q / 0.3, 1), torch.log_softmax(q_ablated / 0.3, 1)
    divergence = nn.functional.kl_div(log_ablated, policy[:, :, None, None].expand_as(log_ablated), reduction="none")
    np.testing.assert_allclose(maps.kl[0], divergence.sum((0, 1)), rtol=1e-8, atol=1e-13)


# --- numbers ----------------------------------------------------------------------------------------


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
    kl = sweep(np.array([[[q_ablated]]]), np.array([q]), temperatures=(temperature,)).kl.item()
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
    np.testing.assert_allclose(maps.hmap[0], math.log(4), rtol=1e-6)
    np.testing.assert_allclose(maps.kl[0, 0] * hot**2, (q_ablated - clean)[0].var(-1) / 2, rtol=1e-5)
    # T → 0: π is a*, and T·KL = T·H is how far another action has overtaken a*.
    overtaken = q_ablated[0].max(-1) - q_ablated[0][..., clean[0].argmax()]
    np.testing.assert_allclose(maps.kl[1, 0] * cold, overtaken, atol=2e-3)
    np.testing.assert_allclose(maps.hmap[1], maps.kl[1], atol=1e-9)


def test_changes_up_to_the_rounding_floor_are_none():
    clean = torch.tensor([[1.0, 1.0 - 1e-7, 0.0]], dtype=torch.float64)
    change = torch.tensor([[0.0, 2e-7, 0.0], [0.0, 2.1e-6, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    maps = sweep((clean + change)[None, None], clean, floor=1e-6, temperatures=(1.0, 0.1))
    assert maps.kmap[0, 0].tolist() == [0, pytest.approx(1e-7), 0]
    assert maps.kl[:, 0, 0, [0, 2]].tolist() == [[0, 0], [0, 0]]
    assert maps.margin_drop[0, 0, [0, 2]].tolist() == [0, 0]
    assert (maps.hmap[:, 0, 0, [0, 2]] == maps.entropy).all()
    assert (maps.kl[:, 0, 0, 1] > 0).all()
    assert (maps.flips.item(), maps.ties.item()) == (1, 0)


def test_ties_go_to_the_first_action_and_are_counted():
    clean = torch.tensor([[2.0, 5.0, 5.0]])
    q_ablated = torch.tensor([[[[2.0, 5.0, 5.0], [7.0, 7.0, 1.0], [5.0, 4.0, 5.5]]]])
    maps = sweep(q_ablated, clean)
    # Untouched; a tie won by action 0; a real flip to action 2, which costs nothing.
    assert maps.kmap[0, 0].tolist() == [0, 3, 0]
    assert (maps.flips.item(), maps.ties.item(), maps.q_gaps.tolist()) == (2, 1, [0])
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
def test_what_always_holds(arrays, temperature):
    q_values, clean, ids = arrays
    maps = sweep(q_values, clean, ids, temperatures=(temperature,))
    assert (maps.kmap >= 0).all()
    assert (maps.kl >= 0).all()
    np.testing.assert_allclose(maps.hmap - maps.kl, np.broadcast_to(maps.entropy[..., None, None], maps.kl.shape),
                               rtol=1e-9, atol=1e-9 * (1 + np.abs(clean).max() / temperature))  # fmt: skip
    assert (maps.entropy <= maps.states_per_episode * math.log(clean.shape[1]) + 1e-12).all()
    assert maps.episode_ids.tolist() == sorted(set(ids.tolist()))
    assert maps.num_states == len(clean) == len(maps.q_gaps)
    # The unit of Q is arbitrary: with Q and T doubled, K doubles and the policy is the same.
    doubled = sweep(2 * q_values, 2 * clean, ids, temperatures=(2 * temperature,))
    assert np.array_equal(doubled.kmap, 2 * maps.kmap)
    assert np.array_equal(doubled.margin_drop, 2 * maps.margin_drop)
    assert np.array_equal(doubled.hmap, maps.hmap)
    assert np.array_equal(doubled.kl, maps.kl)


@given(q_arrays(), st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_maps_add_and_merge(arrays, size, seed):
    q_values, clean, ids = arrays
    prefixes = tuple({1, len(clean)})
    ranks = prefix_ranks(ids)
    maps = sweep(q_values, clean, ids, prefix_sizes=prefixes)
    assert identical(maps, sweep(q_values, clean, ids, size=size, prefix_sizes=prefixes))
    alone = [sweep(q_values[n : n + 1], clean[n : n + 1]).total() for n in range(len(clean))]
    total = maps.total()
    for name in ("kmap", "margin_drop", "hmap", "kl"):
        np.testing.assert_allclose(getattr(total, name), sum(getattr(one, name) for one in alone), atol=1e-9)
    # Shards of whole episodes, in any order.
    rng = np.random.default_rng(seed)
    shard_of = dict(zip(maps.episode_ids.tolist(), rng.integers(0, 3, len(maps.episode_ids)), strict=True))
    shards = []
    for shard in rng.permutation(3):
        members = np.array([shard_of[episode] == shard for episode in ids.tolist()])
        if members.any():
            options = {"prefix_sizes": prefixes, "ranks": ranks[members]}
            shards.append(sweep(q_values[members], clean[members], ids[members], **options))
    assert identical(maps, merge_maps(shards))
    # The same episodes under other ids are the same maps in another order.
    renamed = sweep(q_values, clean, -ids)
    assert np.array_equal(renamed.kmap[::-1], maps.kmap)
    assert np.array_equal(renamed.hmap[:, ::-1], maps.hmap)


# --- prefixes ---------------------------------------------------------------------------------------


def test_a_prefix_is_the_map_of_its_states():
    network, states = random_network(8), random_states(9, 12)
    ids = np.repeat([4, 2, 9], 4)
    q_values, clean = ablated(network, states)
    maps = sweep(q_values, clean, ids, prefix_sizes=(3, 6, 12), temperatures=(1.0, 0.1))
    ranks = prefix_ranks(ids)
    for size in (3, 6):
        members = ranks < size
        assert identical(
            maps.prefixes[size], sweep(q_values[members], clean[members], ids[members], temperatures=(1.0, 0.1))
        )
    assert identical(maps.prefixes[12], replace(maps, prefixes={}))
    assert maps.prefixes[3].num_states == 3


# --- channels, devices, mistakes ---------------------------------------------------------------------


def test_channels_ablated_apart():
    spec = replace(SPEC, in_channels=2)
    network, states = random_network(10, spec), random_states(11, 4, spec)
    q_values, clean = ablated(network, states, by_channel=True)
    maps = sweep(q_values, clean, [0, 0, 1, 1], temperatures=(1.0, 2.0), prefix_sizes=(2,))
    assert maps.kmap.shape == (2, 2, 9, 8)
    assert maps.hmap.shape == maps.kl.shape == (2, 2, 2, 9, 8)
    for channel in range(2):
        one = sweep(q_values[:, channel], clean, [0, 0, 1, 1], temperatures=(1.0, 2.0))
        assert np.array_equal(one.kmap, maps.kmap[:, channel])
        assert np.array_equal(one.kl, maps.kl[:, :, channel])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_maps_from_a_cuda_device():
    q_values, clean = ablated(random_network(12), random_states(13, 6))
    here, there = sweep(q_values, clean).total(), sweep(q_values.cuda(), clean.cuda()).total()
    assert np.array_equal(here.kmap, there.kmap)
    np.testing.assert_allclose(there.hmap, here.hmap, rtol=1e-12)
    np.testing.assert_allclose(there.kl, here.kl, rtol=1e-9)


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
    q_values[2, 1, 1, 3] = bad
    with pytest.raises(NrmapError, match="state 2: "):
        sweep(q_values, CLEAN, size=2)
    clean[3, 0] = bad
    with pytest.raises(NrmapError, match="state 3: "):
        sweep(Q_VALUES, clean)


def test_chunks_out_of_order_or_of_wrong_shape_are_refused():
    good = {"episode_ids": [0] * 4, "temperatures": (1.0,), "rounding_floor": 0.0}
    with pytest.raises(NrmapError, match="starts at state 2: expected 0"):
        sweep_maps(reversed(chunked(Q_VALUES, CLEAN, 2)), **good)
    with pytest.raises(NrmapError, match="expected \\[n, \\(C,\\) H, W, A\\]"):
        sweep_maps([Chunk(0, Q_VALUES, CLEAN[:, :3])], **good)
    with pytest.raises(NrmapError, match="A ≥ 2"):
        sweep_maps([Chunk(0, Q_VALUES[..., :1], CLEAN[:, :1])], **good)
    with pytest.raises(NrmapError, match="of 0 states: expected 4"):
        sweep_maps([], **good)
