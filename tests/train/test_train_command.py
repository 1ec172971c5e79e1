"""`python -m train` as its users meet it: processes that finish, repeat, are killed, wait and fail."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from commands import ROOT, TINY, Command, commands_in, complaint_of, reached, result_of
from composed import trained, training
from example_outputs import write_training

from conf.choices import group_options
from nrmap.learning.lookup import training_folder
from nrmap.policies.policy import load_policy
from nrmap.support.files import TEMPORARY_PREFIX
from nrmap.support.layout import CHECKPOINT_FILE, CURVES_FILE, OPTIONS_FILE, POLICY_FILE, Layout


@pytest.fixture
def start(tmp_path):
    """`start("seed=1")`: a Command with outputs under tmp_path/outputs; it is killed if the test leaves it running."""
    with commands_in(tmp_path) as commands:

        def start(*arguments: str, outputs: Path | None = None, **options: Any) -> Command:
            folder = tmp_path / "outputs" if outputs is None else outputs
            return commands.start("train", *TINY, f"outputs={folder}", *arguments, **options)

        yield start


@pytest.fixture
def parent(start):
    """The vanilla policy of Breakout and seed 0, under tmp_path/outputs, where methods that start from it find it."""
    return finished(start("env=Breakout"))


def finished(command: Command) -> Path:
    """The policy that the command printed."""
    path = result_of(command)
    assert command.out == f"{path}\n"
    assert path.name == POLICY_FILE
    return path


def content(path: Path) -> tuple[str | None, dict]:
    """The hash of weights, settings and environment of a policy, and its results but for the seconds."""
    policy = load_policy(path)
    return policy.sha256, {**policy.card.results, "seconds": None}


@pytest.mark.slow
def test_python_m_train_makes_a_policy_once(tmp_path):
    # The real thing, on the real screen, at the smallest scale and somewhat shorter.
    command = [
        sys.executable, "-m", "train", "env=Pong", "scale=smoke", "scale.steps=320", "wandb.mode=disabled", "threads=1",
        f"outputs={tmp_path / 'outputs'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    policy = load_policy(path)
    assert (policy.label, policy.card.agent_steps, policy.env.state_shape) == ("Pong/ddqn/seed0", 320, (1, 84, 84))
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.get_tensor("features.0.weight").dtype == torch.float16


@pytest.mark.slow
def test_every_method_starts_from_one_parent(start, tmp_path, parent):
    methods = [name for name in group_options("method") if name != "ddqn"]
    runs = [(f"method={name}",) for name in methods] + [("method=sa_ddqn", "method.regulariser.kappa=3")]
    before = parent.stat().st_mtime_ns
    paths = [finished(start(*run, "env=Breakout")) for run in runs]
    assert parent.stat().st_mtime_ns == before
    sha256, policies = load_policy(parent).sha256, [load_policy(path) for path in paths]
    facts = [(policy.card.method, policy.card.parent_sha256, policy.card.agent_steps) for policy in policies]
    assert facts == [(method, sha256, 80) for method in (*methods, "sa_ddqn")]
    # They start alike and differ in the loss, so all end differently.
    assert len({float(policy.network.value[2].weight.sum()) for policy in policies}) == len(paths)
    # The options beside a policy lead to its folder again.
    for path in (*paths, parent):
        settings = training(*json.loads(path.with_name(OPTIONS_FILE).read_text()))
        parent_sha256 = None if path == parent else sha256
        assert training_folder(settings, Layout(tmp_path / "outputs"), parent_sha256) == path.parent


def test_a_training_starts_from_any_file_that_fits(tmp_path):
    file = write_training(Layout(tmp_path / "elsewhere"), training(*TINY, "seed=4"))
    start_from = f"method.start_from={file}"
    path = trained(*TINY, "method=sa_ddqn", "seed=1", start_from, f"outputs={tmp_path / 'outputs'}")
    card, loaded = load_policy(path).card, load_policy(file)
    assert (card.parent_sha256, card.settings["parent"]) == (loaded.sha256, loaded.card.settings)
    assert json.loads((path.parent / "settings.json").read_text()) == card.settings
    assert str(tmp_path) not in json.dumps(card.settings)


@pytest.mark.slow
@pytest.mark.bitwise
@pytest.mark.usefixtures("parent")
def test_a_killed_command_goes_on_to_the_same_policy(start, tmp_path):
    here, whole = tmp_path / "outputs", tmp_path / "whole"
    shutil.copytree(here, whole)
    options = ("method=sa_ddqn", "env=Breakout", "checkpoint_seconds=0", "scale.fine_tune.by_solver.pgd.steps=300")
    uninterrupted = finished(start(*options, outputs=whole))

    for least_step in (10, 80):
        command = start(*options)
        deadline = time.monotonic() + 120
        while reached(here) < least_step and command.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.join(timeout=60)
        assert command.process.exitcode == -signal.SIGKILL
    folder = next(here.glob(f"train/*/sa_ddqn/*/*/{CHECKPOINT_FILE}")).parent
    for left_by_a_kill in (f"{TEMPORARY_PREFIX}{CHECKPOINT_FILE}.half", ".tmpAb3dEf"):
        (folder / left_by_a_kill).write_bytes(b"")
    resumed = start(*options)
    path = finished(resumed)
    assert "going on from agent step" in resumed.err
    assert content(path) == content(uninterrupted)
    assert {file.name for file in folder.iterdir()} == {file.name for file in uninterrupted.parent.iterdir()}


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written(start, tmp_path):
    command = start(largest_file=100_000)
    assert re.match(f"error: cannot write .*{POLICY_FILE}.*File too large", complaint_of(command))
    names = {path.name for path in (tmp_path / "outputs/train").rglob("*") if path.is_file()}
    assert names == {"settings.json", "options.json", CURVES_FILE, "lock"}
