"""The training benchmark: contenders compute the same update, and the JSON file is complete."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.paired import Result, ratio
from bench.train_contenders import PlainLearner, our_learner, random_batch

ROOT = Path(__file__).parents[2]


def test_the_plain_update_is_ours_done_plainly():
    ours, plain, batch = our_learner(solver="pgd"), PlainLearner(), random_batch(4)
    for _ in range(2):
        loss, plain_loss = ours.update(batch, agent_step=10**9)["loss"], plain.update(batch)
        torch.testing.assert_close(loss, plain_loss, rtol=1e-3, atol=1e-5)
    for parameter, other in zip(ours.online.parameters(), plain.online.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-2, atol=1e-5)


def test_ratios_are_taken_round_by_round():
    one, other = Result([10.0, 30.0, 8.0], None), Result([5.0, 10.0, 2.0], None)
    assert ratio(one, other) == (3.0, 2.0, 4.0)
    assert one.median == 10.0


@pytest.mark.slow
def test_the_benchmark_writes_its_json(tmp_path):
    output = tmp_path / "train.json"
    command = [
        sys.executable, "-m", "bench.train", "--rounds", "1", "--updates", "1", "--agent-steps", "32",
        "--num-envs", "2", "16", "--output", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert min(results["sps_ratio_vs_sb3"], results["sa_update_ratio_vs_plain"], results["machine"]["cores"]) > 0
    assert set(results["sps_by_num_envs"]) == {"2", "16"}
    assert all(0 < share < 1 for share in results["fraction_of_matmul_peak"].values())
