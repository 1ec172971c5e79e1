"""Trainings of some seconds for the cluster tests, with a checkpoint after every step."""

import os
import subprocess
import sys
from pathlib import Path

from nrmap.policies.policy import load_policy
from nrmap.support.layout import POLICY_FILE

ROOT = Path(__file__).parents[2]
STEPS = 800
# Two vanilla policies, and two that wait for them; every part of a training on the smallest screen.
SWEEP = (
    "env=Breakout", "method=ddqn,sa_ddqn", "seed=0,1", "scale=smoke", "wandb=disabled", "device=cpu",
    "checkpoint_seconds=0", "env.height=36", "env.width=36", "env.max_agent_steps=33", f"scale.steps={STEPS}",
    "scale.num_envs=2", "scale.warm_up_steps=40", "scale.replay.capacity=200", "scale.exploration.decay_steps=60",
    "scale.fine_tune.by_solver.pgd.steps=120", "scale.fine_tune.by_solver.pgd.robust_ramp.ramp_begin=0",
    "scale.fine_tune.by_solver.pgd.robust_ramp.ramp_steps=40",
)  # fmt: skip
JOBS = {(method, seed) for method in ("ddqn", "sa_ddqn") for seed in ("seed0", "seed1")}


def start_sweep(outputs: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`python -m train -m` with one thread a job, its output in `outputs`.log."""
    command = [sys.executable, "-m", "train", "-m", *arguments, *SWEEP, f"outputs={outputs}"]
    environment = dict(os.environ if environment is None else environment)
    for name in [name for name in environment if name.endswith("_NUM_THREADS")]:
        del environment[name]
    with open(outputs.with_suffix(".log"), "w") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)


def policies(outputs: Path) -> dict[tuple[str, str], Path]:
    """Every trained policy under `outputs`, by method and seed."""
    paths = list(outputs.glob(f"train/*/*/*/*/{POLICY_FILE}"))
    named = {tuple(path.relative_to(outputs).parts[2:4]): path for path in paths}
    assert len(named) == len(paths), "a policy was trained twice"
    return named


def assert_as_undisturbed(outputs: Path, alone: Path) -> None:
    """Compare every policy of the sweep, bit for bit, with the same sweep in one process, written to `alone`."""
    undisturbed = start_sweep(alone, "threads=1", environment={**os.environ, "OMP_NUM_THREADS": "1"})
    assert undisturbed.wait(timeout=1800) == 0, alone.with_suffix(".log").read_text()
    found, expected = policies(outputs), policies(alone)
    assert set(found) == set(expected) == JOBS
    for job in JOBS:
        first, second = load_policy(found[job]), load_policy(expected[job])
        assert first.card.agent_steps == second.card.agent_steps > 0
        assert first.sha256 == second.sha256
