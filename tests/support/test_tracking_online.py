"""Tracking with an account."""

import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from wandb_files import parts, rows_of, summary_of, tracked
from wandb_server import server_with_account

import nrmap.support.wandb_tracker
from nrmap.support.tracking import TrackingSpec

RUN_ID = "train-0a1b2c"


@pytest.fixture
def server(monkeypatch, tmp_path):
    with server_with_account(monkeypatch, tmp_path / "home") as server:
        yield server


def tracked_in(folder, mode="auto"):
    return tracked(folder, TrackingSpec(mode=mode, tags=["mine"]), run_id=RUN_ID)


def points(rows):
    return [(row["_step"], row["agent_step"], row["loss"]) for row in rows if "loss" in row]


def test_with_a_key_the_run_goes_online(server, tmp_path):
    policy = tmp_path / "policy.safetensors"
    policy.write_bytes(b"weights")
    with tracked_in(tmp_path) as tracker:
        tracker.log({"loss": 0.5}, step=2000)
        tracker.image("heatmap", np.zeros((2, 2), dtype=np.uint8))
        tracker.log({"loss": 0.25}, step=4000)
        tracker.artifact("Freeway-ddqn", "policy", [policy])
    run = server.runs[RUN_ID]
    sent = {key: run["sent"][key] for key in ("project", "groupName", "jobType", "displayName", "tags")}
    assert sent == {
        "project": "nrmap",
        "groupName": "Freeway-smoke",
        "jobType": "train",
        "displayName": "Freeway-ddqn-seed0",
        "tags": ["mine", "Freeway"],
    }
    assert json.loads(run["sent"]["config"])["method"] == {"value": "ddqn"}
    assert points(run["rows"]) == [(2000, 2000, 0.5), (4000, 4000, 0.25)]
    assert "/" + run["rows"][0]["heatmap"]["path"] in server.uploads
    assert run["exit_codes"] == [0]
    assert server.committed == ["Freeway-ddqn"]
    assert server.uploads["/artifacts/Freeway-ddqn/policy.safetensors"] == b"weights"


def test_a_requeued_run_goes_on_without_repeating_points(server, tmp_path):
    with contextlib.suppress(KeyboardInterrupt), tracked_in(tmp_path) as tracker:
        for step in (100, 200, 300):
            tracker.log({"loss": 1.0 / step}, step=step)
        raise KeyboardInterrupt
    with tracked_in(tmp_path) as tracker:  # from a checkpoint at agent step 100
        for step in (200, 300, 400):
            tracker.log({"loss": 1.0 / step}, step=step)
    assert list(server.runs) == [RUN_ID]
    run = server.runs[RUN_ID]
    assert points(run["rows"]) == [(step, step, 1.0 / step) for step in (100, 200, 300, 400)]
    assert run["exit_codes"] == [1, 0]


def test_offline_parts_are_uploaded_as_one_run(server, tmp_path):
    for steps in ((100, 200, 300), (200, 300, 400)):
        with tracked_in(tmp_path, mode="offline") as tracker:
            for step in steps:
                tracker.log({"loss": 1.0 / step}, step=step)
    assert server.runs == {}
    command = [sys.executable, "-m", "wandb", "sync", *parts(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=tmp_path)
    assert list(server.runs) == [RUN_ID]
    # The overlap arrives twice, with the same values at the same agent steps.
    found = {(agent_step, loss) for _, agent_step, loss in points(server.runs[RUN_ID]["rows"])}
    assert found == {(step, 1.0 / step) for step in (100, 200, 300, 400)}
    assert server.runs[RUN_ID]["exit_codes"] == [0, 0]


@pytest.mark.parametrize("trouble", ["no server", "key refused"])
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_without_a_connection_the_run_is_kept_offline(server, monkeypatch, tmp_path, caplog, trouble, mode):
    monkeypatch.setattr(nrmap.support.wandb_tracker, "INIT_TIMEOUT", 1)
    if trouble == "no server":
        server.server_close()
    else:
        server.refuses = 401
    began = time.monotonic()
    with tracked_in(tmp_path, mode=mode) as tracker:
        tracker.log({"loss": 0.5}, step=1)
    assert time.monotonic() - began < 20
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("nrmap")]
    assert warning.startswith("W&B cannot be reached (")
    assert warning.endswith("Freeway-ddqn-seed0 is kept offline")
    assert "\n" not in warning
    (part,) = [part for part in parts(tmp_path) if part.name.startswith("offline-run-")]
    assert summary_of(part)["run_id"] == RUN_ID
    assert points(rows_of(part)) == [(1, 1, 0.5)]


def test_a_server_that_goes_away_neither_stops_nor_blocks_the_work(server, monkeypatch, tmp_path):
    monkeypatch.setattr(nrmap.support.wandb_tracker, "FINISH_TIMEOUT", 2)
    with tracked_in(tmp_path) as tracker:
        tracker.log({"loss": 0.5}, step=1)
        server.shutdown()
        server.server_close()
        began = time.monotonic()
        for step in range(2, 100):
            tracker.log({"loss": 1.0 / step}, step=step)
        assert time.monotonic() - began < 10
        began = time.monotonic()
    assert time.monotonic() - began < 20
    (part,) = parts(tmp_path)
    assert points(rows_of(part)) == [(1, 1, 0.5), *((step, step, 1.0 / step) for step in range(2, 100))]
