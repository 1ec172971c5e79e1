"""The commands of the README, run as a user runs them, at the smallest scale."""

import json
from pathlib import Path

import pytest
from commands import Command, Commands, commands_in

from nrmap.policies.policy import load_policy
from nrmap.support.records import read_records, select

# A Freeway episode has 2,048 agent steps, too many for a test.
SMOKE = (
    "scale=smoke", "env.max_agent_steps=150", "scale.analysis.num_states=4", "scale.analysis.prefix_sizes=[2]",
    "wandb=disabled", "threads=1",
)  # fmt: skip
# A busy machine may take several times as long as an idle one.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory):
    with commands_in(tmp_path_factory.mktemp("commands")) as commands:
        yield commands


def run(commands: Commands, module: str, *arguments: str) -> Command:
    """`python -m module arguments`, finished without an error."""
    finished = commands.start(module, *arguments)
    assert finished.wait() == 0, finished.err
    return finished


@pytest.fixture(scope="module")
def outputs(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder after the commands of `make reproduce`."""
    folder = tmp_path_factory.mktemp("outputs")
    sweep = ("-m", "method=ddqn,sa_ddqn", *SMOKE, f"outputs={folder}")
    run(commands, "train", *sweep)
    run(commands, "analyze", *sweep, "states_from=own,pool")
    return folder


def times(folder: Path) -> dict[Path, int]:
    """When each result under `folder` was written."""
    kept = [path for part in ("train", "states", "evaluation", "maps") for path in (folder / part).rglob("*.*")]
    return {path: path.stat().st_mtime_ns for path in kept if path.is_file() and "lock" not in path.name}


def test_both_methods_are_trained_and_the_robust_one_knows_its_parent(outputs: Path) -> None:
    (vanilla,) = (outputs / "train/Freeway/ddqn/seed0").glob("*/policy.safetensors")
    (robust,) = (outputs / "train/Freeway/sa_ddqn/seed0").glob("*/policy.safetensors")
    assert load_policy(robust).card.parent_sha256 == load_policy(vanilla).sha256
    assert load_policy(vanilla).card.agent_steps == 768


def test_maps_are_measured_on_own_states_and_on_the_pool(outputs: Path) -> None:
    for method in ("ddqn", "sa_ddqn"):
        paths = list((outputs / f"maps/Freeway/{method}/seed0").glob("*/metrics.json"))
        records = [record for path in paths for record in read_records(path)]
        whole = select(records, metric="sparsity", map_kind="hmap", prefix=False)
        assert {(record.states_from, record.num_states) for record in whole} == {("own", 4), ("pool", 8)}
        assert all(record.value is not None and 1 <= record.value <= 84 * (1 + 1e-12) for record in whole)


def test_both_methods_see_the_same_pool(outputs: Path) -> None:
    contents = [json.loads(path.read_text()) for path in (outputs / "maps").rglob("metrics.json")]
    pools = {
        content["inputs"]["states_sha256"] for content in contents if content["records"][0]["states_from"] == "pool"
    }
    assert len(pools) == 1


def test_the_same_commands_again_write_nothing(commands: Commands, outputs: Path) -> None:
    before = times(outputs)
    sweep = ("-m", "method=ddqn,sa_ddqn", *SMOKE, f"outputs={outputs}")
    run(commands, "train", *sweep)
    run(commands, "analyze", *sweep, "states_from=own,pool")
    assert times(outputs) == before


def test_another_temperature_is_another_map_of_the_same_ablation(commands: Commands, outputs: Path) -> None:
    before = set((outputs / "ablated").rglob("*.npy"))
    finished = run(commands, "analyze", "method=ddqn", *SMOKE, "temperature=[0.1,10]", f"outputs={outputs}")
    folder = Path(finished.out.strip().splitlines()[-1])
    temperatures = {record.temperature for record in read_records(folder / "metrics.json")}
    assert temperatures == {None, 0.1, 10.0}
    assert set((outputs / "ablated").rglob("*.npy")) == before


def test_the_report_is_made_of_what_is_there(commands: Commands, outputs: Path) -> None:
    run(commands, "analyze.report", "--outputs", str(outputs))
    page = (outputs / "report/index.html").read_text()
    assert "sa_ddqn" in page
    assert "Freeway" in page
