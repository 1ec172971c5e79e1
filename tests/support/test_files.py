"""Files are whole or absent; identities follow the content."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from nrmap.support import files
from nrmap.support.errors import NrmapError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (RuntimeError("killed"), RuntimeError, "killed"),
        (OSError(errno.ENOSPC, "No space left on device"), NrmapError, r"cannot write .*file\.txt: No space left"),
    ],
)
def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path, error, raised, message):
    path = tmp_path / "deep" / "file.txt"
    files.write_bytes(path, b"old")

    def write_half() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(raised, match=message):
        write_half()
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    with pytest.raises(NrmapError, match="cannot write"):
        files.write_bytes(path / "below" / "a file", b"")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_the_umask_says_who_may_read_a_file(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.write_bytes(tmp_path / "bytes", b"abc")
        with files.atomic_path(tmp_path / "tensors") as temporary:  # written by a library that makes a file of its own
            safetensors.torch.save_file({"a": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {"bytes": mode, "tensors": mode}


def test_what_a_kill_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {".nfs000000000001", ".lock", "file.bin", "unfinished-"}
    for name in kept:
        (tmp_path / name).touch()
    with files.atomic_path(tmp_path / "file.bin") as temporary:
        (tmp_path / f"{files.TEMPORARY_PREFIX}old").touch()
        assert temporary.name.startswith(f"{files.TEMPORARY_PREFIX}file.bin.")
        assert temporary.suffix == ".bin"
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_json_comes_back_and_not_a_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"b": [1, 2.5, None], "a": "é"})
    assert files.read_json(path) == {"b": [1, 2.5, None], "a": "é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    assert files.read_json(path)["a"] == "é"


def test_arrays_come_back_with_their_header_and_not_a_number_is_refused(tmp_path: Path) -> None:
    path, written = tmp_path / "maps.npz", {"a": np.arange(600), "b": np.ones((2, 3))}
    files.write_npz(path, "nrmap_maps", {"format": 1, "kinds": ["a"]}, written)
    forms = {"a": (np.int64, (1,)), "b": (np.float64, (1, 2))}
    header, arrays = files.read_npz(path, "nrmap_maps", "maps", read_header=dict, forms=lambda header: forms)
    assert header == {"format": 1, "kinds": ["a"]}
    assert all(np.array_equal(arrays[name], written[name]) for name in written)
    whole = path.read_bytes()
    files.write_npz(path, "nrmap_maps", header, arrays)
    assert path.read_bytes() == whole
    with pytest.raises(NrmapError, match="its metadata is no JSON"):
        files.write_npz(path, "nrmap_maps", {"floor": float("nan")}, arrays)
    assert path.read_bytes() == whole


@given(st.dictionaries(st.text(), SCALARS, min_size=1), st.integers())
def test_identity_follows_the_values_and_not_the_order_of_keys(settings: dict[str, object], other: int) -> None:
    assert files.identity_of(settings) == files.identity_of(dict(reversed(settings.items())))
    key = next(iter(settings))
    changed = {**settings, key: other}
    same = type(settings[key]) is int and settings[key] == other
    assert (files.identity_of(settings) == files.identity_of(changed)) == same


def test_a_link_keeps_its_place_and_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target.json", tmp_path / "link.json", tmp_path / "pipe.json"
    link.symlink_to(target)
    files.write_json(link, {"here": 1})
    assert (link.is_symlink(), files.read_json(target)) == (True, {"here": 1})
    link.unlink()
    link.symlink_to(tmp_path / "missing" / "target.json")
    with pytest.raises(NrmapError, match="a link to a missing folder"):
        files.write_json(link, {})
    assert not (tmp_path / "missing").exists()
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        with pytest.raises(NrmapError, match="no regular file"):
            files.write_json(place, {})
    assert pipe.is_fifo()
