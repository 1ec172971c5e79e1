"""Measures of a map's sparsity: S (eq. 9) and the entropy over pixels."""

import numpy as np
from numpy.typing import ArrayLike

from nrmap.maps.kinds import FloatArray
from nrmap.statistics.intervals import Estimate, estimate_of_sum
from nrmap.support.errors import check

WHY_ZERO = "the map is 0 everywhere"


def sparsity_of_rows(maps: ArrayLike) -> FloatArray:
    """Return S = ‖M‖₁ / ‖M‖₂ (eq. 9) of each map M in `maps` [R, …], float64 [R]; NaN for a map of zeros.

    Raises NrmapError for empty maps and for NaN or infinite values.
    """
    rows = _finite(maps)
    rows = np.abs(rows.reshape(len(rows), -1))  # [R, P]
    largest = rows.max(axis=1, keepdims=True)
    # S is independent of the scale; at scale 1 no square can overflow or vanish.
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    l1, l2 = scaled.sum(axis=1), np.sqrt(np.square(scaled).sum(axis=1))
    return np.divide(l1, l2, out=np.full_like(l1, np.nan), where=l2 > 0)


def sparsity(map_: ArrayLike, why_zero: str = WHY_ZERO) -> Estimate:
    """Measure S(M) = ‖M‖₁ / ‖M‖₂ (eq. 9), from 1 for one pixel to √pixels for a flat map; smaller is sparser.

    `map_` has any shape and either sign. For a map of zeros S is 0/0: the value is None, with `why_zero` as the note.
    There is no interval. Raises NrmapError for an empty map and for NaN or infinite values.
    """
    value = float(sparsity_of_rows(np.asarray(map_)[None])[0])
    return Estimate(None, note=why_zero) if np.isnan(value) else Estimate(value)


def sparsity_of_sum(maps: ArrayLike, why_zero: str = WHY_ZERO, players: ArrayLike | None = None) -> Estimate:
    """Estimate the `sparsity` of the sum of the episodes' `maps` [E, …], with its interval.

    For `players` [E] and the interval see `estimate_of_sum`. `why_zero` is the note for a sum of zeros, whose value is
    None. Raises NrmapError as `estimate_of_sum` does, for empty maps, and for NaN or infinite values.
    """
    by_episode = np.asarray(maps, dtype=np.float64)
    furthest = (by_episode.size // max(len(by_episode), 1)) ** 0.5
    return estimate_of_sum(
        by_episode, sparsity_of_rows, bounds=(1.0, furthest), players=players, why_undefined=why_zero
    )


def map_entropy(map_: ArrayLike) -> float:
    """Return −Σ p log p in nats, p = softmax of the map over its pixels (UAI 2021, eq. 8).

    It is between 0 and log(pixels), the entropy of a constant map. Unlike `relative_map_entropy` it depends on the
    map's scale, hence on the number of states and the rewards. Raises NrmapError for an empty map and for NaN or
    infinite values.
    """
    values = _finite(map_).ravel()
    top = int(values.argmax())
    others = np.delete(values, top) / 2 - values[top] / 2  # halved, so that the difference cannot overflow
    others = 2 * np.maximum(others, -500)  # [P-1]; e^-1000 is 0, and -inf would give 0·inf
    weights = np.exp(others)
    # With log Z = log1p(Σ weights) every summand is ≥ 0, so entropies far below 1e-16 keep their digits.
    total = weights.sum()
    return float(np.log1p(total) - (weights * others).sum() / (1 + total))


def relative_map_entropy(map_: ArrayLike, why_zero: str = WHY_ZERO) -> Estimate:
    """Measure `map_entropy` of M / max|M|, which is independent of the map's scale.

    For a map of zeros the value is None, with `why_zero` as the note. Raises NrmapError as `map_entropy` does.
    """
    values = _finite(map_)
    largest = np.abs(values).max()
    return Estimate(map_entropy(values / largest)) if largest > 0 else Estimate(None, note=why_zero)


def _finite(maps: ArrayLike) -> FloatArray:
    values = np.asarray(maps, dtype=np.float64)
    check(values.size > 0, f"a map of shape {values.shape} has no pixels")
    check(bool(np.isfinite(values).all()), f"a map of shape {values.shape} has NaN or infinite values")
    return values
