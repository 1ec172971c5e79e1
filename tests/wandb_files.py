"""A user without a W&B account, a run to track, and what W&B's local files hold of it."""

import json
import os
import subprocess
import time
from pathlib import Path

import wandb

from nrmap.support.tracking import TrackingSpec, track

# A key of the right form.
KEY = "0123456789" * 4
OFFLINE = TrackingSpec(mode="offline")


def forget_account(monkeypatch, home):
    """Leave nothing by which W&B would know the user; it reads this once a session, which wandb.teardown() ends."""
    for name in [*os.environ]:
        if (name.startswith(("WANDB_", "XDG_")) and name != "WANDB_SERVICE") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))


def tracked(folder, spec=OFFLINE, **changes):
    arguments = {
        "job_type": "train",
        "name": "Freeway-ddqn-seed0",
        "group": "Freeway-smoke",
        "run_id": "train-0a1b2c",
        "config": {"method": "ddqn", "env": {"game": "Freeway", "height": 84}},
        "tags": ["Freeway"],
        "folder": folder,
    }
    return track(spec, **{**arguments, **changes})


def parts(folder):
    """The folders W&B made for the parts of an interrupted run, oldest first."""
    return sorted((folder / "wandb").glob("*run-*"))


def inspect(part, *options):
    """What `wandb leet inspect --json` prints; the command itself spends a second on imports."""
    (log_file,) = part.glob("*.wandb")
    program = Path(wandb.__file__).parent / "bin" / "wandb-core"
    command = [program, "leet", "inspect", "--no-observability", "--json", *options, "--run-file", log_file]
    return subprocess.run([*command, part.parent], capture_output=True, text=True, check=True, timeout=60).stdout


def records_of(part, kind, *, killed=False):
    """Records of one kind; W&B's service may close the file a moment after the run has finished."""
    deadline = time.monotonic() + 20
    while True:
        records = [json.loads(line) for line in inspect(part).splitlines()]
        if killed or any(record["type"] == "exit" for record in records):
            return [record[kind] for record in records if record["type"] == kind]
        assert time.monotonic() < deadline, f"{part} was never finished"
        time.sleep(0.05)


def summary_of(part, *, killed=False):
    """Name, project, configuration, last values and exit code."""
    records_of(part, "exit", killed=killed)
    return json.loads(inspect(part, "--summary"))


def rows_of(part, *, killed=False):
    """The history, without W&B's own fields but the step."""
    rows = [history["item"] for history in records_of(part, "history", killed=killed)]
    return [{key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")} for row in rows]


def runs_of(part):
    """What the run says of itself: its id, name, group and job type."""
    return records_of(part, "run")


def artifacts_of(part):
    return {artifact["name"]: artifact for artifact in records_of(part, "artifact")}
