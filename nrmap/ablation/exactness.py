"""How far an engine's ablated Q-values are from the exact ones, and whether any action changes by it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nrmap.support.errors import check

# Of max(1, max|Q|): differences below this are ties or rounding.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exactness:
    """The comparison of a number of ablated states with their float64 Q-values.

    An arg max that differs is a mismatch where the exact Q-values of the two actions are more
    than TOLERANCE·max(1, max|Q|) apart, with max|Q| over the actions of that ablated state, and
    a tie otherwise. `max_scaled_q_diff` is the largest |ΔQ| in units of max(1, max|Q|).
    """

    ablations: int
    argmax_mismatches: int
    argmax_ties: int
    max_abs_q_diff: float
    max_scaled_q_diff: float

    @property
    def exact(self) -> bool:
        """Whether no action is mismatched and no Q-value further off than TOLERANCE on its scale."""
        return self.argmax_mismatches == 0 and self.max_scaled_q_diff <= TOLERANCE


def compare(q_values: Tensor, exact: Tensor) -> Exactness:
    """Compare float32 `q_values` [..., A] with `exact` ones, float64 of the same shape."""
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
