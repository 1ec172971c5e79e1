"""The commands of the README, run as a user runs them, at the smallest scale."""

import json
from pathlib import Path

import pytest
from commands import TINY, Command, commands_in

from nrmap.policies.policy import load_policy
from nrmap.support.records import read_records, select

SMOKE = (*TINY, "scale.analysis.num_states=4", "scale.analysis.prefix_sizes=[2]")
# A busy machine may take several times as long as an idle one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SWEEP = ("-m", "method=ddqn,sa_ddqn", *SMOKE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """`run(module, …)`: `python -m module …` with one outputs folder, finished without an error."""
    with commands_in(tmp_path_factory.mktemp("commands")) as commands:

        def run(module: str, *arguments: str) -> Command:
            finished = commands.start(module, *arguments)
            assert finished.wait() == 0, finished.err
            return finished

        yield run


@pytest.fixture(scope="module")
def outputs(run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder after the commands of `make reproduce`."""
    folder = tmp_path_factory.mktemp("outputs")
    run("train", *SWEEP, f"outputs={folder}")
    run("analyze", *SWEEP, f"outputs={folder}", "states_from=own,pool")
    return folder


def test_both_methods_are_trained_and_the_robust_one_knows_its_parent(outputs: Path) -> None:
    (vanilla,) = (outputs / "train/Freeway/ddqn/seed0").glob("*/policy.safetensors")
    (robust,) = (outputs / "train/Freeway/sa_ddqn/seed0").glob("*/policy.safetensors")
    assert load_policy(robust).card.parent_sha256 == load_policy(vanilla).sha256
    assert load_policy(vanilla).card.agent_steps == 160


def test_maps_are_measured_on_own_states_and_on_one_pool(outputs: Path) -> None:
    pools = set()
    for method in ("ddqn", "sa_ddqn"):
        paths = list((outputs / f"maps/Freeway/{method}/seed0").glob("*/metrics.json"))
        records = [record for path in paths for record in read_records(path)]
        whole = select(records, metric="sparsity", map_kind="hmap", prefix=False)
        assert {(record.states_from, record.num_states) for record in whole} == {("own", 4), ("pool", 8)}
        assert all(record.value is not None and 1 <= record.value <= 36 * (1 + 1e-12) for record in whole)
        contents = [json.loads(path.read_text()) for path in paths]
        of_pool = [content for content in contents if content["records"][0]["states_from"] == "pool"]
        pools |= {content["inputs"]["states_sha256"] for content in of_pool}
    assert len(pools) == 1


def test_the_same_commands_again_write_nothing(run, outputs: Path) -> None:
    def times() -> dict[Path, int]:
        kept = [path for part in ("train", "states", "evaluation", "maps") for path in (outputs / part).rglob("*.*")]
        return {path: path.stat().st_mtime_ns for path in kept if path.is_file() and "lock" not in path.name}

    before = times()
    run("train", *SWEEP, f"outputs={outputs}")
    run("analyze", *SWEEP, f"outputs={outputs}", "states_from=own,pool")
    assert times() == before


def test_the_report_is_made_of_what_is_there(run, outputs: Path) -> None:
    run("analyze.report", "--outputs", str(outputs))
    page = (outputs / "report/index.html").read_text()
    assert "sa_ddqn" in page
    assert "Freeway" in page
