"""The types around an engine: what to ablate, results, and the engine's protocol."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from nrmap.support.errors import NrmapError
from nrmap.support.schema import schema


@schema
class AblationSpec:
    """The grey level and channels of an ablation; `value` 0 gives Z_ij(s) of eq. 4 and 5.

    `value` is the pixel's new grey level, 0 to 255. `channels` "all" ablates pixel (i, j) in all
    frames of the stack at once, "each" in one frame at a time. Raises NrmapError for other values.
    """

    value: Annotated[int, Field(ge=0, le=255)] = 0
    channels: Literal["all", "each"] = "all"

    def ablated_shape(self, state_shape: tuple[int, int, int]) -> torch.Size:
        """Shape [H, W] or [C, H, W] of the ablations of one state [C, H, W]."""
        return torch.Size(state_shape[1:] if self.channels == "all" else state_shape)


@dataclass(frozen=True, eq=False)
class AblatedChunk:
    """The Q-values of n consecutive states and of all their ablations, float32 on the CPU.

    If a pixel already has the ablated value, its Q-values are exactly the clean ones.
    """

    start: int  # index of the first state
    q_values: Tensor  # [n, H, W, A], or [n, C, H, W, A] with channels="each"
    clean_q_values: Tensor  # [n, A]


class Engine(Protocol):
    """Ablates every pixel of every state."""

    @property
    def name(self) -> str:
        """`incremental`, `incremental-differences` or `dense`."""

    @property
    def rounding_floor(self) -> float:
        """Approximate upper limit of rounding errors in ΔQ; depends only on the policy, not on the states."""

    def ablate(self, states: Tensor) -> Iterator[AblatedChunk]:
        """Yield the chunks of `states`, uint8 [N, C, H, W], in order.

        Raises NrmapError for states of another type or shape and for NaN or infinite Q-values.
        """


def check_finite(chunk: AblatedChunk) -> None:
    """Raise NrmapError if any Q-value of `chunk` is NaN or infinite."""
    for values in (chunk.clean_q_values, chunk.q_values):
        finite = values.isfinite().flatten(1).all(dim=1)  # [n]
        if not finite.all():
            state = chunk.start + int(finite.int().argmin())
            raise NrmapError(f"the policy's outputs for state {state} or its ablations are NaN or infinite")
