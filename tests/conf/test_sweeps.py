"""Sweeps on one machine: failed jobs are named, the others finish, and a second sweep does only missing work."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TINY, commands_in

from conf.entry import _let_children_import_the_clone
from conf.failures import JobFailedError
from nrmap.policies.policy import load_policy
from nrmap.support.layout import POLICY_FILE

ROOT = Path(__file__).parents[2]
# A busy machine may take several times as long as an idle one.
pytestmark = pytest.mark.timeout(900)

# An entry point like those of the project, whose jobs end in every way there is.
JOBS = """
import os
from pathlib import Path
from conf.entry import entry_point
from nrmap.support.errors import NrmapError

def read(config, here):
    return config

def run(config, given):
    seed = config["seed"]
    if seed == 1:
        raise ZeroDivisionError("a bug")
    if seed == 2:
        raise NrmapError("a mistake")
    if seed == 3:
        os.kill(os.getpid(), 9)
    if seed == -1:
        open("absent")
    if seed >= 4:
        import torch
        (Path(config["outputs"]) / f"threads{seed}").write_text(str(torch.get_num_threads()))
    (Path(config["outputs"]) / f"done{seed}").touch()

if __name__ == "__main__":
    entry_point("train", read, run)
"""


def command(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True,
        timeout=800, check=False,
    )  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path):
    """`sweep("basic", "seed=0,1")`: the finished command; its outputs are in tmp_path."""
    script = tmp_path / "jobs.py"
    script.write_text(JOBS)

    def sweep(launcher: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = [f"hydra/launcher={launcher}", *arguments, f"outputs={tmp_path}"]
        return command([str(script), "-m", *options], PYTHONPATH=str(ROOT))

    return sweep


def done(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("done*")}


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_failed_jobs_are_named_and_the_others_finish(launcher: str, sweep, tmp_path: Path) -> None:
    finished = sweep(launcher, "seed=1,0,2,-7")
    assert finished.returncode == 1, finished.stderr
    assert done(tmp_path) == {"done0", "done-7"}
    logs = tmp_path / "logs/train/Freeway/ddqn"
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: seed=1 failed: ZeroDivisionError: a bug; the traceback is in {logs}/seed1/0/train.log",
        "error: seed=2 failed: a mistake",
    ]
    assert "raise ZeroDivisionError" in (logs / "seed1/0/train.log").read_text()
    assert "raise ZeroDivisionError" in finished.stderr
    assert len(list(logs.glob("seed1/0/failed*"))) == 1
    # The note of a failure goes once the job has not failed, wherever the job stands in the sweep.
    (tmp_path / "jobs.py").write_text(JOBS.replace("seed == 1:", "seed == 99:"))
    again = sweep(launcher, "seed=0,1")
    assert again.returncode == 0, again.stderr
    assert "error: " not in again.stderr
    assert (logs / "seed1/1").is_dir()
    assert not list(logs.glob("seed1/*/failed*"))


def test_jobs_that_differ_in_any_setting_have_folders_of_their_own(sweep, tmp_path: Path) -> None:
    finished = sweep("basic", "seed=0", "scale.learner.learning_rate=1e-3,1e-4")
    assert finished.returncode == 0, finished.stderr
    logs = (tmp_path / "logs/train/Freeway/ddqn/seed0").glob("*/train.log")
    assert [path.parent.name for path in sorted(logs)] == ["0", "1"]
    report = f"page of all results: python -m analyze.report outputs={tmp_path}"
    assert finished.stderr.splitlines()[-1] == report


@pytest.mark.parametrize("mode", [["seed=0"], ["-m", "seed=0"], ["-m", "hydra/launcher=joblib", "seed=0"]])
def test_without_a_folder_outputs_is_in_the_current_one(mode: list[str], tmp_path: Path) -> None:
    here = tmp_path / "it's here, really"
    here.mkdir()
    (here / "outputs").mkdir()
    (tmp_path / "jobs.py").write_text(JOBS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [sys.executable, str(tmp_path / "jobs.py"), *mode], cwd=here, env=environment, capture_output=True, text=True,
        timeout=800, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines()[-1] == "page of all results: python -m analyze.report"
    assert done(here / "outputs") == {"done0"}
    assert (here / "outputs/logs/train/Freeway/ddqn/seed0").is_dir()
    assert {path.name for path in here.iterdir()} == {"outputs"}


def test_a_bug_keeps_its_traceback_and_a_log_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    bug = command([str(tmp_path / "jobs.py"), "seed=-1", f"outputs={tmp_path}"], PYTHONPATH=str(ROOT))
    assert bug.returncode == 1
    assert bug.stderr.splitlines()[-1] == "FileNotFoundError: [Errno 2] No such file or directory: 'absent'"
    assert "error: cannot" not in bug.stderr
    (tmp_path / "file").touch()
    for mode in ([], ["-m"]):
        arguments = [str(tmp_path / "jobs.py"), *mode, "seed=0", f"outputs={tmp_path / 'file'}"]
        unwritable = command(arguments, PYTHONPATH=str(ROOT))
        assert unwritable.returncode == 2
        (line,) = [line for line in unwritable.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: cannot write {tmp_path / 'file'}/logs")
        assert "Traceback" not in unwritable.stderr


def test_a_killed_process_ends_in_a_line(sweep) -> None:
    finished = sweep("joblib", "seed=3,0", "hydra.launcher.n_jobs=2")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: the process of a job was killed")
    assert "Traceback" not in finished.stderr


def test_processes_of_a_launcher_can_import_the_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    _let_children_import_the_clone()
    child = [sys.executable, "-c", "import train, analyze, conf; print(conf.__file__)"]
    printed = subprocess.run(child, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(printed.strip()).parents[1] == ROOT
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}elsewhere"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core is one thread anyway")
def test_jobs_share_the_cores(sweep, tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    assert sweep("joblib", "seed=4,5", f"hydra.launcher.n_jobs={cores}").returncode == 0
    assert [(tmp_path / f"threads{seed}").read_text() for seed in (4, 5)] == ["1", "1"]
    assert sweep("basic", "seed=6").returncode == 0
    assert int((tmp_path / "threads6").read_text()) > 1


def test_a_real_sweep_on_joblib(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    sweep = ("-m", "env=Pong", "method=sa_ddqn,ddqn", *TINY, f"outputs={outputs}")
    finished = command(["-m", "train", *sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert finished.returncode == 0, finished.stderr
    paths = {path.relative_to(outputs).parts[2]: path for path in outputs.glob(f"train/Pong/*/*/*/{POLICY_FILE}")}
    assert set(paths) == {"sa_ddqn", "ddqn"}
    # One job waited for the other, or trained its policy for it.
    assert finished.stderr.count("Pong/ddqn/seed0: trained,") == 1
    assert load_policy(paths["sa_ddqn"]).card.parent_sha256 == load_policy(paths["ddqn"]).sha256

    unchanged = paths["ddqn"].stat().st_mtime_ns
    weights = paths["sa_ddqn"].read_bytes()
    paths["sa_ddqn"].unlink()
    with commands_in(tmp_path) as commands:  # which need no seconds for their imports
        again = commands.start("train", *sweep)
        assert again.wait() == 0, again.err
    assert again.err.count(": trained,") == 1
    assert paths["ddqn"].stat().st_mtime_ns == unchanged
    header = 8 + int.from_bytes(weights[:8], "little")
    assert paths["sa_ddqn"].read_bytes()[-(len(weights) - header) :] == weights[header:]


def test_a_failure_survives_the_way_back_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(JobFailedError("seed=1 failed", "/sweep")))
    assert (str(error), error.sweep_folder) == ("seed=1 failed", "/sweep")
