"""What is ablated, and what an engine gives back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nrmap.support.errors import NrmapError, check, unknown_choice


@dataclass(frozen=True)
class AblationSpec:
    """What becomes of an ablated pixel: Z_ij(s) of eq. 4 and 5 for `value` 0.

    `value` is the grey level in 0..255 that the pixel takes. With `channels` "all" pixel (i, j)
    is ablated in every frame of the stack at once, with "each" in one frame at a time.
    """

    value: int = 0
    channels: Literal["all", "each"] = "all"

    def __post_init__(self) -> None:
        whole = isinstance(self.value, int) and not isinstance(self.value, bool)
        check(whole and 0 <= self.value <= 255, f"ablated value {self.value!r}: expected a whole number in 0..255")
        if self.channels not in ("all", "each"):
            raise unknown_choice("channel mode", self.channels, ("all", "each"))

    def ablated_shape(self, state_shape: tuple[int, int, int]) -> torch.Size:
        """[H, W] or [C, H, W], the ablations of one state [C, H, W]."""
        return torch.Size(state_shape[1:] if self.channels == "all" else state_shape)


@dataclass(frozen=True, eq=False)
class AblatedChunk:
    """The Q-values of n consecutive states and of all their ablations, float32 on the CPU.

    An ablation that changes nothing, because the pixel has the ablated value already, has exactly
    the clean Q-values of its state.
    """

    start: int  # index of the first state
    q_values: Tensor  # [n, H, W, A], or [n, C, H, W, A] where channels are ablated apart
    clean_q_values: Tensor  # [n, A]


class Engine(Protocol):
    """Ablates every pixel of every state."""

    @property
    def name(self) -> str:
        """`incremental` or `dense`."""

    @property
    def rounding_floor(self) -> float:
        """About the largest |ΔQ| that is nothing but rounding; depends on the policy alone, not on states."""

    def ablate(self, states: Tensor) -> Iterator[AblatedChunk]:
        """The chunks of `states`, uint8 [N, C, H, W], in order.

        Raises NrmapError for states of another type or shape, and for Q-values that are not finite.
        """


def check_states(states: Tensor, state_shape: tuple[int, int, int]) -> None:
    """NrmapError unless `states` is a non-empty uint8 [N, C, H, W] of the shape `state_shape`."""
    if states.dtype != torch.uint8 or states.ndim != 4 or tuple(states.shape[1:]) != state_shape or not len(states):
        channels, height, width = state_shape
        raise NrmapError(
            f"states to ablate are {states.dtype} {list(states.shape)}: "
            f"expected torch.uint8 [N, {channels}, {height}, {width}] with N ≥ 1"
        )


def check_finite(chunk: AblatedChunk) -> None:
    """NrmapError when any Q-value of `chunk` is NaN or infinite."""
    for values in (chunk.clean_q_values, chunk.q_values):
        finite = values.isfinite().flatten(1).all(dim=1)  # [n]
        if not finite.all():
            state = chunk.start + int(finite.int().argmin())
            raise NrmapError(f"the policy's outputs for state {state} or its ablations are NaN or infinite")
