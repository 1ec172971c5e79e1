"""A user without a W&B account, a run to track, and the contents of W&B's local files."""

import json
import os
import subprocess
import time
from pathlib import Path

import wandb

from nrmap.support.tracking import TrackingSpec, track

KEY = "0123456789" * 4  # a well-formed one
OFFLINE = TrackingSpec(mode="offline")


def forget_account(monkeypatch, home):
    """Remove all traces of an account. W&B reads them once per session, which wandb.teardown() ends."""
    for name in [*os.environ]:
        if name.startswith(("WANDB_", "XDG_")) or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))


def tracked(folder, spec=OFFLINE, run_id="train-0a1b2c"):
    return track(
        spec, job_type="train", name="Freeway-ddqn-seed0", group="Freeway-smoke", run_id=run_id,
        config={"method": "ddqn", "env": {"game": "Freeway"}}, tags=["Freeway"], folder=folder,
    )  # fmt: skip


def parts(folder):
    """W&B's folders for the parts of a run, oldest first."""
    return sorted((folder / "wandb").glob("*run-*"))


def inspect(part, *options):
    """Output of `wandb leet inspect --json`, without the second that the Python command spends on imports."""
    (log_file,) = part.glob("*.wandb")
    program = Path(wandb.__file__).parent / "bin" / "wandb-core"
    command = [program, "leet", "inspect", "--no-observability", "--json", *options, "--run-file", log_file]
    return subprocess.run([*command, part.parent], capture_output=True, text=True, check=True, timeout=60).stdout


def records_of(part, kind, *, killed=False):
    """Records of one kind. W&B's service may close the file shortly after the run has finished."""
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


def table_of(part, name):
    """Columns and rows of a table."""
    table = json.loads((part / "files" / summary_of(part)["summary"][name]["path"]).read_text())
    return table["columns"], table["data"]


def rows_of(part, *, killed=False):
    """The history without W&B's own fields except the step."""
    rows = [history["item"] for history in records_of(part, "history", killed=killed)]
    return [{key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")} for row in rows]


def artifacts_of(part):
    """The bytes of each file of each artifact, by the artifact's name and type."""
    return {
        (artifact["name"], artifact["type"]): {
            entry["path"]: Path(entry["local_path"]).read_bytes() for entry in artifact["manifest"]["contents"]
        }
        for artifact in records_of(part, "artifact")
    }
