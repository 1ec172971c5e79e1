"""Read states from a .npy or .npz file that names no game, for agents without an environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.play.states import HEADER_KEY, RolloutStates, load_states
from nrmap.support.errors import NrmapError, check, first_line, named
from nrmap.support.files import MOST_ARRAY_BYTES, array_of, open_npz, regular_file

_NPY = b"\x93NUMPY"  # the first bytes of a .npy file


@dataclass(frozen=True, eq=False)
class GivenStates:
    """N states from a file that names no game. Without episode ids they are one episode: no measure has an interval."""

    states: NDArray[np.uint8]  # [N, C, H, W]
    episode_ids: NDArray[np.int64]  # [N], from 0

    @property
    def episode_origins(self) -> NDArray[np.int64]:
        """The number of each episode's player, [E], all 0.

        The file does not name the players, so all episodes count as those of one policy.
        """
        return np.zeros(int(self.episode_ids.max()) + 1, dtype=np.int64)


def read_states(path: Path) -> RolloutStates | GivenStates:
    """Read `path`: RolloutStates from a states file of nrmap, GivenStates from any other .npy or .npz file.

    A .npy file holds states, uint8 [N, C, H, W]. An .npz file has these as `states`, and maybe whole numbers
    `episode_ids` [N]. Raises NrmapError for a file that is missing, damaged or of another kind.
    """
    with regular_file(path, "states") as file:
        is_one_array = file.read(len(_NPY)) == _NPY
    if is_one_array:
        try:
            # Memory mapping fails for a file that claims more data than it has, before memory is allocated.
            mapped = np.load(path, allow_pickle=False, mmap_mode="r")
            check(
                mapped.nbytes <= MOST_ARRAY_BYTES,
                f"its array takes {mapped.nbytes:,} bytes: expected at most {MOST_ARRAY_BYTES:,}",
            )
            states = np.array(mapped) if mapped.dtype == np.uint8 else mapped  # others are refused below, uncopied
        except Exception as error:  # numpy and tokenize have many for damaged bytes
            raise NrmapError(f"{path} is not a readable states file: {first_line(error)}") from error
        ids: NDArray[Any] | None = None
    else:
        with open_npz(path, "states") as npz:
            of_nrmap = HEADER_KEY in npz.files
            if not of_nrmap:
                check("states" in npz.files, f"it has the arrays {', '.join(npz.files) or '(none)'}, none named states")
                states = array_of(npz, "states", np.uint8, (4,))
                ids = array_of(npz, "episode_ids", np.integer, (1,)) if "episode_ids" in npz.files else None
        if of_nrmap:
            return load_states(path)
    with named(f"{path}: "):
        fits = states.dtype == np.uint8 and states.ndim == 4 and states.size > 0
        check(fits, f"states are {states.dtype} {list(states.shape)}: expected uint8 [N, C, H, W], at least one state")
        ids = np.zeros(len(states), dtype=np.int64) if ids is None else ids
        check(ids.shape == (len(states),), f"episode_ids are {list(ids.shape)}: expected {len(states)} whole numbers")
    return GivenStates(states, np.unique(ids, return_inverse=True)[1].astype(np.int64))
