"""The map benchmark: all contenders give equal numbers, and the JSON file is complete."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_networks import ablated_one_by_one
from toy_policies import FREEWAY, toy_policy

from bench import map_contenders as contenders
from bench.map_cases import ACTIONS, Case, random_policy
from bench.second_temperature import second_temperature
from nrmap.ablation import AblationSpec
from nrmap.atari.env_spec import EnvSpec
from nrmap.policies.policy import save_policy

ROOT = Path(__file__).parents[2]
SIDE = 36  # the smallest screen on which the Nature convolutions fit
STATES, FRAMES = 2, 2


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A dueling network with random weights, and states of noise on a third of their pixels."""
    folder = tmp_path_factory.mktemp("case")
    save_policy(folder / "policy.safetensors", random_policy(EnvSpec("Freeway", SIDE, SIDE, frame_stack=FRAMES)))
    generator = torch.Generator().manual_seed(0)
    shape = (STATES, FRAMES, SIDE, SIDE)
    states = torch.randint(1, 256, shape, generator=generator) * (torch.rand(shape, generator=generator) < 1 / 3)
    torch.save(states.to(torch.uint8), folder / "states.pt")
    return Case("small", "random", folder / "policy.safetensors", folder / "states.pt")


@pytest.fixture(scope="module")
def q_values(case: Case) -> torch.Tensor:
    """Q-values [N, H, W, A] of all ablated states by definition."""
    return ablated_one_by_one(*case.load(), AblationSpec()).double()


@pytest.mark.parametrize("skip_unchanged", [False, True])
def test_dense_batches_find_the_q_values(case: Case, q_values: torch.Tensor, skip_unchanged: bool) -> None:
    policy, states = case.load()
    ablate = contenders.dense(policy, 500, skip_unchanged=skip_unchanged)
    found = torch.cat([ablate(state) for state in states.split(1)]).double()
    torch.testing.assert_close(found, q_values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rival", [contenders.feature_ablation, contenders.occlusion])
def test_captum_finds_what_the_first_action_loses(case: Case, q_values: torch.Tensor, rival) -> None:
    policy, states = case.load()
    attribute = rival(policy, 500)
    for state, of_state in zip(states.split(1), q_values, strict=True):
        losses = policy(state)[0, 0].double() - of_state[..., 0]  # [H, W]
        assert losses.abs().max() > 1e-4, "there is something to find"
        with torch.inference_mode():
            found = attribute(state)  # [1, C, H, W]
        torch.testing.assert_close(found[0].double(), losses.expand_as(found[0]), rtol=0, atol=1e-6)


def test_the_operations_of_the_engine_are_fewer_than_those_of_whole_networks(case: Case) -> None:
    # Multiply-adds of one network: 8 × 8, 3 × 3 and 1 × 1 places of the convolutions, then two heads.
    network = 64 * 32 * FRAMES * 8**2 + 9 * 64 * 32 * 4**2 + 64 * 64 * 3**2 + 2 * 512 * 64 + 512 * (ACTIONS + 1)
    found, of_differences = (contenders.operations_by_layer(case, differences_only=only) for only in (False, True))
    by_layer = sum(found[layer] for layer in ("conv2", "conv3", "hidden"))
    assert by_layer + 2 * network <= found["sum"] < SIDE**2 * 2 * network, "in the sum the state itself is run, too"
    assert of_differences["hidden"] < found["hidden"]
    assert all(0 < contenders.units_left(case)[layer] <= 1 for layer in ("conv1", "conv2", "conv3", "hidden"))


def test_a_second_temperature_finds_the_ablation_done(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.safetensors", toy_policy(FREEWAY))
    found = second_temperature(tmp_path / "policy.safetensors", 1, tmp_path / "outputs")
    assert found["states"] == 1
    assert len(list((tmp_path / "outputs/ablated/Freeway").iterdir())) == 1
    assert len(list((tmp_path / "outputs/maps/Freeway/toy/seed0").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_writes_its_json(tmp_path: Path) -> None:
    output = tmp_path / "maps.json"
    command = [
        sys.executable, "-m", "bench.maps", "--policy", "--cases", "1 frame, plain", "--states", "2",
        "--exact-states", "1", "--rounds", "1", "--batch-sizes", "512", "--sides", "42", "--map-states", "2",
        "--output", str(output),
    ]  # fmt: skip
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # where other work runs, threads wait for one another
    done = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    (case,) = results["cases"]
    rivals = {"dense", "dense_skipping", "feature_ablation", "occlusion"}
    expected = {"case": "1 frame, plain", "weights": "random", "states": 2, "ablations_checked": 84 * 84}
    expected |= {"argmax_mismatches": 0, "best_batch_size": dict.fromkeys(rivals, 512)}
    assert case.items() >= expected.items()
    assert case["seconds_per_state"].keys() == {"incremental", "differences_only", *rivals}
    assert min(*case["seconds_per_state"].values(), case["gflops_fraction"], results["machine"]["cores"]) > 0
    growth = [row["states"] for row in results["growth_with_states"]]
    growth += [row["pixels"] for row in results["growth_with_image_size"]]
    assert (growth, results["second_temperature"]["states"]) == ([1, 42 * 42], 2)
