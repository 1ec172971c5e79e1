"""The cost model against hand-computed sums."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from bench.cost import Speeds, StudyPlan, cost, cpu_speeds, gpu_speeds, paper_study, training_hours
from bench.host import collecting_trainer
from nrmap.learning.settings import TrainSettings
from nrmap.policies.network import NetworkSpec, QNetwork

ROOT = Path(__file__).parents[2]
MACHINE = {"processor": "a processor", "cores": 2}
TRAIN = {
    "updates_per_second": {
        "ddqn": {"rates": [40.0, 50.0, 200.0], "operations": 1.0},
        "sa_ddqn": {"rates": [10.0, 9.0, 11.0], "operations": 1.0},
    },
    "machine": MACHINE,
}
HOST = {
    "device": "cpu", "collecting_seconds_per_step": 0.001, "ablating_seconds_per_state": 0.25,
    "training_rss_mb": 2048.0, "checkpoint_mb": 53.0, "checkpoint_seconds": 0.125, "replaying_seconds_per_step": 0.0004,
    "machine": MACHINE,
}  # fmt: skip


@pytest.fixture
def study(tiny_settings) -> StudyPlan:
    vanilla = tiny_settings(steps=7200, warm_up_steps=3600, steps_per_update=4)
    robust: TrainSettings = replace(vanilla, method="sa_ddqn", steps=3600, warm_up_steps=400)
    return StudyPlan(games=2, seeds=3, trainings={"ddqn": vanilla, "sa_ddqn": robust}, num_states=1200, null_networks=2)


def test_a_training_is_its_steps_and_its_updates(study: StudyPlan) -> None:
    speeds = cpu_speeds(TRAIN, HOST)
    assert speeds == Speeds(collecting=0.001, updates={"ddqn": 0.02, "sa_ddqn": 0.1}, ablating=0.25)
    # 7.2 s of collecting and 900 updates of 20 ms; 3.6 s and 800 of 100 ms.
    assert training_hours(study.trainings["ddqn"], speeds) == pytest.approx((7.2 + 18) / 3600)
    assert training_hours(study.trainings["sa_ddqn"], speeds) == pytest.approx((3.6 + 80) / 3600)


@pytest.mark.parametrize(("workers", "rounds"), [(1, 6), (4, 2), (6, 1), (20, 1)])
def test_chains_are_shared_out(study: StudyPlan, workers: int, rounds: int) -> None:
    found = cost(study, cpu_speeds(TRAIN, HOST), workers)
    # 2 · 1,200 own states, and the 2,400 of the pool for the two policies, two random networks and
    # two shuffled ones of each policy: 2,400 + 8 · 2,400 = 21,600 states, 90 minutes at 0.25 s.
    assert found.maps == pytest.approx(1.5)
    chain = (7.2 + 18 + 3.6 + 80) / 3600 + found.maps
    assert found.worker_hours == pytest.approx(6 * chain)
    assert found.wall_hours == pytest.approx(rounds * chain)


def test_the_scale_is_the_papers() -> None:
    study = paper_study(4, 5)
    scale = {(settings.steps, settings.steps_per_update) for settings in study.trainings.values()}
    assert (study.chains, scale) == (20, {(6_000_000, 1)})
    assert study.trainings["sa_ddqn"].parent == study.trainings["ddqn"]
    # 2,048 own states of each of two policies; 4,096 pooled ones for 2 trained, 3 random and 6 shuffled networks.
    assert study.ablated_states == 4_096 + 45_056


def test_a_gpu_has_a_file_of_its_own() -> None:
    on_gpu = HOST | {"collecting_seconds_per_step": 0.0005, "update_milliseconds": {"ddqn": 2.0, "sa_ddqn": 8.0}}
    assert gpu_speeds(on_gpu) == Speeds(0.0005, updates={"ddqn": 0.002, "sa_ddqn": 0.008}, ablating=0.25)


def test_the_timed_steps_ask_the_network(tiny_settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(exploration={"epsilon_initial": 1.0, "epsilon_final": 0.0})
    trainer = collecting_trainer(settings, "cpu", settings.replay.capacity)
    greedy_actions = Mock(side_effect=lambda states: torch.zeros(len(states), dtype=torch.int64))
    monkeypatch.setattr(trainer.learner, "greedy_actions", greedy_actions)
    for _ in zip(range(5), trainer.run(), strict=False):
        pass
    assert [len(call.args[0]) for call in greedy_actions.call_args_list] == 5 * [settings.num_envs]


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    def bench_cost(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cost", "--folder", str(tmp_path), *options]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # where other work runs, threads wait for one another
        return subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True, timeout=280)

    absent = bench_cost()
    assert absent.returncode == 2
    assert re.fullmatch(rf"error: no file {tmp_path}/train\.json.*\n", absent.stderr)
    (tmp_path / "train.json").write_text(json.dumps(TRAIN))
    done = bench_cost("--measure", "--agent-steps", "64")
    assert done.returncode == 0, done.stderr
    host = json.loads((tmp_path / "host.json").read_text())
    assert host["collecting_seconds_per_step"] > 0
    # The replay of the scale alone takes 200,000 frames of 84 × 84 bytes.
    assert host["training_rss_mb"] > 200_000 * 84 * 84 / 2**20
    # The weights, those of the target network and Adam's two moments, in float32, and little else.
    weights = sum(each.numel() for each in QNetwork(NetworkSpec(1, 84, 84, actions=3)).parameters())
    assert 1 <= 2**20 * host["checkpoint_mb"] / (4 * 4 * weights) < 1.1
    measured = [1000 * host[key] for key in ("collecting_seconds_per_step", "ablating_seconds_per_state")]
    assert f"| CPU job | {measured[0]:.2f} ms | 20.00 ms | 100.00 ms | {measured[1]:.2f} ms |" in done.stdout
    assert "| GPU | not measured |" in done.stdout
