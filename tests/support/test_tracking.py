"""Tracking: modes, the contents of a run, and failures that must not stop the work."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from wandb_files import KEY, artifacts_of, forget_account, parts, records_of, rows_of, summary_of, tracked
from wandb_server import server_with_account

import nrmap.support.tracking
from nrmap.support.errors import NrmapError
from nrmap.support.tracking import TrackingSpec, decide_mode

RUN_ID = "train-0a1b2c"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory):
    """The empty home directory of a user without a W&B account."""
    home = tmp_path_factory.mktemp("home")
    forget_account(monkeypatch, home)
    return home


@pytest.fixture
def own_session(home):
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch, home):
    with server_with_account(monkeypatch, home) as server:
        yield server


def the_warning(caplog):
    """The only line that this project has logged."""
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("nrmap")]
    assert "\n" not in warning
    return warning


def losses(rows):
    return [(row["_step"], row["agent_step"], row["loss"]) for row in rows if "loss" in row]


def test_an_offline_run_holds_what_was_logged_and_nothing_lies_elsewhere(tmp_path, home, own_session):
    (policy := tmp_path / "policy.safetensors").write_bytes(b"weights" * 1000)
    with tracked(tmp_path) as tracker:
        tracker.log({"loss": 0.5, "q_mean": -1.25}, step=2000)
        tracker.log({"loss": 0.25}, step=4000)
        tracker.log({"recent_mean_return": 21.5}, step=4000)
        tracker.artifact("Freeway/ddqn 0", "policy", [policy])
        policy.unlink()  # the artifact has its own copy
    (part,) = parts(tmp_path)
    assert [metric.get("step_metric") for metric in records_of(part, "metric")] == [None, "agent_step"]
    first, second = rows_of(part)
    assert first == {"_step": 2000, "agent_step": 2000, "loss": 0.5, "q_mean": -1.25}
    assert second.items() >= {"_step": 4000, "agent_step": 4000, "loss": 0.25, "recent_mean_return": 21.5}.items()
    assert artifacts_of(part)["Freeway-ddqn-0", "policy"] == {"policy.safetensors": b"weights" * 1000}
    assert [*home.rglob("*")] == [], "W&B wrote into the home directory"


def test_nested_and_later_runs_of_a_process_stay_apart(tmp_path):
    with tracked(tmp_path / "outer", run_id="outer") as outer:
        outer.log({"loss": 1.0}, step=1)
        with contextlib.suppress(ZeroDivisionError), tracked(tmp_path / "inner", run_id="inner") as inner:
            inner.log({"loss": 2.0}, step=7)
            outer.log({"loss": 3.0}, step=2)
            raise ZeroDivisionError
    with tracked(tmp_path / "next", run_id="next") as following:
        following.log({"loss": 4.0}, step=1)
    for name, expected in (("outer", [(1, 1, 1.0), (2, 2, 3.0)]), ("inner", [(7, 7, 2.0)]), ("next", [(1, 1, 4.0)])):
        (part,) = parts(tmp_path / name)
        whole = summary_of(part)
        assert (whole["run_id"], whole["exit_code"]) == (name, int(name == "inner"))
        assert losses(rows_of(part)) == expected


LOG_UNTIL_KILLED = """
import sys, time
from pathlib import Path
import nrmap.support.tracking
from wandb_files import tracked
nrmap.support.tracking.FLUSH_INTERVAL = 0.1
first_step = int(sys.argv[2])
with tracked(Path(sys.argv[1])) as tracker:
    for step in range(first_step, 10**6):
        tracker.log({"loss": 1.0 / step}, step=step)
        time.sleep(0.005)
        if step == first_step + 100:
            print("logged", flush=True)
"""


def test_a_killed_run_keeps_its_points_and_continues_under_its_id(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for first_step in ("1", "50"):
        command = [sys.executable, "-c", LOG_UNTIL_KILLED, str(tmp_path), first_step]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "logged\n"
            process.kill()
    for part, first_step in zip(parts(tmp_path), (1, 50), strict=True):
        assert summary_of(part, killed=True)["run_id"] == RUN_ID
        rows = losses(rows_of(part, killed=True))
        assert rows == [(step, step, 1.0 / step) for step in range(first_step, first_step + len(rows))]
        assert len(rows) > 50


@pytest.mark.parametrize(
    ("setting", "wandb_mode", "has_key", "expected"),
    [
        ("online", "disabled", True, "online"), ("online", None, False, NrmapError),
        ("offline", "online", True, "offline"), ("disabled", "online", True, "disabled"),
        ("auto", "online", True, "online"), ("auto", "online", False, NrmapError), ("auto", "run", True, "online"),
        ("auto", "dryrun", True, "offline"), ("auto", "onlin", True, NrmapError),
    ],
)  # fmt: skip
def test_the_mode_is_that_of_the_setting_then_the_environment_then_the_key(
    monkeypatch, setting, wandb_mode, has_key, expected
):
    monkeypatch.setattr("wandb.login", lambda *, prompt, verify: has_key and not prompt and not verify)
    with pytest.raises(NrmapError) if expected is NrmapError else contextlib.nullcontext():
        assert decide_mode(TrackingSpec(mode=setting), {"WANDB_MODE": wandb_mode}) == expected


def test_the_key_is_found_where_users_keep_it(monkeypatch, home, caplog, own_session):
    monkeypatch.setenv("WANDB_BASE_URL", "http://192.0.2.1")  # a reserved address, where nothing answers
    began = time.monotonic()
    assert decide_mode(TrackingSpec(), {}) == "offline"
    (home / ".netrc").write_text(f"machine 192.0.2.1\n  login user\n  password {KEY}\n")
    (home / ".netrc").chmod(0o600)
    wandb.teardown()
    assert decide_mode(TrackingSpec(), {}) == "online"
    for key, mode in ((KEY, "online"), ("0123", "offline")):
        monkeypatch.setenv("WANDB_API_KEY", key)
        wandb.teardown()
        assert decide_mode(TrackingSpec(), {}) == mode
    assert "WANDB_API_KEY invalid" in the_warning(caplog)
    assert time.monotonic() - began < 30, "deciding the mode waited for the network"


def test_disabled_tracking_writes_nothing_and_does_not_import_wandb(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracked(tmp_path / "run", TrackingSpec(mode="disabled")) as tracker:
        assert not tracker.is_active
        tracker.log({"loss": 1.0}, step=1)
        tracker.table("t", ["a"], [[1]])
        tracker.artifact("a", "policy", [Path("no such file")])
    assert [*tmp_path.iterdir()] == caplog.records == []


@pytest.mark.parametrize(
    ("fault", "message"), [("no wandb", "wandb cannot"), ("no folder", "cannot write "), ("init", "W&B cannot start")]
)
def test_work_goes_on_untracked_if_wandb_cannot_start(monkeypatch, tmp_path, caplog, fault, message):
    if fault == "no wandb":
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(NrmapError, match=r"^wandb cannot be imported"):
            decide_mode(TrackingSpec(mode="online"), {})
    elif fault == "no folder":
        (tmp_path / "run").write_text("in the way")
    else:
        monkeypatch.setattr(wandb, "init", None)
    with tracked(tmp_path / "run") as tracker:
        tracker.log({"loss": 1.0}, step=1)
        assert not tracker.is_active
    assert re.fullmatch(f"{message}.*: the work goes on without W&B", the_warning(caplog))
    if fault == "no wandb":
        assert decide_mode(TrackingSpec(), {}) == "disabled"


def test_a_failing_call_is_one_warning_and_later_calls_are_kept(tmp_path, caplog):
    with tracked(tmp_path) as tracker:
        tracker.table("t", ["a", "b"], [[1]])
        tracker.image("i", tmp_path / "missing.png")
        tracker.artifact("a", "policy", [tmp_path / "missing"])
        tracker.log({"loss": 1.0}, step=1)
    assert "tracking failed (ValueError: This table expects 2 columns" in the_warning(caplog)
    (part,) = parts(tmp_path)
    assert (rows_of(part), artifacts_of(part)) == ([{"_step": 1, "agent_step": 1, "loss": 1.0}], {})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds W&B's service in /proc")
def test_work_goes_on_if_wandb_dies_and_the_next_run_is_tracked(tmp_path, caplog, own_session):
    began = time.monotonic()
    with tracked(tmp_path / "run") as tracker:
        tracker.log({"loss": 1.0}, step=1)
        children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
        (service,) = [pid for pid in children if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(service, signal.SIGKILL)
        time.sleep(0.5)
        for step in range(2, 50):
            tracker.log({"loss": 1.0}, step=step)
        tracker.table("t", ["a"], [[1]])
    assert time.monotonic() - began < 20
    assert "the work goes on" in the_warning(caplog)
    with tracked(tmp_path / "next", run_id="next") as tracker:
        tracker.log({"loss": 5.0}, step=1)
    (part,) = parts(tmp_path / "next")
    assert losses(rows_of(part)) == [(1, 1, 5.0)]


def test_an_online_run_resumes_without_repeated_points(server, tmp_path):
    spec = TrackingSpec(entity="team", group="mine", tags=("mine",))
    with contextlib.suppress(KeyboardInterrupt), tracked(tmp_path, spec) as tracker:
        for step in (100, 200, 300):
            tracker.log({"loss": 1.0 / step}, step=step)
        raise KeyboardInterrupt
    with tracked(tmp_path, spec) as tracker:  # from a checkpoint at agent step 100
        for step in (200, 300, 400):
            tracker.log({"loss": 1.0 / step}, step=step)
    ((run_id, run),) = server.runs.items()
    sent = [run["sent"][key] for key in ("project", "entity", "groupName", "jobType", "displayName", "tags")]
    assert (run_id, *sent) == (RUN_ID, "nrmap", "team", "mine", "train", "Freeway-ddqn-seed0", ["mine", "Freeway"])
    assert json.loads(run["sent"]["config"])["method"] == {"value": "ddqn"}
    assert losses(run["rows"]) == [(step, step, 1.0 / step) for step in (100, 200, 300, 400)]
    assert run["exit_codes"] == [1, 0]


@pytest.mark.parametrize("trouble", ["no server", "key refused"])
def test_without_a_connection_the_run_is_kept_offline(server, monkeypatch, tmp_path, caplog, trouble):
    monkeypatch.setattr(nrmap.support.tracking, "INIT_TIMEOUT", 1)
    server.refuses = 401
    if trouble == "no server":
        server.server_close()
    began = time.monotonic()
    with tracked(tmp_path, TrackingSpec()) as tracker:
        tracker.log({"loss": 0.5}, step=1)
    assert time.monotonic() - began < 20
    assert re.fullmatch(r"W&B cannot be reached \(.*Freeway-ddqn-seed0 is kept offline", the_warning(caplog))
    (part,) = [part for part in parts(tmp_path) if part.name.startswith("offline-run-")]
    assert losses(rows_of(part)) == [(1, 1, 0.5)]
