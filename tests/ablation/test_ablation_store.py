"""Stored Q-values: exact when read back, complete or absent, resumed after a kill, ablated once."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
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
        self.journal = journal
        self.seconds = seconds
        self.pixels = pixels

    def ablate(self, states: Tensor) -> Iterator[AblatedChunk]:
        for start in range(0, len(states), 2):
            part = states[start : start + 2]
            with open(self.journal, "a") as file:
                file.write("".join(f"{state.flatten()[0]}\n" for state in part))
            time.sleep(self.seconds)
            q_values = [
                torch.rand(*self.pixels, 5, generator=torch.Generator().manual_seed(int(state.flatten()[0])))
                for state in part
            ]
            yield AblatedChunk(start, torch.stack(q_values), part.flatten(1)[:, :5] / 3)


def ablated_states(engine: LoggingEngine) -> list[int]:
    """The ablated states without the first entry, which is ablated to learn the size."""
    return [int(line) // 24 for line in engine.journal.read_text().split()][1:]


def joined(chunks: Iterator[AblatedChunk]) -> tuple[Tensor, Tensor]:
    collected = list(chunks)
    lengths = [len(chunk.q_values) for chunk in collected]
    assert [chunk.start for chunk in collected] == [sum(lengths[:index]) for index in range(len(lengths))]
    return torch.cat([c.q_values for c in collected]), torch.cat([c.clean_q_values for c in collected])


def expected(tmp_path: Path, **options: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return joined(LoggingEngine(tmp_path / "elsewhere", **options).ablate(STATES))


def assert_same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


@pytest.mark.bitwise
@pytest.mark.parametrize("pixels", [(3, 4), (2, 3, 4)])
def test_what_is_read_back_is_what_was_computed(tmp_path, pixels):
    engine = LoggingEngine(tmp_path / "journal", pixels=pixels)
    first = joined(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=PLENTY))
    assert ablated_states(engine) == list(range(7))
    again = joined(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=0))
    assert ablated_states(engine) == list(range(7))
    assert_same(first, expected(tmp_path, pixels=pixels))
    assert_same(again, first)
    (file,) = tmp_path.glob("kept/**/*.npy")
    assert np.load(file).shape == (7, 1 + np.prod(pixels), 5)
    assert not list(tmp_path.glob("kept/**/*.partial"))


def test_reading_goes_by_parts(tmp_path, monkeypatch):
    engine = LoggingEngine(tmp_path / "journal")
    joined(ablated_q_values(tmp_path, engine, STATES, key=KEY, disk_budget=PLENTY))
    monkeypatch.setattr("nrmap.ablation.store.READ_BYTES", 3 * 13 * 5 * 4)
    chunks = list(ablated_q_values(tmp_path, engine, STATES, key=KEY, disk_budget=PLENTY))
    assert [len(chunk.q_values) for chunk in chunks] == [3, 3, 1]
    assert_same(joined(iter(chunks)), expected(tmp_path))


def test_beyond_the_budget_nothing_is_kept_and_a_line_says_so(tmp_path, caplog):
    engine = LoggingEngine(tmp_path / "journal")
    size = 7 * 13 * 5 * 4
    with caplog.at_level("INFO"):
        streamed = joined(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=size - 1))
    assert_same(streamed, expected(tmp_path))
    assert not (tmp_path / "kept").exists()
    (record,) = caplog.records
    assert f"{size:,} bytes, disk budget {size - 1:,}" in record.message
    joined(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=size))
    (file,) = tmp_path.glob("kept/**/*.npy")
    assert file.stat().st_size == size + 128


def ablate_in_a_process(folder: Path, journal: Path, seconds: float) -> None:
    engine = LoggingEngine(journal, seconds=seconds)
    found = joined(ablated_q_values(folder, engine, STATES, key=KEY, disk_budget=PLENTY))
    torch.save(found, journal.with_name(f"{journal.name}-{os.getpid()}.pt"))


def start(*arguments: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(target=ablate_in_a_process, args=arguments)
    process.start()
    return process


def test_a_killed_process_leaves_nothing_that_counts_as_done(tmp_path):
    process = start(tmp_path / "kept", tmp_path / "journal", 0.2)
    progress = tmp_path / "kept" / "incremental" / "progress.json"
    deadline = time.monotonic() + 120
    while not (progress.exists() and json.loads(progress.read_text())["states"] >= 2):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = json.loads(progress.read_text())["states"]
    assert done < 7
    assert not list(tmp_path.glob("kept/**/*.npy"))
    # Half a chunk that was on its way when the process died.
    with open(tmp_path / "kept" / "incremental" / "q_values.npy.partial", "ab") as file:
        file.write(b"garbage")
    engine = LoggingEngine(tmp_path / "resumed")
    found = joined(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=PLENTY))
    assert_same(found, expected(tmp_path))
    assert ablated_states(engine) == list(range(done, 7))
    assert_same(joined(ablated_q_values(tmp_path / "kept", engine, STATES, key=KEY, disk_budget=0)), found)


def test_of_parallel_processes_one_ablates(tmp_path):
    processes = [start(tmp_path / "kept", tmp_path / "journal", 0.1) for _ in range(2)]
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    results = [torch.load(path) for path in tmp_path.glob("journal-*.pt")]
    assert len(results) == 2
    for found in results:
        assert_same(found, expected(tmp_path))
    ablated = [int(line) // 24 for line in (tmp_path / "journal").read_text().split()]
    # Each process may look at the first state to know the size.
    assert sorted(ablated)[-6:] == list(range(1, 7))
    assert ablated.count(0) <= 1 + len(processes)


def test_another_key_is_refused_and_engines_do_not_share_their_results(tmp_path):
    engine, other = LoggingEngine(tmp_path / "journal"), LoggingEngine(tmp_path / "other")
    other.name = "dense"
    for each in (engine, other):
        joined(ablated_q_values(tmp_path, each, STATES, key=KEY, disk_budget=PLENTY))
        assert ablated_states(each) == list(range(7))
    for key, states in (({**KEY, "value": 1}, STATES), (KEY, STATES[:3])):
        with pytest.raises(NrmapError, match="has ablated Q-values for"):
            joined(ablated_q_values(tmp_path, engine, states, key=key, disk_budget=PLENTY))
