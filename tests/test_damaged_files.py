"""A damaged file of any format is one line that names it or is read unchanged, in little time and memory."""

import contextlib
import functools
import io
import json
import math
import os
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from example_outputs import SMALL, synthetic_states
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import array_header, changed_json, damages, rewritten_zip
from swept_maps import CLEAN, Q_VALUES, chunked, sweep
from toy_policies import FREEWAY, toy_policy

from analyze.report.build import Manifest
from analyze.report.load import find
from nrmap.ablation.store import ablated_q_values
from nrmap.learning.recorded import GivenOptions, RecordedCurves, RecordedSettings
from nrmap.maps.episode_maps import EpisodeMaps, load_maps, save_maps
from nrmap.play.states import RolloutStates, load_states, save_states
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json, write_json
from nrmap.support.records import Record, read_metrics, write_records
from nrmap.support.schema import Name
from train.checkpoint import load_checkpoint, save_checkpoint

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]
MOST_SECONDS = 5.0  # of the processor, for one file
MOST_MEMORY = 400 * 2**20
SHA256 = "ab" * 32


class _Engine:
    name = "dense"
    rounding_floor = 0.0

    def ablate(self, states: torch.Tensor, episode_ids: object = None) -> Any:
        yield from chunked(Q_VALUES[: len(states)], CLEAN[: len(states)], size=len(states))


def written_or_read(path: Path) -> Any:
    states = torch.zeros((4, 1, 2, 3), dtype=torch.uint8)
    chunks = ablated_q_values(path.parents[1], _Engine(), states, key={"policy_sha256": SHA256}, disk_budget=10**9)
    return [(chunk.start, chunk.q_values, chunk.clean_q_values) for chunk in chunks]


@functools.cache
def small_policy() -> Policy:
    policy = toy_policy(FREEWAY)
    policy.card = replace(policy.card, settings={"gamma": 0.9, "env": ENV}, parent_sha256=SHA256)
    return policy


RECORDS = [
    Record("Freeway", "ddqn", 0, "sparsity", 3.5, 1.0, 4.0, "jackknife", map_kind="kmap", num_states=4, episodes=2),
    Record("Freeway", "ddqn", 0, "return", None, note="none", attack="clean", policy_sha256=SHA256),
]
ENV = {"game": "Freeway", "height": 84}
CURVES = {
    "episodes": [{"agent_step": 3, "undiscounted_return": 1.5, "env": 0, "length": 3}],
    "rows": [{"agent_step": 5, "loss": 0.5}], "seconds": 2.5,
}  # fmt: skip
SETTINGS = {"env": ENV, "method": "ddqn", "seed": 1, "steps": 9, "parent": {**dict.fromkeys("ab"), "env": ENV}}
SETTINGS["parent"] |= {"method": "ddqn", "seed": 1, "steps": 9}


STATE = {"machine": {"device": "cpu"}, "a": [torch.arange(5.0), np.arange(3)]}


def made_up_states() -> RolloutStates:
    return synthetic_states(small_policy(), replace(SMALL, num_states=6, episodes=3))


def made_up_maps() -> EpisodeMaps:
    return sweep(Q_VALUES, CLEAN, [3, 3, 5, 5], prefix_sizes=(2,))


@dataclass(frozen=True)
class Format:
    """A writer and a reader of a file. `checked`: the reader notices every change that matters."""

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    checked: bool = False


def json_format(name: str, content: Any, form: Any) -> Format:
    return Format(f"{name}.json", lambda path: write_json(path, content), lambda path: read_json(path, form))


FORMATS = (
    Format("policy.safetensors", lambda path: save_policy(path, small_policy()), load_policy, checked=True),
    Format("checkpoint.safetensors", lambda path: save_checkpoint(path, STATE), load_checkpoint, checked=True),
    Format("states.npz", lambda path: save_states(path, made_up_states()), load_states, checked=True),
    Format("maps.npz", lambda path: save_maps(path, made_up_maps(), {"policy": "p"}), load_maps, checked=True),
    Format("metrics.json", lambda path: write_records(path, RECORDS, settings={"a": 1}, inputs={}), read_metrics),
    json_format("curves", CURVES, RecordedCurves),
    json_format("settings", SETTINGS, RecordedSettings),
    json_format("options", ["env=Freeway", "seed=1"], GivenOptions),
    json_format("figures", {"heatmaps": "heatmaps.png"}, dict[str, Name]),
    json_format("manifest", {"identity": "abc", "files": ["index.html"], "problems": []}, Manifest),
    *(
        Format(f"dense/{name}", written_or_read, written_or_read, checked=True)
        for name in ("q_values.npy", "key.json", "progress.json")
    ),
)
FUZZ = settings(suppress_health_check=list(HealthCheck))


def each_of(formats: Iterable[Format]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("format_", list(formats), ids=lambda format_: format_.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@functools.cache
def original(format_: Format, folder: Path) -> tuple[Path, bytes, Any]:
    """A whole file of a format, its bytes and its content."""
    path = folder / format_.name.replace("/", "_") / format_.name
    path.parent.mkdir(parents=True)
    format_.write(path)
    return path, path.read_bytes(), plain(format_.read(path))


def restored(format_: Format, folder: Path) -> tuple[Path, bytes, Any]:
    """The same with the file whole again, whatever a test has made of it."""
    path, whole, content = original(format_, folder)
    path.write_bytes(whole)
    if path.parent.name == "dense":  # a reader of a damaged part writes others
        format_.read(path)
    return path, whole, content


def memory() -> tuple[int, int]:
    """The bytes of memory that this process uses, and the most since the last call; 0 and 0 where /proc is not."""
    if sys.platform != "linux":
        return 0, 0
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
    now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def outcome(format_: Format, path: Path) -> Any:
    """The content of the file; None if it is refused in one line that names it."""
    (before, _), begun = memory(), time.process_time()
    try:
        return format_.read(path)
    except NrmapError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, message
        assert path.name in message or str(path.parent) in message, message
        message.encode()
        return None
    finally:
        assert time.process_time() - begun < MOST_SECONDS
        assert memory()[1] - before < MOST_MEMORY


def plain(value: Any) -> Any:
    """`value` in types that `==` compares by content, with types and bits of arrays."""
    if isinstance(value, Policy):
        return plain((value.card, value.env, value.network.spec, dict(value.network.state_dict()), value.sha256))
    if isinstance(value, torch.Tensor | np.ndarray):
        array = np.asarray(value)
        return type(value).__name__, str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return repr(value)


@each_of(FORMATS)
@FUZZ
@given(st.data())
def test_damaged_bytes_are_noticed_or_change_nothing(format_: Format, folder: Path, data: st.DataObject) -> None:
    path, whole, expected = restored(format_, folder)
    path.write_bytes(data.draw(damages(len(whole)))(whole))
    found = outcome(format_, path)
    assert found is None or not format_.checked or plain(found) == expected


def other_json(whole: bytes, data: st.DataObject) -> bytes:
    return data.draw(changed_json(json.loads(whole))).encode()


def other_metadata(whole: bytes, data: st.DataObject) -> bytes:
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    (key,) = {"nrmap", "state"} & header["__metadata__"].keys()
    changed = data.draw(changed_json(json.loads(header["__metadata__"][key])))
    return safetensors.torch.save(safetensors.torch.load(whole), {"format": "2", key: changed})


def other_arrays(whole: bytes, data: st.DataObject) -> bytes:
    def change(members: dict[str, bytes]) -> None:
        name = data.draw(st.sampled_from(sorted(members)))
        array = np.load(io.BytesIO(members[name]))
        kind = data.draw(st.sampled_from(("header", "drop", "type", "shape", "value", "claim", "bomb")))
        if array.dtype.kind == "U":
            array = np.array(data.draw(changed_json(json.loads(str(array)))).encode().decode(errors="replace"))
        elif kind == "drop":
            del members[name]
            return
        elif kind == "type":
            array = array.astype(data.draw(st.sampled_from((np.float32, np.int32, ">f8", np.complex64, object, "U3"))))
        elif kind == "shape":
            array = data.draw(st.sampled_from((array[:0], array[:1], array[None], array.ravel(), np.zeros((0, 0, 0)))))
        elif kind == "value" and array.size:
            array = array.copy()
            extreme = data.draw(st.sampled_from((np.inf, np.nan, -1, 2**62)))
            with np.errstate(all="ignore"):
                array.flat[data.draw(st.integers(0, array.size - 1))] = np.array(extreme).astype(array.dtype)
        elif kind in ("claim", "bomb"):
            shape = data.draw(st.sampled_from(((2**31, 2**30), (10**15,), (-1, 4), (2**62, 2**62), (2**31, 1, 42, 42))))
            members[name] = array_header(array.dtype, shape) + (b"\0" * 2**20 if kind == "bomb" else b"")
            return
        content = io.BytesIO()
        np.save(content, array, allow_pickle=True)
        members[name] = content.getvalue()

    return rewritten_zip(whole, change)


OTHER_FORMS = {".json": other_json, ".safetensors": other_metadata, ".npz": other_arrays}


@each_of(each for each in FORMATS if Path(each.name).suffix in OTHER_FORMS)
@FUZZ
@given(st.data())
def test_content_of_another_form_is_refused_or_read(format_: Format, folder: Path, data: st.DataObject) -> None:
    path, whole, _ = restored(format_, folder)
    path.write_bytes(OTHER_FORMS[path.suffix](whole, data))
    outcome(format_, path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(path.parent):  # names of sockets are short
        bound.bind(path.name)


@each_of(FORMATS)
@pytest.mark.parametrize(
    "make",
    [
        lambda path: None, os.mkfifo, Path.mkdir, a_socket, Path.touch, lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to("/dev/zero"), lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text("9" * 5_000),
        lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{" * 100),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused_at_once(
    format_: Format, make: Callable[[Path], Any], folder: Path, tmp_path: Path
) -> None:
    whole_path, _, expected = restored(format_, folder)
    path = shutil.copytree(whole_path.parent, tmp_path / whole_path.parent.name) / whole_path.name
    path.unlink()
    make(path)
    found = outcome(format_, path)
    if "dense" in format_.name:  # a missing part of stored Q-values is computed anew
        assert found is None or plain(found) == expected
    else:
        assert found is None


def test_a_zip_bomb_asks_for_no_memory(folder: Path) -> None:
    states = next(each for each in FORMATS if each.name == "states.npz")
    path, whole, _ = original(states, folder)
    shape = (3 * 10**6, 1, 42, 42)
    header = array_header(np.dtype(np.uint8), shape)
    whole = rewritten_zip(whole, lambda members: members.update({"states.npy": header}))
    # The directory of the archive claims what the array claims.
    at = whole.rindex(b"states.npy") - 46 + 24
    path.write_bytes(whole[:at] + struct.pack("<I", (len(header) + math.prod(shape)) % 2**32) + whole[at + 4 :])
    with pytest.raises(NrmapError, match="its arrays claim"):
        states.read(path)


found_in_whole = functools.cache(find)


@settings(FUZZ, max_examples=settings().max_examples // 4)
@given(st.data())
def test_the_report_leaves_out_what_is_damaged_and_goes_on(outputs: Path, data: st.DataObject) -> None:
    names = ("policy.safetensors", "curves.json", "metrics.json", "maps.npz")
    files = sorted(path for name in names for path in outputs.rglob(name) if "report" not in path.parts)
    path, before = data.draw(st.sampled_from(files)), found_in_whole(outputs)
    whole = path.read_bytes()
    try:
        path.write_bytes(other_json(whole, data) if path.suffix == ".json" else data.draw(damages(len(whole)))(whole))
        found = find(outputs)
    finally:
        path.write_bytes(whole)
    left_out = [problem for problem in found.problems if problem not in before.problems]
    assert len(found.results) >= len(before.results) - len(left_out)
    assert all(len(problem.splitlines()) == 1 for problem in left_out)
