"""Intervals over episodes: scipy and loops as oracles, and their coverage on synthetic maps."""

import re
import warnings

import numpy as np
import pytest
from jackknife_loop import jackknife_loop
from scipy import stats

from nrmap.maps.sparsity import sparsity, sparsity_of_rows, sparsity_of_sum
from nrmap.statistics import intervals
from nrmap.statistics.intervals import Estimate, estimate_mean, estimate_rate
from nrmap.support.errors import NrmapError

PIXELS = 400


def flips(rng, episodes, rates, heights=lambda rng, shape: rng.gamma(4.0, 0.25, shape)):
    """Maps [E, pixels] of random flips at the mean `rates`, in episodes of unequal weight."""
    busy = rng.lognormal(-0.125, 0.5, (episodes, 1))
    return rng.poisson(busy * rates, (episodes, PIXELS)) * heights(rng, (episodes, PIXELS))


def blocks(rng, episodes):
    """Runs of twenty pixels that flip together, in episodes of very unequal weight."""
    busy = rng.lognormal(-0.72, 1.2, (episodes, 1))
    maps = rng.poisson(busy * _rates(-2.0, 1.5), (episodes, PIXELS)) * rng.exponential(1.0, (episodes, PIXELS))
    for episode in maps:
        for start in rng.integers(0, PIXELS - 20, rng.poisson(2)):
            episode[start : start + 20] += rng.exponential(1.0)
    return maps


def _rates(mean, sigma):
    return np.random.default_rng(1).lognormal(mean, sigma, PIXELS)


def heavy_tails(rng, episodes):
    return flips(rng, episodes, 0.05, heights=lambda rng, shape: rng.lognormal(0.0, 1.5, shape))


# In the order of the table in the module's docstring.
POPULATIONS = (
    lambda rng, episodes: flips(rng, episodes, 2 * _rates(0.0, 1.0)),
    lambda rng, episodes: flips(rng, episodes, _rates(-4.0, 1.5)),
    lambda rng, episodes: flips(rng, episodes, np.where(np.arange(PIXELS) < PIXELS // 10, 1.0, 0.02)),
    lambda rng, episodes: flips(rng, episodes, 0.01),  # hardly any pixel flips in two episodes
    blocks,
    heavy_tails,
)


def bootstrap(values, statistic, method, count, rng):
    """Scipy's interval; NaN where it is undefined, as BCa where every resample has a smaller statistic."""
    with warnings.catch_warnings(action="ignore"):
        found = stats.bootstrap((values,), statistic, vectorized=True, method=method, n_resamples=count, rng=rng)
    return found.confidence_interval


def coverage(population, *, episodes, data_sets):
    """The coverage of the expected S of this many episodes by the percentile, the BCa and our interval."""
    rng, numbers, hits = np.random.default_rng(0), np.arange(episodes), np.zeros(3)
    truth = np.mean([sparsity(population(rng, episodes).sum(0)).value for _ in range(3000)])

    def of_sums(chosen, axis):
        """S of the sum of the maps of the `chosen` episodes, [E] or [R, E]."""
        sums = (chosen[..., None] == numbers).sum(axis=-2) @ maps
        return sparsity_of_rows(sums.reshape(-1, PIXELS)).reshape(chosen.shape[:-1])

    for _ in range(data_sets):
        maps = population(rng, episodes)
        rivals = [bootstrap(numbers, of_sums, method, 500, rng) for method in ("percentile", "BCa")]
        hits += [each.low <= truth <= each.high for each in (*rivals, sparsity_of_sum(maps))]
    return hits / data_sets


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_coverage_that_the_docstring_states():
    table = re.findall(r"^    \S.*\s(\d\.\d\d)\s+(\d\.\d\d)\s+(\d\.\d\d)$", intervals.__doc__, re.MULTILINE)
    assert len(table) == len(POPULATIONS)
    for population, stated in zip(POPULATIONS, table, strict=True):
        found = coverage(population, episodes=16, data_sets=600)
        # Three standard errors of 600 data sets, where stated are those of 2,000.
        np.testing.assert_allclose(found, np.array(stated, dtype=float), atol=0.06, err_msg=str(stated))
        assert found[2] > (0.8 if population in (blocks, heavy_tails) else 0.9), stated


@pytest.mark.slow
@pytest.mark.parametrize("episodes", [8, 16, 50])
def test_means_are_covered_as_often_as_by_bca(episodes):
    rng = np.random.default_rng(2)
    returns = {
        "Freeway": (lambda: np.round(rng.normal(28, 1.2, episodes)), 28.0),
        "skewed": (lambda: rng.gamma(2.0, 400.0, episodes), 800.0),
        "near the maximum": (lambda: 30.0 - rng.geometric(0.4, episodes), 27.5),
        "bimodal": (lambda: np.where(rng.random(episodes) < 0.3, 0.0, 22.0), 15.4),
    }
    for name, (draw, truth) in returns.items():
        hits = np.zeros(2)
        for _ in range(600):
            values = draw()
            if np.ptp(values) == 0:
                continue
            rival, ours = bootstrap(values, np.mean, "BCa", 1000, rng), estimate_mean(values)
            hits += [each.low <= truth <= each.high for each in (rival, ours)]
        of_bca, of_ours = hits / 600
        assert of_ours > max(0.87, of_bca - 0.02), name


@pytest.mark.parametrize("players", [np.zeros(17, dtype=int), np.array([0] * 10 + [3] * 7)])
def test_the_jackknife_as_a_loop(players):
    """The variance is that within each policy's episodes: a difference between policies is no error of their pool."""
    rng = np.random.default_rng(11)
    maps = rng.exponential(1.0, (17, 40)) * np.where(np.arange(17) < 10, 1, 5)[:, None] ** (np.arange(40) % 3)
    expected = jackknife_loop(lambda episodes: sparsity(maps[episodes].sum(axis=0)).value, players.tolist())
    interval = sparsity_of_sum(maps, players=players)
    assert (interval.value, interval.low, interval.high) == pytest.approx(expected)
    pooled = " of 2 policies" if players.any() else ""
    assert (interval.interval, interval.note) == (f"jackknife over 17 episodes{pooled}, for this policy", None)
    # Neither the order of the episodes nor the scale of the maps matters.
    again = sparsity_of_sum(1e-200 * maps[::-1], players=players[::-1])
    assert (again.low, again.high) == pytest.approx((interval.low, interval.high))


def test_a_sparsity_interval_stays_where_sparsities_are():
    rng = np.random.default_rng(4)
    nearly_flat = 1 + 0.01 * rng.random((16, 1)) * rng.random((16, 25))
    interval = sparsity_of_sum(nearly_flat)
    assert 4.9 < interval.low < interval.high <= 5
    one_pixel = np.zeros((16, 25))
    one_pixel[:, 3], one_pixel[:3, 7] = 1, 0.1
    assert sparsity_of_sum(one_pixel).low == 1


def test_mean_intervals_are_students():
    values = np.random.default_rng(6).gamma(2.0, 5.0, 12)
    interval = estimate_mean(values)
    assert (interval.low, interval.high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))


def test_no_interval_says_why():
    rng = np.random.default_rng(7)
    few, one_flips = rng.random((15, 9)), np.zeros((16, 9))
    one_flips[4, 2] = 1
    too_few = "an interval needs at least 16 episodes, found 15"
    assert sparsity_of_sum(few) == Estimate(sparsity(few.sum(axis=0)).value, note=too_few)
    assert sparsity_of_sum(np.zeros((16, 9)), "why") == Estimate(None, note="why")
    alone = sparsity_of_sum(rng.random((17, 9)), players=[0] * 16 + [1])
    for found, value, note in (
        (alone, alone.value, "a policy played only one of the episodes"),
        (sparsity_of_sum(one_flips), 1, "undefined without the episode at place 4"),
        (estimate_mean([22.0] * 10), 22, "all 10 episodes are equal: no variance to estimate an interval from"),
        (estimate_mean([1.0, 2.0]), 1.5, "an interval needs at least 8 episodes, found 2"),
        (estimate_mean([1.0]), 1, "an interval needs at least 8 episodes, found 1"),
        (estimate_rate([1] * 7, [2] * 7), 0.5, "an interval needs at least 8 episodes, found 7"),
    ):
        assert found == Estimate(value, note=note)


def test_rates_of_independent_trials_are_wilsons():
    wins = np.random.default_rng(8).random(4000) < 0.2
    expected = stats.binomtest(int(wins.sum()), 4000).proportion_ci(method="wilson")
    interval = estimate_rate(wins, np.ones(4000))
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=2e-3)
    expected = stats.binomtest(4000, 4000).proportion_ci(method="wilson")
    assert estimate_rate(np.ones(4000), np.ones(4000)).low == pytest.approx(expected.low, rel=1e-5)


@pytest.mark.parametrize(("wins", "alike"), [([3, 0, 5, 2, 8, 1, 4, 9], False), ([5, 3, 6, 5, 6, 4, 5, 7], True)])
def test_rates_by_the_formula(wins, alike):
    """The ends solve (rate − p)² = t² p (1 − p) / n; n is at most the number of trials, as where episodes are alike."""
    wins, trials = np.array(wins), np.array([10, 7, 12, 10, 11, 9, 10, 13])
    rate = wins.sum() / trials.sum()
    size = rate * (1 - rate) / (8 * np.var((wins - rate * trials) / trials.sum(), ddof=1))
    assert (size > trials.sum()) == alike
    ratio = stats.t.ppf(0.975, 7) ** 2 / min(size, trials.sum())
    interval = estimate_rate(wins, trials)
    ends = np.roots([1 + ratio, -2 * rate - ratio, rate**2])
    assert [interval.low, interval.high] == pytest.approx(sorted(ends))


def test_rates_where_episodes_differ():
    rng = np.random.default_rng(9)
    hits, naive = 0, 0
    for _ in range(400):
        trials = rng.integers(100, 400, 16)
        wins = rng.binomial(trials, rng.beta(10, 90, 16))
        interval = estimate_rate(wins, trials)
        hits += interval.low <= 0.1 <= interval.high
        low, high = stats.binomtest(int(wins.sum()), int(trials.sum())).proportion_ci(method="wilson")
        naive += low <= 0.1 <= high
    assert hits / 400 > 0.9 > naive / 400
    # All or nothing in every episode: as many trials as episodes.
    certain = estimate_rate([128] * 16, [128] * 16)
    t = stats.t.ppf(0.975, 15)
    assert (certain.low, certain.high) == pytest.approx((16 / (16 + t**2), 1.0))
    # As many in every episode, but not all: nothing says how others might differ.
    assert estimate_rate([500] * 20, [2048] * 20).note.startswith("all 20 episodes are equal")
    assert 0 == estimate_rate([0] * 16, [128] * 16).low < estimate_rate([0] * 16, [128] * 16).high < 0.3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sparsity_of_sum(np.ones(16)), r"expected \[episodes, …\]"),
        (lambda: sparsity_of_sum(np.ones((16, 9)), players=[0, 1]), r"players of shape \(2,\)"),
        (lambda: estimate_mean([]), r"expected \[episodes\]"),
        *((lambda w=wins: estimate_rate(w, [2]), "0 ≤ successes ≤ trials") for wins in ([3], [-1])),
        (lambda: estimate_rate([0], [0]), "0 ≤ successes ≤ trials"),
        (lambda: estimate_rate([], []), "0 ≤ successes ≤ trials"),
        (lambda: estimate_rate([1, 2], [3]), r"expected \[E\] both"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(NrmapError, match=message):
        call()
