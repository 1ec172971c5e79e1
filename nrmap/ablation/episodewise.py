"""Ablate episode by episode, so that an episode's Q-values do not depend on other episodes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from nrmap.ablation.spec import AblatedChunk, Engine


class EpisodewiseEngine:
    """Wraps an engine so that no batch has states of two episodes: other rows of a batch change the last bits."""

    def __init__(self, engine: Engine, episode_ids: ArrayLike) -> None:
        """`episode_ids` [N] belong to all states to be ablated, in order."""
        self.name = engine.name
        self._engine = engine
        ids = np.asarray(episode_ids)
        self._ends = [*(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]

    @property
    def rounding_floor(self) -> float:
        """See Engine."""
        return self._engine.rounding_floor

    def ablate(self, states: Tensor) -> Iterator[AblatedChunk]:
        """See Engine. `states` are the last of the N states: a store skips those it already has."""
        before = self._ends[-1] - len(states)
        start = before
        for end in self._ends:
            if start < end:
                for chunk in self._engine.ablate(states[start - before : end - before]):
                    yield replace(chunk, start=start - before + chunk.start)
                start = end
