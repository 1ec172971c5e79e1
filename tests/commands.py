"""`python -m train` and `python -m analyze` as processes that need no seconds for their imports, and tiny options."""

import contextlib
import multiprocessing
import os
import resource
import runpy
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrmap.support.layout import CHECKPOINT_FILE
from train.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]

# Every part of a training, on the smallest screen, in a second or two.
TINY = (
    "scale=smoke", "wandb=disabled", "device=cpu", "threads=1", "env.height=36", "env.width=36",
    "scale.steps=160", "scale.num_envs=2", "scale.warm_up_steps=40", "scale.replay.capacity=100",
    "scale.exploration.decay_steps=60", "env.max_agent_steps=33",
    *(
        f"scale.fine_tune.by_solver.{solver}.{setting}"
        for solver in ("pgd", "ibp")
        for setting in ("steps=80", "robust_ramp.ramp_begin=0", "robust_ramp.ramp_steps=40")
    ),
)  # fmt: skip
# The same for an analysis: maps of two states from each of three episodes.
TINY_ANALYSIS = (
    *TINY, "scale.analysis.num_states=6", "scale.analysis.state_episodes=3", "scale.analysis.prefix_sizes=[2]",
    "evaluation.episodes=1", "evaluation.attack_runs=[]", "evaluation.certify_epsilons=[]",
)  # fmt: skip

# A server that has imported everything starts the processes: the import would take longer than the run.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["train.__main__", "analyze.__main__", "analyze.report.map_sheets", "torch._dynamo"])


@dataclass
class Command:
    """A running `python -m MODULE`, its output in two files."""

    process: multiprocessing.Process
    folder: Path

    def wait(self) -> int:
        self.process.join(timeout=240)
        assert self.process.exitcode is not None, "still running"
        return self.process.exitcode

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()


@dataclass
class Commands:
    """Starts commands, with their output under `folder`."""

    folder: Path
    started: list[Command] = field(default_factory=list)

    def start(self, module: str, *arguments: str, **machine: Any) -> Command:
        """`python -m module arguments`, on a `machine` as `_run_as_main` makes it."""
        folder = self.folder / f"command{len(self.started)}"
        folder.mkdir()
        process = processes.Process(target=_run_as_main, args=(module, arguments, folder), kwargs=machine)
        process.start()
        self.started.append(Command(process, folder))
        return self.started[-1]


@contextlib.contextmanager
def commands_in(folder: Path) -> Iterator[Commands]:
    """Commands, all ended when the block ends."""
    commands = Commands(folder)
    try:
        yield commands
    finally:
        for command in commands.started:
            command.process.kill()
            command.process.join()


def _run_as_main(module: str, arguments: Sequence[str], folder: Path, *, largest_file=None, environment=None) -> None:
    """The child process: become `python -m module` with its output in `folder`.

    A file beyond `largest_file` bytes is a full disk; None in `environment` removes a variable.
    """
    os.chdir(ROOT)
    for name, value in (environment or {}).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    # Tests that a shell runs in the background inherit an ignored Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def result_of(command: Command) -> Path:
    """The path that the command printed last, which is its result."""
    assert command.wait() == 0, command.err
    return Path(command.out.splitlines()[-1])


def reached(outputs: Path, method: str = "*", seed: str = "*") -> int:
    """The agent step of a training's checkpoint; 0 without one."""
    for path in outputs.glob(f"train/*/{method}/{seed}/*/{CHECKPOINT_FILE}"):
        with contextlib.suppress(Exception):  # it may be replaced or removed between two looks
            return load_checkpoint(path)["trainer"]["agent_step"]
    return 0


def complaint_of(command: Command) -> str:
    """The only line that the command wrote, but for its log."""
    assert command.wait() == 2, command.err
    assert command.out == ""
    (line,) = [line for line in command.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in command.err
    return line
