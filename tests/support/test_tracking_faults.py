"""What tracking must never do: ask, block, stop the work, write where it should not, or cost much."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from wandb_files import artifacts_of, forget_account, parts, rows_of, summary_of, tracked

from nrmap.support.errors import NrmapError
from nrmap.support.tracking import NoTracker, TrackingSpec


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


TRAIN_FOR_EVER = """
import sys, time
from pathlib import Path
import nrmap.support.wandb_tracker
from nrmap.support.tracking import TrackingSpec, track
nrmap.support.wandb_tracker.FLUSH_INTERVAL = 0.1
folder, first_step = Path(sys.argv[1]), int(sys.argv[2])
with track(TrackingSpec(mode="offline"), job_type="train", name="n", group="g", run_id="killed", config={},
           tags=[], folder=folder) as tracker:
    for step in range(first_step, 10**6):
        tracker.log({"loss": 1.0 / step}, step=step)
        time.sleep(0.005)
        if step == first_step + 100:
            print("logged", flush=True)
"""


def test_a_killed_run_keeps_its_points_and_goes_on_under_its_id(tmp_path):
    for first_step in (1, 50):
        with subprocess.Popen(
            [sys.executable, "-c", TRAIN_FOR_EVER, str(tmp_path), str(first_step)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "logged\n"
            process.send_signal(signal.SIGKILL)
    found = parts(tmp_path)
    assert len(found) == 2
    for part, first_step in zip(found, (1, 50), strict=True):
        assert summary_of(part, killed=True)["run_id"] == "killed"
        rows = rows_of(part, killed=True)
        assert [row["_step"] for row in rows] == [*range(first_step, first_step + len(rows))]
        assert len(rows) > 50
        assert all(row["loss"] == 1.0 / row["agent_step"] for row in rows)


def test_disabled_writes_nothing_and_does_not_import_wandb(tmp_path):
    code = f"""
import sys
from pathlib import Path
from nrmap.support.tracking import NoTracker, TrackingSpec, track
with track(TrackingSpec(mode="disabled"), job_type="train", name="n", group="g", run_id="i", config={{}}, tags=[],
           folder=Path({str(tmp_path / "run")!r})) as tracker:
    assert isinstance(tracker, NoTracker)
    tracker.log({{"loss": 1.0}}, step=1)
    tracker.summary({{"a": 1}})
    tracker.table("t", ["a"], [[1]])
    tracker.image("i", Path("no such file"))
    tracker.artifact("a", "policy", [Path("no such file")])
assert not [name for name in sys.modules if name.split(".")[0] == "wandb"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("mode", "last_line"), [("auto", "done"), ("online", "online without a valid API key")])
def test_on_a_terminal_nothing_is_asked(tmp_path, mode, last_line):
    code = f"""
from pathlib import Path
from nrmap.support.errors import NrmapError
from nrmap.support.tracking import TrackingSpec, track
try:
    with track(TrackingSpec(mode={mode!r}), job_type="train", name="n", group="g", run_id="i", config={{}}, tags=[],
               folder=Path({str(tmp_path)!r})) as tracker:
        tracker.log({{"loss": 1.0}}, step=1)
    print("done")
except NrmapError as error:
    print(error)
"""
    terminal, child_side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=child_side, stdout=child_side, stderr=child_side, start_new_session=True
    )
    os.close(child_side)
    output = b""
    deadline = time.monotonic() + 30
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                output += read_or_nothing(terminal)
        assert process.poll() == 0, f"still waiting after 30 s: {output.decode()}"
        output += read_or_nothing(terminal)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    lines = output.decode().split("\r\n")
    assert len(lines) == 2
    assert last_line in lines[0]


def read_or_nothing(terminal):
    try:
        return os.read(terminal, 65536) if select.select([terminal], [], [], 0)[0] else b""
    except OSError:  # how Linux reports that the other side has closed
        return b""


def service_process():
    """The process id of W&B's service, the only child of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (pid,) = [int(pid) for pid in children if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds W&B's service in /proc")
def test_when_wandb_dies_the_work_goes_on(tmp_path, caplog, own_session):
    picture = np.zeros((2, 2), dtype=np.uint8)
    policy = tmp_path / "policy.safetensors"
    policy.write_bytes(b"weights")
    began = time.monotonic()
    with tracked(tmp_path / "run") as tracker:
        tracker.log({"loss": 1.0}, step=1)
        os.kill(service_process(), signal.SIGKILL)
        time.sleep(0.5)
        for step in range(2, 50):
            tracker.log({"loss": 1.0}, step=step)
        tracker.summary({"a": 1})
        tracker.table("t", ["a"], [[1]])
        tracker.image("i", picture)
        tracker.artifact("a", "policy", [policy])
    assert time.monotonic() - began < 20
    assert "the work goes on" in the_warning(caplog)
    with tracked(tmp_path / "next", run_id="next") as tracker:
        tracker.log({"loss": 5.0}, step=1)
    (part,) = parts(tmp_path / "next")
    assert rows_of(part) == [{"_step": 1, "agent_step": 1, "loss": 5.0}]


def the_warning(caplog) -> str:
    """The only line of this project in the log."""
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("nrmap")]
    assert "\n" not in warning
    return warning


@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_without_wandb_installed_the_work_goes_on_untracked(monkeypatch, tmp_path, caplog, mode):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracked(tmp_path, TrackingSpec(mode=mode)) as tracker:
        assert isinstance(tracker, NoTracker)
    assert the_warning(caplog).startswith("wandb cannot be imported (")
    assert [*tmp_path.iterdir()] == []


def test_without_wandb_installed_online_is_a_mistake(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NrmapError, match=r"^wandb cannot be imported"):
        tracked(tmp_path, TrackingSpec(mode="online")).__enter__()
    with tracked(tmp_path, TrackingSpec(mode="disabled")) as tracker:
        assert isinstance(tracker, NoTracker)


def test_in_a_folder_that_cannot_be_written_the_work_goes_on_untracked(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with tracked(tmp_path / "file" / "run") as tracker:
        assert isinstance(tracker, NoTracker)
    assert re.match(r"cannot write .*file/run.*: the work goes on without W&B$", the_warning(caplog))


@pytest.mark.parametrize("broken", ["init", "Settings"])
def test_a_run_that_cannot_start_lets_the_work_go_on_untracked(monkeypatch, tmp_path, caplog, broken):
    def fail(*_, **__):
        raise RuntimeError("no service\nand many lines more")

    monkeypatch.setattr(wandb, broken, fail)
    done = []
    with tracked(tmp_path) as tracker:
        tracker.log({"loss": 1.0}, step=1)
        done.append(tracker)
    assert isinstance(done[0], NoTracker)
    expected = "W&B cannot start the run train-0a1b2c (no service): the work goes on without W&B"
    assert the_warning(caplog) == expected


def test_an_error_of_the_work_is_not_taken_for_one_of_tracking(monkeypatch, tmp_path):
    with pytest.raises(NrmapError, match="the work itself"), tracked(tmp_path):
        raise NrmapError("the work itself")


def test_what_cannot_be_logged_is_told_once_and_left_out(tmp_path, caplog):
    with tracked(tmp_path) as tracker:
        tracker.table("t", ["a", "b"], [[1]])
        tracker.image("i", np.zeros((2, 2)))
        tracker.image("i", np.zeros((2, 2, 4), dtype=np.uint8))
        tracker.image("i", tmp_path / "missing.png")
        tracker.artifact("a", "policy", [tmp_path / "missing"])
        tracker.log({"loss": 1.0}, step=1)
    assert "table t: 1 values in a row for 2 columns" in the_warning(caplog)
    (part,) = parts(tmp_path)
    assert (rows_of(part), artifacts_of(part)) == ([{"_step": 1, "agent_step": 1, "loss": 1.0}], {})


def test_the_cost_of_a_log_call(tmp_path, capsys):
    row = {f"metric_{number}": float(number) for number in range(12)}
    with tracked(tmp_path) as tracker:
        seconds = []
        for step in range(500):
            began = time.perf_counter()
            tracker.log(row, step=step)
            seconds.append(time.perf_counter() - began)
    typical = float(np.median(seconds))
    with capsys.disabled():
        print(f"\none log call of {len(row)} metrics: {typical * 1e6:.0f} µs (median of {len(seconds)})")
    # A training logs a row every 2,000 agent steps, at the very best once a second: 2% of that is 20 ms.
    assert typical < 0.02
