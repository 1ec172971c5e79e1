"""Sweeps on one machine: failed jobs are named, the others finish, and a second sweep does only missing work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TINY, commands_in

from conf.entry import _let_children_import_the_clone
from conf.failures import failures_since
from nrmap.policies.policy import load_policy
from nrmap.support.layout import POLICY_FILE

ROOT = Path(__file__).parents[2]
# Those that this process may use.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# A busy machine may take several times as long as an idle one.
pytestmark = pytest.mark.timeout(900)

# An entry point like those of the project, whose jobs end in every way there is.
JOBS = """
import os, signal
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
    if seed == -2:  # ignored where the tests run in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
    if seed == -3:
        raise OSError(28, "of our own code")
    if seed == -4:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    if seed >= 4:
        import torch
        (Path(config["outputs"]) / f"threads{seed}").write_text(str(torch.get_num_threads()))
    (Path(config["outputs"]) / f"done{seed}").touch()

if __name__ == "__main__":
    entry_point("train", read, run)
"""


def command(arguments: list[str], cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True,
        timeout=800, check=False,
    )  # fmt: skip


@pytest.fixture
def jobs(tmp_path: Path):
    """`jobs("seed=0")`: the finished command; by default its outputs are in tmp_path."""
    script = tmp_path / "jobs.py"
    script.write_text(JOBS)

    def jobs(*arguments: str, outputs: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return command([str(script), *arguments, f"outputs={outputs}"], PYTHONPATH=str(ROOT))

    return jobs


def done(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("done*")}


@pytest.mark.parametrize(
    "launcher",
    [["basic"], pytest.param(["joblib", f"hydra.launcher.n_jobs={CORES}"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_failed_jobs_are_named_and_the_others_finish(launcher: list[str], jobs, tmp_path: Path) -> None:
    launched = ["-m", f"hydra/launcher={launcher[0]}", *launcher[1:]]
    finished = jobs(*launched, "seed=1,0,2,-7,4")
    assert finished.returncode == 1, finished.stderr
    assert done(tmp_path) == {"done0", "done-7", "done4"}
    logs = tmp_path / "logs/train/Freeway/ddqn"
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: seed=1 failed: ZeroDivisionError: a bug; the traceback is in {logs}/seed1/0/train.log",
        "error: seed=2 failed: a mistake",
    ]
    assert "raise ZeroDivisionError" in (logs / "seed1/0/train.log").read_text()
    assert "raise ZeroDivisionError" in finished.stderr
    assert len(list(logs.glob("seed1/0/failed*"))) == 1
    # Jobs side by side share the cores.
    alone = command(["-c", "import torch; print(torch.get_num_threads())"]).stdout.strip()
    assert (tmp_path / "threads4").read_text() == (alone if launcher == ["basic"] else "1")
    # The note of a failure goes once the job has not failed, wherever the job stands in the sweep.
    (tmp_path / "jobs.py").write_text(JOBS.replace("seed == 1:", "seed == 99:"))
    again = jobs(*launched, "seed=0,1")
    assert again.returncode == 0, again.stderr
    assert "error: " not in again.stderr
    assert again.stderr.splitlines()[-1] == f"page of all results: python -m analyze.report outputs={tmp_path}"
    assert (logs / "seed1/1").is_dir()
    assert not list(logs.glob("seed1/*/failed*"))


@pytest.mark.parametrize(
    "mode", [["seed=0"], pytest.param(["-m", "hydra/launcher=joblib", "seed=0"], marks=pytest.mark.slow)]
)
def test_without_a_folder_outputs_is_in_the_current_one(mode: list[str], tmp_path: Path) -> None:
    here = tmp_path / "it's here, really"
    (here / "outputs").mkdir(parents=True)
    (tmp_path / "jobs.py").write_text(JOBS)
    finished = command([str(tmp_path / "jobs.py"), *mode], cwd=here, PYTHONPATH=str(ROOT))
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines()[-1] == "page of all results: python -m analyze.report"
    assert done(here / "outputs") == {"done0"}
    assert (here / "outputs/logs/train/Freeway/ddqn/seed0").is_dir()
    assert {path.name for path in here.iterdir()} == {"outputs"}


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ("seed=-1", 1, "FileNotFoundError: [Errno 2] No such file or directory: 'absent'"),
        ("seed=-2", 130, "interrupted: what is finished is kept; repeat the command to continue"),
        ("seed=-3", 2, "error: of our own code"),
        ("seed=-4", 2, "error: not enough memory: DefaultCPUAllocator"),
        ("-m seed=0 hydra.sweeper.max_batch_size=0", 2, "error: AssertionError: assert max_batch_size is None or"),
        ("seed=0", 2, "error: cannot write {file}/logs"),
        ("-m seed=0", 2, "error: cannot write {file}/logs"),
    ],
)
def test_a_bug_keeps_its_traceback_and_other_ends_are_one_line(arguments, status, line, jobs, tmp_path) -> None:
    (file := tmp_path / "file").touch()
    ended = jobs(*arguments.split(), outputs=file if "{file}" in line else tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, status == 1)
    assert ended.stderr.splitlines()[-1].startswith(line.format(file=file))
    assert ended.stderr.count("error: ") == (status == 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("flags", ["--help", "--cfg job"])
def test_a_full_disk_and_a_closed_pipe_behind_the_command(flags: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    shown = f"{sys.executable} {tmp_path}/jobs.py {flags}"
    script = f"{shown} > /dev/full; echo $?; {shown} | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout == "2\n"
    assert ended.stderr == "error: OSError: [Errno 28] No space left on device\n"


def test_a_pipe_in_the_place_of_the_list_of_jobs_is_refused(jobs, tmp_path) -> None:
    (folder := tmp_path / "logs" / "train").mkdir(parents=True)
    os.mkfifo(folder / "multirun.yaml")
    ended = jobs("-m", "seed=0", outputs=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: cannot write {folder}/multirun.yaml: it is there and no regular file\n"


def test_notes_of_failed_jobs_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "failed-1.txt").mkdir()
    (tmp_path / "failed-2.txt").symlink_to("gone")
    os.mkfifo(tmp_path / "failed-3.txt")
    (tmp_path / "failed-4.txt").write_bytes(b"\xff failed")
    assert failures_since(0, tmp_path) == ["\ufffd failed"]


@pytest.mark.parametrize("flags", [("--cfg", "job", "seed=1"), ("seed=1", "--cfg", "job")])
def test_flags_before_and_after_overrides(flags, jobs) -> None:
    shown = jobs(*flags)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "seed: 1" in shown.stdout


def test_an_interrupt_during_the_imports_is_one_line() -> None:
    hook = "import sys, os, signal; sys.addaudithook(lambda event, arguments: event == 'import' and "
    hook += "arguments[0] == 'torch' and os.kill(os.getpid(), signal.SIGINT)); import runpy; sys.argv = ['-m']; "
    hook += "signal.signal(signal.SIGINT, signal.default_int_handler); runpy.run_module('train', run_name='__main__')"
    ended = command(["-c", hook, "train"])
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "\ninterrupted: what is finished is kept; repeat the command to continue\n"


@pytest.mark.slow
def test_a_killed_process_ends_in_a_line(jobs) -> None:
    finished = jobs("-m", "hydra/launcher=joblib", "seed=3,0", "hydra.launcher.n_jobs=2")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: the process of a job was killed")
    assert "Traceback" not in finished.stderr


def test_processes_of_a_launcher_can_import_the_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    _let_children_import_the_clone()
    child = [sys.executable, "-c", "import conf; print(conf.__file__)"]
    printed = subprocess.run(child, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(printed.strip()).parents[1] == ROOT
    assert os.environ["PYTHONPATH"] == f"{ROOT}{os.pathsep}elsewhere"


@pytest.mark.slow
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
