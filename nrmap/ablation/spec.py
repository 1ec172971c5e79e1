"""The settings of an ablation, the chunks of Q-values that it gives, and the base class of both engines."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from nrmap.policies.agent import Agent, check_states
from nrmap.support.errors import NrmapError, check
from nrmap.support.schema import schema

GreyLevel = Annotated[int, Field(ge=0, le=255)]


@schema
class AblationSpec:
    """The grey level and channels of an ablation; `value` 0 gives Z_ij(s) of eq. 4 and 5.

    `value` is the pixel's new grey level, 0 to 255. With `channels="all"` pixel (i, j) is ablated in all frames of the
    stack at once, with "each" in one frame at a time. Raises NrmapError for any other value of a field.
    """

    value: GreyLevel = 0
    channels: Literal["all", "each"] = "all"

    def ablated_shape(self, state_shape: tuple[int, int, int]) -> torch.Size:
        """The shape of the ablations of one state [C, H, W]: [H, W] for channels="all", [C, H, W] for "each"."""
        return torch.Size(state_shape[1:] if self.channels == "all" else state_shape)


@dataclass(frozen=True, eq=False)
class AblatedChunk:
    """The Q-values of n consecutive states and of all their ablations, float32 on the CPU.

    All values of a clean or ablated state may be off by one number, if the engine has `differences_only` or the agent's
    outputs are float64. Where a pixel already has the ablated value, the Q-values equal the clean ones exactly.
    """

    start: int  # index of the first state
    q_values: Tensor  # [n, H, W, A], or [n, C, H, W, A] with channels="each"
    clean_q_values: Tensor  # [n, A]


class Engine(ABC):
    """The base class of engines, which ablate every pixel of every state, at most `states_at_once` states at a time."""

    name: str  # `incremental`, `incremental-differences` or `dense`
    states_at_once = 1

    def __init__(self, agent: Agent, spec: AblationSpec) -> None:
        self._agent, self._spec = agent, spec
        self._state_shape, self._device = agent.state_shape, agent.device

    @property
    @abstractmethod
    def rounding_floor(self) -> float:
        """The approximate upper limit of the rounding error of any ablation's change in Q.

        Raises NrmapError for NaN or infinite Q-values, and as a call of the agent does.
        """

    @abstractmethod
    def seconds_per_state(self) -> float:
        """Estimate the seconds that one state takes, from a part of its ablations."""

    @abstractmethod
    def _ablate(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the ablated Q-values [S, (C,) H, W, A] and the clean ones [S, A] of S ≤ `states_at_once` states."""

    def ablate(self, states: Tensor, episode_ids: ArrayLike | None = None) -> Iterator[AblatedChunk]:
        """Ablate `states`, uint8 [N, C, H, W], and yield their Q-values in chunks, in order.

        With `episode_ids` [N] no chunk has states of two episodes, because the states that are computed together may
        change each other's last bits. None means one episode.

        While iterating, raises NrmapError for states of another type or shape, for NaN or infinite Q-values, for an
        agent that has changed since the engine was made, for another number of episode ids, and as a call of the agent
        does.
        """
        check_states(states, self._state_shape)
        ids = np.zeros(len(states)) if episode_ids is None else np.asarray(episode_ids)
        check(
            ids.shape == (len(states),), f"episode_ids: expected one for each of {len(states)} states, got {ids.shape}"
        )
        for begin, end in itertools.pairwise([0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]):
            for start in range(begin, end, self.states_at_once):
                some = states[start : min(start + self.states_at_once, end)].to(self._device)
                # Inference tensors refuse gradients and in-place changes, so hand out ordinary copies.
                chunk = AblatedChunk(start, *(found.cpu().clone() for found in self._ablate(some)))
                check_finite(chunk)
                yield chunk


def check_finite(chunk: AblatedChunk) -> None:
    """Raise NrmapError if any Q-value of `chunk` is NaN or infinite."""
    for values in (chunk.clean_q_values, chunk.q_values):
        finite = values.isfinite().flatten(1).all(dim=1)  # [n]
        if not finite.all():
            state = chunk.start + int(finite.int().argmin())
            raise NrmapError(f"the policy's outputs for state {state} or its ablations are NaN or infinite")
