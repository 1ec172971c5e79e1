"""Stored Q-values: exact when read back, complete or absent, resumed after a kill, ablated once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import joined
from torch import Tensor

from nrmap.ablation import AblatedChunk
from nrmap.ablation.store import ablated_q_values
from nrmap.support.errors import NrmapError

KEY = {"policy_sha256": "ab", "states_sha256": "cd", "value": 0, "channels": "all"}
STATES = torch.arange(7 * 2 * 3 * 4, dtype=torch.uint8).view(7, 2, 3, 4)
PLENTY = 10**9


class LoggingEngine:
    """Random Q-values that depend only on the state; logs every ablated state to a file."""

    name = "incremental"
    rounding_floor = 0.0

    def __init__(self, journal: Path, *, seconds: float = 0.0, pixels: tuple[int, ...] = (3, 4)) -> None:
        self.journal, self.seconds, self.pixels = journal, seconds, pixels

    def ablate(self, states: Tensor, episode_ids: object = None) -> Iterator[AblatedChunk]:
        assert len(states), "no engine takes none"
        for start in range(0, len(states), 2):
            part = states[start : start + 2]
            with open(self.journal, "a") as file:
                file.write("".join(f"{state.flatten()[0]}\n" for state in part))
            time.sleep(self.seconds)
            generators = [torch.Generator().manual_seed(int(state.flatten()[0])) for state in part]
            q_values = [torch.rand(*self.pixels, 5, generator=generator) for generator in generators]
            yield AblatedChunk(start, torch.stack(q_values), part.flatten(1)[:, :5] / 3)


def ablated_states(engine: LoggingEngine) -> list[int]:
    """The ablated states without the first entry, which is ablated to learn the size."""
    return [int(line) // 24 for line in engine.journal.read_text().split()][1:]


def ablated(folder: Path, engine: LoggingEngine, budget: int = PLENTY, *, key=KEY, states=STATES):
    """All Q-values, stored in `folder` or read from there."""
    return joined(ablated_q_values(folder, engine, states, key=key, disk_budget=budget))


def assert_right(found: tuple[Tensor, Tensor], journal: Path, **options: tuple[int, ...]) -> None:
    """To the last bit what an engine computes that stores nothing; it logs to `journal`."""
    for ours, theirs in zip(found, joined(LoggingEngine(journal, **options).ablate(STATES)), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


@pytest.mark.bitwise
@pytest.mark.parametrize("pixels", [(3, 4), (2, 3, 4)])
def test_what_is_read_back_is_what_was_computed(tmp_path, pixels, monkeypatch):
    engine = LoggingEngine(tmp_path / "journal", pixels=pixels)
    for budget in (PLENTY, 0):  # computed, then read
        assert_right(ablated(tmp_path / "kept", engine, budget), tmp_path / "elsewhere", pixels=pixels)
        assert ablated_states(engine) == list(range(7))
    (file,) = tmp_path.glob("kept/**/*.npy")
    assert np.load(file).shape == (7, 1 + np.prod(pixels), 5)
    assert not list(tmp_path.glob("kept/**/*.partial"))
    monkeypatch.setattr("nrmap.ablation.store.READ_BYTES", 3 * (1 + np.prod(pixels)) * 5 * 4)
    chunks = list(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=0))
    assert [len(chunk.q_values) for chunk in chunks] == [3, 3, 1]
    assert_right(joined(iter(chunks)), tmp_path / "elsewhere", pixels=pixels)


def test_beyond_the_budget_nothing_is_kept_and_a_line_says_so(tmp_path, caplog):
    engine, size = LoggingEngine(tmp_path / "journal"), 7 * 13 * 5 * 4
    with caplog.at_level("INFO"):
        assert_right(ablated(tmp_path / "kept", engine, size - 1), tmp_path / "elsewhere")
    assert not (tmp_path / "kept").exists()
    (record,) = caplog.records
    assert f"{size:,} bytes, disk budget {size - 1:,}" in record.message
    ablated(tmp_path / "kept", engine, size)
    (file,) = tmp_path.glob("kept/**/*.npy")
    assert file.stat().st_size == size + 128


def test_what_was_written_before_a_kill_is_not_ablated_again(tmp_path):
    """A dropped iterator leaves the files that a killed process leaves, of its last chunk at most a part."""
    engine, resumed = LoggingEngine(tmp_path / "journal"), LoggingEngine(tmp_path / "resumed")
    interrupted = ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=PLENTY)
    next(interrupted), next(interrupted)
    interrupted.close()
    assert not list(tmp_path.glob("kept/**/*.npy"))
    with open(tmp_path / "kept" / "incremental" / "q_values.npy.partial", "ab") as file:
        file.write(b"garbage")
    for budget in (PLENTY, 0):
        assert_right(ablated(tmp_path / "kept", resumed, budget), tmp_path / "elsewhere")
        assert ablated_states(resumed) == list(range(4, 7))


def test_a_kill_before_the_last_rename_leaves_nothing_to_ablate(tmp_path, monkeypatch):
    engine, resumed = LoggingEngine(tmp_path / "journal"), LoggingEngine(tmp_path / "resumed")
    rename = Path.replace

    def rename_or_die(path: Path, target: Path) -> Path:
        if path.name == "q_values.npy.partial":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", rename_or_die)
    with pytest.raises(KeyboardInterrupt):
        ablated(tmp_path / "kept", engine)
    monkeypatch.undo()
    (unfinished,) = tmp_path.glob("kept/**/q_values*")
    assert_right(ablated(tmp_path / "kept", resumed), tmp_path / "elsewhere")
    assert ablated_states(resumed) == []
    assert [*tmp_path.glob("kept/**/q_values*")] == [unfinished.with_name("q_values.npy")] != [unfinished]


def test_of_several_at_the_same_time_one_ablates(tmp_path, monkeypatch):
    """The lock is of an open file, so that it keeps threads apart as it does processes."""
    monkeypatch.setattr("nrmap.support.locks.POLL_SECONDS", 0.01)
    engine = LoggingEngine(tmp_path / "journal", seconds=0.05)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: ablated(tmp_path / "kept", engine), range(3)):
            assert_right(found, tmp_path / "elsewhere")
    states = sorted(int(line) // 24 for line in engine.journal.read_text().split())
    assert states[-6:] == list(range(1, 7))
    assert states.count(0) <= 1 + 3, "each may look at the first state to know the size"


def test_a_file_without_actions_is_damaged(tmp_path):
    engine = LoggingEngine(tmp_path / "journal")
    ablated(tmp_path, engine)
    np.save(next(tmp_path.rglob("q_values.npy")), np.zeros((7, 13, 0), dtype=np.float32))
    with pytest.raises(NrmapError, match=r"q_values\.npy is damaged \(it has shape \(7, 13, 0\)\): remove"):
        ablated(tmp_path, engine)


@pytest.mark.parametrize("swapped", [("q_values.npy",), ("q_values.npy", "progress.json")], ids=" ".join)
@pytest.mark.parametrize("chunks", [None, 2])
def test_the_q_values_of_another_key_are_refused(swapped, chunks, tmp_path):
    """Of finished files, and of those that a killed process left after some chunks."""
    engine, keys = LoggingEngine(tmp_path / "journal"), {n: {**KEY, "policy_sha256": n} for n in ("ab", "cd")}
    for name, key in keys.items():
        interrupted = ablated_q_values(tmp_path / name, engine, STATES + (name == "cd"), key=key, disk_budget=PLENTY)
        list(islice(interrupted, chunks))
        interrupted.close()
    ending = "" if chunks is None else ".partial"
    for name in swapped:
        name += ending if name == "q_values.npy" else ""
        mine, other = (tmp_path / each / "incremental" / name for each in keys)
        mine.write_bytes(other.read_bytes())
    with pytest.raises(NrmapError, match=rf"q_values\.npy{ending} has changed since it was written, or is of other"):
        ablated(tmp_path / "ab", engine, key=keys["ab"])


def test_a_file_without_a_digest_is_made_anew(tmp_path):
    """Earlier versions wrote none."""
    engine = LoggingEngine(tmp_path / "journal")
    ablated(tmp_path / "kept", engine)
    next(tmp_path.rglob("progress.json")).unlink()
    assert_right(ablated(tmp_path / "kept", engine), tmp_path / "elsewhere")
    assert ablated_states(engine).count(6) == 2


def test_another_key_is_refused_and_engines_do_not_share_their_results(tmp_path):
    engine, other = LoggingEngine(tmp_path / "journal"), LoggingEngine(tmp_path / "other")
    other.name = "dense"
    for each in (engine, other):
        ablated(tmp_path, each)
        assert ablated_states(each) == list(range(7))
    for key, states in (({**KEY, "value": 1}, STATES), (KEY, STATES[:3])):
        with pytest.raises(NrmapError, match="has ablated Q-values for"):
            ablated(tmp_path, engine, key=key, states=states)
