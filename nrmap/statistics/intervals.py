"""95% intervals over episodes: episodes are the independent units, the policy is fixed.

Fractions of states have Wilson intervals, see `estimate_rate`; all others are jackknife intervals, value ± t(E − 1)·se.
t(d) is the 97.5% quantile of Student's t with d degrees of freedom, and se comes from leaving out one of E episodes at
a time. Where episodes of several policies are pooled, se comes from the differences within each policy's episodes, with
t(E − number of policies). The intervals cover the expected value of the statistic for new episodes of the same policy,
at the same numbers of episodes and states. They do not cover the spread over training seeds.

The percentile and BCa (bias-corrected, accelerated) bootstraps do not work here: S (eq. 9) of a sum of maps grows with
the number of different episodes in it, and a resample of E episodes has only about 0.63·E different ones, so its S is
too small. On synthetic maps (tests/statistics/test_intervals.py; 16 episodes of 400 pixels; 2,000 data sets each) the
95% intervals for S contained the true expected S this often:

    the map                                          percentile    BCa   jackknife
    many flips of each pixel in every episode              0.90   0.85        0.93
    rates over four orders of magnitude                    0.83   0.68        0.94
    few common pixels, many rare ones                      0.49   0.28        0.97
    all rare, S still grows as the root of N               0.08   0.00        0.96
    blocks of pixels, episodes of unequal weight           0.90   0.80        0.89
    rare, with heights of a heavy tail                     0.72   0.39        0.86

BCa estimates the bias from the resamples and so doubles it; where every resample has a smaller S,
BCa is undefined. The jackknife never repeats an episode. It is too short where a few pixels or
episodes dominate the map (the last two rows; 0.92 and 0.82 with 50 episodes). For the mean the
jackknife is Student's interval, which covered the truth at least as often as BCa at 8 to 50 episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nrmap.support.errors import check

LEVEL = 0.95
MIN_EPISODES_OF_MAPS = 16
MIN_EPISODES = 8
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A measured value and the ends of its 95% interval, each None if it does not exist; `note` then says why.

    `interval` is the interval's method, None without an interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str | None = None  # the method
    note: str | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.note})"
        known = self.low is not None and self.high is not None
        return f"{self.value:.2f} " + (f"[{self.low:.2f}, {self.high:.2f}]" if known else f"({self.note})")


def estimate_of_sum(
    maps: ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    players: ArrayLike | None = None,
    subject: str = "this policy",
    why_undefined: str = "the value is undefined",
) -> Estimate:
    """Estimate a statistic of the sum of the episodes' `maps` [E, …], with a 95% interval.

    `statistic` is a smooth function of several maps [R, …] that returns [R] values, NaN where undefined. Maps may be
    stacked along a later axis, for example those of two policies on the same episodes. The interval is cut to `bounds`,
    the range of the statistic. `players` [E] numbers the policies that played the episodes; None means one policy.
    `Estimate.interval` ends in "for `subject`".

    There is no interval for fewer than 16 episodes, or for a policy with only one. There is none if the values with one
    episode left out are all equal, or one of them is NaN. If the statistic is NaN, the value is None with
    `why_undefined` as the note. Raises NrmapError for `maps` or `players` of another shape.
    """
    by_episode = np.asarray(maps, dtype=np.float64)
    check(by_episode.ndim > 1 and len(by_episode) > 0, f"maps of shape {by_episode.shape}: expected [episodes, …]")
    episodes = len(by_episode)
    # Sums of the others, not total minus one: a pixel that one episode alone touches must become exactly 0.
    kept = 1 - np.eye(episodes)  # [E, E]
    left_out = (kept @ by_episode.reshape(episodes, -1)).reshape(by_episode.shape)
    value = float(statistic(by_episode.sum(axis=0)[None])[0])
    strata = np.zeros(episodes, dtype=np.int64) if players is None else np.asarray(players)
    check(strata.shape == (episodes,), f"players of shape {strata.shape}: expected ({episodes},), one of each episode")
    if np.isnan(value):
        return Estimate(None, note=why_undefined)
    return _jackknife(value, statistic(left_out), strata, bounds, MIN_EPISODES_OF_MAPS, subject)


def estimate_mean(values: ArrayLike) -> Estimate:
    """Estimate the mean of one value per episode [E], such as the return, with Student's t interval.

    There is no interval for fewer than 8 values, nor where all are equal. NaN or infinity among the values gives a mean
    of NaN or infinity without an interval. Raises NrmapError unless `values` is [E] with E ≥ 1.
    """
    each = np.asarray(values, dtype=np.float64)
    check(each.ndim == 1 and len(each) > 0, f"values of shape {each.shape}: expected [episodes]")
    left_out = (each.sum() - each) / max(len(each) - 1, 1)
    one_policy = np.zeros(len(each), dtype=np.int64)
    return _jackknife(float(each.mean()), left_out, one_policy, (-np.inf, np.inf), MIN_EPISODES)


def estimate_rate(successes: ArrayLike, trials: ArrayLike) -> Estimate:
    """Estimate a fraction of states with Wilson's interval for clustered trials, from counts in each episode [E].

    States of one episode are correlated, so the number of trials is replaced by the number of independent trials with
    the same variance (Korn and Graubard 1998), and the normal quantile by Student's. Where all trials or none succeed,
    the variance is 0 and each episode counts as one trial. There is no interval for fewer than 8 episodes, nor where
    all episodes have the same rate between 0 and 1. Raises NrmapError unless both counts are [E], E ≥ 1,
    0 ≤ successes ≤ trials and trials > 0; NaN is refused.
    """
    wins, tries = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    check(wins.shape == tries.shape == (wins.size,), f"successes {wins.shape}, trials {tries.shape}: expected [E] both")
    valid = len(wins) > 0 and (wins >= 0).all() and (wins <= tries).all() and (tries > 0).all()
    check(bool(valid), "a rate needs at least one episode and 0 ≤ successes ≤ trials, trials > 0, in each")
    episodes, total = len(wins), tries.sum()
    rate = float(wins.sum() / total)
    if episodes < MIN_EPISODES:
        return _too_few(rate, episodes, MIN_EPISODES)
    if 0 < rate < 1:
        variance = episodes / (episodes - 1) * np.square(wins - rate * tries).sum() / total**2
        if variance <= (1e-12 * rate) ** 2:
            return _no_difference(rate, episodes)
        size = min(total, rate * (1 - rate) / variance)
    else:
        size = float(episodes)
    t2 = student_quantile(episodes - 1) ** 2
    centre = (rate + t2 / (2 * size)) / (1 + t2 / size)
    half = np.sqrt(t2 * (rate * (1 - rate) / size + t2 / (4 * size**2))) / (1 + t2 / size)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return Estimate(rate, low, high, f"wilson, clustered, over {episodes} episodes, for this policy")


def _jackknife(
    value: float,
    left_out: FloatArray,
    strata: NDArray[np.int64],
    bounds: tuple[float, float],
    min_episodes: int,
    subject: str = "this policy",
) -> Estimate:
    """Return `value` ± t·se; `left_out` [E] are the values without each episode (Efron and Tibshirani 1993, ch. 11).

    The variance is the sum of the variances within the `strata` [E] (Shao and Tu 1995, section 6.2).
    """
    episodes = len(left_out)
    if episodes < min_episodes:
        return _too_few(value, episodes, min_episodes)
    if np.isnan(left_out).any():
        return Estimate(value, note=f"undefined without the episode at place {int(np.isnan(left_out).argmax())}")
    variance, each_stratum = 0.0, np.unique(strata)
    for stratum in each_stratum:
        of_one = left_out[strata == stratum]
        if len(of_one) == 1:
            return Estimate(value, note="a policy played only one of the episodes")
        variance += float((len(of_one) - 1) / len(of_one) * np.square(of_one - of_one.mean()).sum())
    error = variance**0.5
    if error <= 1e-12 * abs(value):
        return _no_difference(value, episodes)
    half = student_quantile(episodes - len(each_stratum)) * error
    low, high = max(value - half, bounds[0]), min(value + half, bounds[1])
    of_policies = f" of {len(each_stratum)} policies" if len(each_stratum) > 1 else ""
    return Estimate(value, low, high, f"jackknife over {episodes} episodes{of_policies}, for {subject}")


def student_quantile(degrees: int) -> float:
    """The upper end of the central 95% of Student's t with `degrees` degrees of freedom."""
    from scipy import special  # `import nrmap` need not wait for it

    return float(special.stdtrit(degrees, (1 + LEVEL) / 2))


def _no_difference(value: float, episodes: int) -> Estimate:
    return Estimate(value, note=f"all {episodes} episodes are equal: no variance to estimate an interval from")


def _too_few(value: float, episodes: int, min_episodes: int) -> Estimate:
    return Estimate(value, note=f"an interval needs at least {min_episodes} episodes, found {episodes}")
