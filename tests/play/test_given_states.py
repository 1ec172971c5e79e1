"""Arrays of states from elsewhere: what fits is read, and everything else is named."""

import numpy as np
import pytest
from mutations import array_header

from nrmap.play import given_states
from nrmap.play.given_states import read_states
from nrmap.support.errors import NrmapError

STATES = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)


def test_an_array_is_no_larger_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(given_states, "MOST_ARRAY_BYTES", STATES.nbytes - 1)
    np.save(tmp_path / "a.npy", STATES)
    with pytest.raises(NrmapError, match="its array takes 120 bytes"):
        read_states(tmp_path / "a.npy")


def test_arrays_are_read(tmp_path):
    np.save(tmp_path / "a.npy", STATES)
    np.savez(tmp_path / "a.npz", states=STATES, episode_ids=[7, 5])
    for name, ids in (("a.npy", [0, 0]), ("a.npz", [1, 0])):
        given = read_states(tmp_path / name)
        np.testing.assert_array_equal(given.states, STATES)
        assert given.episode_ids.tolist() == ids


@pytest.mark.parametrize(
    ("states", "why"),
    [
        (STATES.astype(">u2"), r"states are >u2 \[2, 3, 4, 5\]: expected uint8"),
        (STATES.astype(np.uint16), "states are uint16"),
        (STATES[0], r"states are uint8 \[3, 4, 5\]"),
        (STATES[:0], "at least one state"),
        (array_header(np.uint8, (4_000_000_000, 0, 8, 8)), r"states are uint8 \[4000000000, 0, 8, 8\]"),
        (array_header(np.uint8, (4_000_000_000, 4, 8, 8)), "not a readable states file"),
        (b"", "not a readable states file"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])  # the content tells the kind
def test_other_arrays_are_refused_in_one_line(states, why, suffix, tmp_path):
    path = tmp_path / f"states.{suffix}"
    with open(path, "wb") as file:
        file.write(states) if isinstance(states, bytes) else np.save(file, states)
    with pytest.raises(NrmapError, match=why):
        read_states(path)
