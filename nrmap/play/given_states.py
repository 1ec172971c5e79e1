"""States from a .npy or .npz file that names no game, for agents that play none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nrmap.play.states import HEADER_KEY, RolloutStates, load_states
from nrmap.policies.agent import check_states
from nrmap.support.errors import NrmapError, check, first_line


@dataclass(frozen=True, eq=False)
class GivenStates:
    """N states by episode; without episodes in the file all are of one, and no measure has an interval."""

    states: NDArray[np.uint8]  # [N, C, H, W]
    episode_ids: NDArray[np.int64]  # [N], from 0

    @property
    def episode_origins(self) -> NDArray[np.int64]:
        """Zeros [E]: who played the episodes is not known, so one policy stands for all."""
        return np.zeros(int(self.episode_ids.max()) + 1, dtype=np.int64)


def read_states(path: Path, state_shape: Sequence[int] | None = None) -> RolloutStates | GivenStates:
    """The states in `path`: a states file of nrmap, a .npy array, or an .npz with `states` and maybe `episode_ids`.

    Arrays are uint8 [N, C, H, W], with `state_shape` (C, H, W) if that is given; `episode_ids` [N] are whole
    numbers. Raises NrmapError for a file that is missing, damaged or of another kind.
    """
    check(path.is_file(), f"no states file {path}")
    try:
        # A mapping fails where a file claims more than it has, before memory is asked for.
        loaded: Any = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(loaded, np.lib.npyio.NpzFile) and HEADER_KEY in loaded.files:
            return load_states(path)
        arrays = {"states": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except NrmapError:
        raise
    except Exception as error:  # numpy, zipfile and tokenize have many for damaged bytes
        raise NrmapError(f"{path} is not a readable file of states ({first_line(error)})") from error
    check("states" in arrays, f"{path} has the arrays {', '.join(arrays) or '(none)'}: expected one named states")
    states = np.array(arrays["states"])
    check(
        states.dtype == np.uint8 and states.ndim == 4,
        f"{path}: states are {states.dtype} {list(states.shape)}: expected uint8 [N, C, H, W]",
    )
    try:
        check_states(torch.from_numpy(states), states.shape[1:] if state_shape is None else state_shape)
    except NrmapError as error:
        raise NrmapError(f"{path}: {error}") from error
    ids = np.asarray(arrays.get("episode_ids", np.zeros(len(states), dtype=np.int64)))
    fits = ids.shape == (len(states),) and np.issubdtype(ids.dtype, np.integer)
    check(fits, f"{path}: episode_ids are {ids.dtype} {list(ids.shape)}: expected {len(states)} whole numbers")
    return GivenStates(states, np.unique(ids, return_inverse=True)[1].astype(np.int64))
