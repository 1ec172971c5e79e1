"""Tracking without an account: what an offline run holds."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image
from wandb_files import (
    OFFLINE,
    artifacts_of,
    forget_account,
    parts,
    records_of,
    rows_of,
    runs_of,
    summary_of,
    tracked,
)

from nrmap.support.tracking import TrackingSpec


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path_factory):
    """A user whom W&B does not know; returns the home folder."""
    home = tmp_path_factory.mktemp("home")
    forget_account(monkeypatch, home)
    return home


@pytest.fixture
def own_session(no_account):
    wandb.teardown()
    yield
    wandb.teardown()


def test_an_offline_run_holds_what_was_logged(tmp_path, no_account, own_session):
    folder = tmp_path / "run"
    policy, picture = tmp_path / "policy.safetensors", tmp_path / "heatmap.png"
    policy.write_bytes(b"weights" * 1000)
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(picture)
    spec = TrackingSpec(mode="offline", project="tried", entity="team", tags=["mine", "Freeway"])
    with tracked(folder, spec) as tracker:
        tracker.log({"loss": 0.5, "q_mean": -1.25}, step=2000)
        tracker.log({"loss": 0.25}, step=4000)
        tracker.log({"recent_mean_return": 21.5}, step=4000)
        tracker.table("sparsity", ["map", "S", "note"], [["kmap", 20.5, None], ["hmap", None, "undefined"]])
        tracker.image("heatmaps/file", picture, caption="KMAP")
        tracker.image("heatmaps/array", pixels)
        tracker.summary({"seconds": 12.5})
        tracker.artifact("Freeway ddqn", "policy", [policy], metadata={"agent_steps": 4000})
        tracker.artifact("maps", "maps", {"renamed.bin": policy})
        policy.unlink()  # the copy was taken at once

    (part,) = parts(folder)
    told = summary_of(part)
    assert (told["run_id"], told["name"], told["project"], told["entity"]) == (
        "train-0a1b2c",
        "Freeway-ddqn-seed0",
        "tried",
        "team",
    )
    assert told["tags"] == ["mine", "Freeway"]
    assert told["config"] == {"method": "ddqn", "env": {"game": "Freeway", "height": 84}}
    assert (told["state"], told["exit_code"]) == ("finished", 0)

    (axis, every_curve) = records_of(part, "metric")
    assert axis["name"] == "agent_step"
    assert (every_curve["glob_name"], every_curve["step_metric"]) == ("*", "agent_step")

    first, second = rows_of(part)
    assert first == {"_step": 2000, "agent_step": 2000, "loss": 0.5, "q_mean": -1.25}
    assert {key: second[key] for key in ("_step", "agent_step", "loss", "recent_mean_return")} == {
        "_step": 4000,
        "agent_step": 4000,
        "loss": 0.25,
        "recent_mean_return": 21.5,
    }
    last = told["summary"]
    assert last["seconds"] == 12.5

    files = part / "files"
    table = json.loads((files / last["sparsity"]["path"]).read_text())
    assert table["columns"] == ["map", "S", "note"]
    assert table["data"] == [["kmap", 20.5, None], ["hmap", None, "undefined"]]
    for name in ("heatmaps/file", "heatmaps/array"):
        np.testing.assert_array_equal(np.array(Image.open(files / last[name]["path"])), pixels)
    assert last["heatmaps/file"]["caption"] == "KMAP"

    artifacts = artifacts_of(part)
    for name, kind, path_inside in (
        ("Freeway-ddqn", "policy", "policy.safetensors"),
        ("maps", "maps", "renamed.bin"),
    ):
        assert artifacts[name]["type"] == kind
        (entry,) = artifacts[name]["manifest"]["contents"]
        assert entry["path"] == path_inside
        payload = Path(entry["local_path"])
        assert payload.is_relative_to(folder / "wandb")
        assert payload.read_bytes() == b"weights" * 1000
    assert json.loads(artifacts["Freeway-ddqn"]["metadata"]) == {"agent_steps": 4000}
    assert [*no_account.rglob("*")] == [], "W&B wrote into the home directory"


def test_a_spec_names_the_group(tmp_path):
    for spec, group in ((OFFLINE, "Freeway-smoke"), (TrackingSpec(mode="offline", group="mine"), "mine")):
        folder = tmp_path / group
        with tracked(folder, spec):
            pass
        (part,) = parts(folder)
        (run,) = runs_of(part)
        assert (run["run_group"], run["job_type"]) == (group, "train")


def test_a_failed_run_is_told_so(tmp_path):
    with contextlib.suppress(ZeroDivisionError), tracked(tmp_path) as tracker:
        tracker.log({"loss": 1.0}, step=1)
        raise ZeroDivisionError
    (part,) = parts(tmp_path)
    told = summary_of(part)
    assert (told["exit_code"], told["summary"]["loss"]) == (1, 1.0)


def test_runs_in_one_process_stay_apart(tmp_path):
    with tracked(tmp_path / "outer", run_id="outer") as outer:
        outer.log({"loss": 1.0}, step=1)
        with tracked(tmp_path / "inner", run_id="inner") as inner:
            inner.log({"loss": 2.0}, step=7)
            outer.log({"loss": 3.0}, step=2)
    with tracked(tmp_path / "next", run_id="next") as following:
        following.log({"loss": 4.0}, step=1)
    found = {}
    for name in ("outer", "inner", "next"):
        (part,) = parts(tmp_path / name)
        assert summary_of(part)["run_id"] == name
        found[name] = [(row["_step"], row["loss"]) for row in rows_of(part)]
    assert found == {"outer": [(1, 1.0), (2, 3.0)], "inner": [(7, 2.0)], "next": [(1, 4.0)]}
