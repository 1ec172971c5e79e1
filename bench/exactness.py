"""Compare an engine's ablated Q-values with float64 values: errors and changed actions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nrmap.support.errors import check

# Relative to max(1, max|Q|). Smaller differences are ties or rounding.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exactness:
    """The errors of an engine's Q-values of ablated states against float64 Q-values.

    If the arg max differs, it is a mismatch if the exact Q-values of the two actions differ by
    more than TOLERANCE·max(1, max|Q|), with max|Q| over the actions of that ablated state;
    otherwise it is a tie. `max_scaled_q_diff` is the largest error in units of max(1, max|Q|).
    """

    ablations: int
    argmax_mismatches: int
    argmax_ties: int
    max_abs_q_diff: float
    max_scaled_q_diff: float

    @property
    def exact(self) -> bool:
        """Whether there is no mismatch and every error is at most TOLERANCE·max(1, max|Q|)."""
        return self.argmax_mismatches == 0 and self.max_scaled_q_diff <= TOLERANCE


def compare(q_values: Tensor, exact: Tensor) -> Exactness:
    """Compare `q_values` [..., A] with `exact`, float64 of that shape. Raises NrmapError for another shape or dtype."""
    check(exact.dtype == torch.float64, f"exact Q-values are {exact.dtype}: expected torch.float64")
    check(q_values.shape == exact.shape, f"Q-values {list(q_values.shape)}: expected {list(exact.shape)}")
    found, exact = q_values.flatten(0, -2).double(), exact.flatten(0, -2)  # [n, A]
    scale = exact.abs().amax(dim=1).clamp(min=1)  # [n]
    best, found_best = exact.argmax(dim=1, keepdim=True), found.argmax(dim=1, keepdim=True)  # [n, 1]
    gap = (exact.gather(1, best) - exact.gather(1, found_best)).squeeze(1)  # [n]
    differs = (best != found_best).squeeze(1)
    difference = (found - exact).abs().amax(dim=1)  # [n]
    return Exactness(
        ablations=len(found),
        argmax_mismatches=int((differs & (gap > TOLERANCE * scale)).sum()),
        argmax_ties=int((differs & (gap <= TOLERANCE * scale)).sum()),
        max_abs_q_diff=float(difference.max()),
        max_scaled_q_diff=float((difference / scale).max()),
    )
