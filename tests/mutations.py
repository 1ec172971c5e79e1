"""Damaged copies of a file: flipped bits, lengths and sizes that are claimed, JSON with parts of another kind."""

import copy
import json
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from hypothesis import strategies as st

NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]
# Values of the wrong type, size, depth or encoding for nearly every key.
ODD_VALUES = (
    None, True, -1, 0, 3, 2**63, 10**60, 1.5, -1e308, float("nan"), float("inf"), "", "x", "../../evil", "/tmp/x",
    "a\0b", "\ud800", "y" * 400, [], [0], [[1, 2]], {}, {"a": 1}, NESTED,
)  # fmt: skip


@st.composite
def damages(draw: st.DrawFn, size: int) -> Callable[[bytes], bytes]:
    """A function that flips bits of a file of `size` bytes, writes a large number, cuts, repeats or lengthens it.

    A function and not the damaged bytes, because hypothesis keeps all that it drew, here gigabytes.
    """
    last = max(size - 1, 0)
    # Headers are at both ends.
    place = draw(st.integers(0, last) | st.integers(0, min(last, 2_000)) | st.integers(max(last - 4_000, 0), last))
    kind = draw(st.sampled_from(("flip", "number", "cut", "remove", "repeat", "append", "swap")))
    if kind == "flip":
        mask = draw(st.integers(1, 255))
        return lambda whole: whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]
    if kind == "number":
        width = draw(st.sampled_from((2, 4, 8)))
        number = draw(st.sampled_from((2 ** (8 * width) - 1, 2 ** (8 * width - 1) - 1, 0, 2 ** (4 * width))))
        return lambda whole: whole[:place] + number.to_bytes(width, "little") + whole[place + width :]
    if kind == "cut":
        return lambda whole: whole[:place]
    if kind == "remove":
        removed = draw(st.integers(1, 300))
        return lambda whole: whole[:place] + whole[place + removed :]
    if kind == "repeat":
        return lambda whole: whole[:place] + whole[place // 2 :]
    if kind == "append":
        appended = draw(st.binary(min_size=1, max_size=50))
        return lambda whole: whole + appended
    return lambda whole: whole[place:] + whole[:place]


@st.composite
def changed_json(draw: st.DrawFn, content: Any) -> str:
    """`content` as JSON after one change somewhere: a key removed, added or renamed, a value of another kind."""
    changed = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(min(len(value), 3)) if isinstance(value, list) else ():
            places.append((value, key))
            visit(value[key])

    visit(changed)
    if not places or draw(st.integers(0, 20)) == 0:
        return json.dumps(draw(st.sampled_from(ODD_VALUES)))
    parent, key = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(("value", "value", "remove", "add", "rename")))
    if kind == "value":
        parent[key] = draw(st.sampled_from(ODD_VALUES))
    elif kind == "remove":
        del parent[key]
    elif isinstance(parent, dict):
        parent[draw(st.sampled_from(("x", "stage", "format", "schema", "../x")))] = (
            parent.pop(key) if kind == "rename" else 1
        )
    else:
        parent.append(draw(st.sampled_from(ODD_VALUES)))
    return json.dumps(changed)


def rewritten_zip(whole: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The zip file `whole` after `change` of its members' bytes, with checksums that fit."""
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    return zipped(members)


def zipped(members: Mapping[str, bytes]) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def array_header(dtype: np.dtype | type, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file, which claims `shape`."""
    header = BytesIO()
    descr = np.dtype(dtype).str
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()
