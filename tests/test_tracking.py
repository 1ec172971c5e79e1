"""Tracking without an account: which mode, what an offline run holds, and what it must never do."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image

import nrmap.wandb_tracker
from nrmap.errors import NrmapError
from nrmap.tracking import NoTracker, TrackingSpec, decide_mode, track

OFFLINE = TrackingSpec(mode="offline")
KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path_factory):
    """A user whom W&B does not know; returns the home folder."""
    home = tmp_path_factory.mktemp("home")
    for name in [*os.environ]:
        if (name.startswith(("WANDB_", "XDG_")) and name != "WANDB_SERVICE") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    return home


def forget_session():
    """W&B reads environment and key once a process; make it read them again."""
    wandb.teardown()


@pytest.fixture
def own_session(no_account):
    forget_session()
    yield
    forget_session()


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
    return sorted((folder / "wandb").glob("*run-*"), key=lambda part: part.stat().st_mtime_ns)


def inspect(part, *options):
    """What `wandb leet inspect --json` prints; the command itself spends a second on imports."""
    (log_file,) = part.glob("*.wandb")
    program = Path(wandb.__file__).parent / "bin" / "wandb-core"
    command = [
        program,
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        *options,
        "--run-file",
        log_file,
        part.parent,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def summary_of(part):
    return json.loads(inspect(part, "--summary"))


def rows_of(part):
    """The history, without W&B's own fields but the step."""
    records = [json.loads(line) for line in inspect(part).splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")} for row in rows]


def artifacts_of(part):
    records = [json.loads(line) for line in inspect(part).splitlines()]
    return {record["artifact"]["name"]: record["artifact"] for record in records if record["type"] == "artifact"}


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


# Which mode


@pytest.mark.parametrize(
    ("setting", "wandb_mode", "has_key", "expected"),
    [
        ("online", "disabled", False, "online"),
        ("offline", "online", True, "offline"),
        ("disabled", "online", True, "disabled"),
        ("auto", "online", False, "online"),
        ("auto", "offline", True, "offline"),
        ("auto", "dryrun", True, "offline"),
        ("auto", "disabled", True, "disabled"),
        ("auto", "", True, "online"),
        ("auto", None, True, "online"),
        ("auto", None, False, "offline"),
    ],
)
def test_setting_then_environment_then_key(monkeypatch, setting, wandb_mode, has_key, expected):
    asked = []

    def login(**arguments):
        asked.append(arguments)
        return has_key

    monkeypatch.setattr("wandb.login", login)
    environ = {} if wandb_mode is None else {"WANDB_MODE": wandb_mode}
    assert decide_mode(TrackingSpec(mode=setting), environ) == expected
    needs_login = setting == "auto" and not wandb_mode
    assert asked == ([{"prompt": False, "verify": False}] if needs_login else [])


def test_a_key_is_found_where_users_keep_it(monkeypatch, no_account, own_session):
    monkeypatch.setenv("WANDB_BASE_URL", "http://192.0.2.1")  # reserved: nothing answers there
    began = time.monotonic()
    assert decide_mode(TrackingSpec(), {}) == "offline"
    (no_account / ".netrc").write_text(f"machine 192.0.2.1\n  login user\n  password {KEY}\n")
    (no_account / ".netrc").chmod(0o600)
    forget_session()
    assert decide_mode(TrackingSpec(), {}) == "online"
    (no_account / ".netrc").unlink()
    forget_session()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert decide_mode(TrackingSpec(), {}) == "online"
    assert time.monotonic() - began < 5, "deciding the mode waited for the network"


def test_a_mistyped_key_counts_as_none(monkeypatch, caplog, own_session):
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert decide_mode(TrackingSpec(), {}) == "offline"
    assert len(caplog.messages) == 1
    assert "WANDB_API_KEY invalid" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrackingSpec(mode="ofline"), "unknown wandb.mode 'ofline': did you mean offline"),
        (lambda: TrackingSpec(project="a/b"), "wandb.project='a/b': expected a name without"),
        (lambda: TrackingSpec(project=""), "wandb.project='': expected a name"),
        (lambda: TrackingSpec(tags="one"), "wandb.tags='one': expected a list of words"),
        (lambda: decide_mode(TrackingSpec(), {"WANDB_MODE": "on"}), "unknown WANDB_MODE 'on'"),
    ],
)
def test_a_bad_setting_is_one_line(make, message):
    with pytest.raises(NrmapError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        (["+wandb=auto"], "auto"),
        (["+wandb=online"], "online"),
        (["+wandb=offline"], "offline"),
        (["+wandb=disabled"], "disabled"),
        (["+wandb=auto", "wandb.mode=disabled"], "disabled"),
    ],
)
def test_every_yaml_is_a_spec(overrides, mode):
    with initialize_config_module("conf", version_base="1.3"):
        values = OmegaConf.to_container(compose(overrides=overrides).wandb)
    assert TrackingSpec(**values) == TrackingSpec(mode=mode, tags=[])


# An offline run


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
        tracker.histogram("q_gaps", [0.0, 0.0, 1.0])
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
    histogram = last["q_gaps"]
    assert (sum(histogram["values"]), histogram["values"][0], histogram["values"][-1]) == (3, 2, 1)
    assert (histogram["bins"][0], histogram["bins"][-1], len(histogram["values"])) == (0.0, 1.0, 64)

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
        runs = [json.loads(line) for line in inspect(part).splitlines()]
        (run,) = [record["run"] for record in runs if record["type"] == "run"]
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


TRAIN_FOR_EVER = """
import sys, time
from pathlib import Path
import nrmap.wandb_tracker
from nrmap.tracking import TrackingSpec, track
nrmap.wandb_tracker.FLUSH_INTERVAL = 0.2
folder, first_step = Path(sys.argv[1]), int(sys.argv[2])
with track(TrackingSpec(mode="offline"), job_type="train", name="n", group="g", run_id="killed", config={},
           tags=[], folder=folder) as tracker:
    for step in range(first_step, 10**6):
        tracker.log({"loss": 1.0 / step}, step=step)
        time.sleep(0.01)
        if step == first_step + 200:
            print("logged", flush=True)
"""


def test_a_killed_run_keeps_its_points_and_goes_on_under_its_id(tmp_path):
    for first_step in (1, 150):
        with subprocess.Popen(
            [sys.executable, "-c", TRAIN_FOR_EVER, str(tmp_path), str(first_step)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "logged\n"
            process.send_signal(signal.SIGKILL)
    found = parts(tmp_path)
    assert len(found) == 2
    for part, first_step in zip(found, (1, 150), strict=True):
        assert summary_of(part)["run_id"] == "killed"
        rows = rows_of(part)
        assert [row["_step"] for row in rows] == [*range(first_step, first_step + len(rows))]
        assert len(rows) > 100
        assert all(row["loss"] == 1.0 / row["agent_step"] for row in rows)


# What it must never do


def test_disabled_writes_nothing_and_does_not_import_wandb(tmp_path):
    code = f"""
import sys
from pathlib import Path
from nrmap.tracking import NoTracker, TrackingSpec, track
with track(TrackingSpec(mode="disabled"), job_type="train", name="n", group="g", run_id="i", config={{}}, tags=[],
           folder=Path({str(tmp_path / "run")!r})) as tracker:
    assert isinstance(tracker, NoTracker)
    tracker.log({{"loss": 1.0}}, step=1)
    tracker.summary({{"a": 1}})
    tracker.table("t", ["a"], [[1]])
    tracker.image("i", Path("no such file"))
    tracker.histogram("h", [1.0])
    tracker.artifact("a", "policy", [Path("no such file")])
assert not [name for name in sys.modules if name.split(".")[0] == "wandb"]
"""
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("mode", "last_line"), [("auto", "done"), ("online", "online without a valid API key")])
def test_on_a_terminal_nothing_is_asked(tmp_path, mode, last_line):
    code = f"""
from pathlib import Path
from nrmap.errors import NrmapError
from nrmap.tracking import TrackingSpec, track
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
        tracker.histogram("h", [1.0])
        tracker.artifact("a", "policy", [policy])
    assert time.monotonic() - began < 20
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("nrmap")]
    assert "the work goes on" in warning
    with tracked(tmp_path / "next", run_id="next") as tracker:
        tracker.log({"loss": 5.0}, step=1)
    (part,) = parts(tmp_path / "next")
    assert rows_of(part) == [{"_step": 1, "agent_step": 1, "loss": 5.0}]


@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_without_wandb_installed(monkeypatch, tmp_path, mode):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NrmapError, match=r"^wandb is not installed .*wandb\.mode=disabled$"):
        tracked(tmp_path, TrackingSpec(mode=mode)).__enter__()
    with tracked(tmp_path, TrackingSpec(mode="disabled")) as tracker:
        assert isinstance(tracker, NoTracker)
    assert [*tmp_path.iterdir()] == []
    monkeypatch.undo()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NrmapError, match=r"^cannot write .*file/run"):
        tracked(tmp_path / "file" / "run").__enter__()


def test_what_cannot_be_logged_is_refused_before_wandb_sees_it(tmp_path):
    with tracked(tmp_path) as tracker:
        for refused in (
            lambda: tracker.table("t", ["a", "b"], [[1]]),
            lambda: tracker.image("i", np.zeros((2, 2))),
            lambda: tracker.image("i", np.zeros((2, 2, 4), dtype=np.uint8)),
            lambda: tracker.image("i", tmp_path / "missing.png"),
            lambda: tracker.histogram("h", [np.nan]),
            lambda: tracker.histogram("h", []),
            lambda: tracker.artifact("a", "policy", [tmp_path / "missing"]),
        ):
            with pytest.raises(NrmapError):
                refused()
    (part,) = parts(tmp_path)
    assert (rows_of(part), artifacts_of(part)) == ([], {})


def test_the_cost_of_a_log_call(tmp_path, capsys):
    row = {f"metric_{number}": float(number) for number in range(12)}
    with tracked(tmp_path) as tracker:
        seconds = []
        for step in range(500):
            began = time.perf_counter()
            tracker.log(row, step=step)
            seconds.append(time.perf_counter() - began)
    mean = float(np.mean(seconds))
    with capsys.disabled():
        print(f"\none log call of 12 metrics: mean {mean * 1e6:.0f} µs, largest {max(seconds) * 1e6:.0f} µs")
    # A training logs a row every 2,000 agent steps, at the very best once a second: 2% of that is 20 ms.
    assert mean < 0.02
    assert nrmap.wandb_tracker.FLUSH_INTERVAL <= 15
