"""The commands of `make reproduce`, run as a user runs them, at the smallest scale."""

from pathlib import Path

import pytest
from commands import TINY, commands_in

from nrmap.policies.policy import load_policy
from nrmap.support.files import read_json
from nrmap.support.records import read_records, select

SWEEP = ("-m", "method=ddqn,sa_ddqn", *TINY, "scale.analysis.num_states=4", "scale.analysis.prefix_sizes=[2]")
# A busy machine may take several times as long as an idle one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def times(outputs: Path) -> dict[Path, int]:
    kept = [path for part in ("train", "states", "evaluation", "maps") for path in (outputs / part).rglob("*.*")]
    return {path: path.stat().st_mtime_ns for path in kept if path.is_file() and "lock" not in path.name}


def test_the_commands_of_make_reproduce_and_the_same_again(tmp_path: Path) -> None:
    outputs, before = tmp_path / "outputs", None
    with commands_in(tmp_path) as commands:
        for _ in range(2):
            for module, options in (("train", SWEEP), ("analyze", (*SWEEP, "states_from=own,pool"))):
                command = commands.start(module, *options, f"outputs={outputs}")
                assert command.wait() == 0, command.err
            assert before in (None, times(outputs)), "the same commands again write nothing"
            before = times(outputs)
        report = commands.start("analyze.report", "--outputs", str(outputs))
        assert report.wait() == 0, report.err
    page = (outputs / "report/index.html").read_text()
    assert "sa_ddqn" in page
    assert "Freeway" in page

    vanilla, robust = (load_policy(*outputs.glob(f"train/*/{name}/*/*/*.safetensors")) for name in ("ddqn", "sa_ddqn"))
    assert (robust.card.parent_sha256, vanilla.card.agent_steps) == (vanilla.sha256, 160)
    pools = set()
    for method in ("ddqn", "sa_ddqn"):
        paths = list(outputs.glob(f"maps/Freeway/{method}/seed0/*/metrics.json"))
        records = select(
            [record for path in paths for record in read_records(path)], metric="sparsity", map_kind="hmap"
        )
        whole = select(records, prefix=False)
        assert {(record.states_from, record.num_states) for record in whole} == {("own", 4), ("pool", 8)}
        assert all(record.value is not None and 1 <= record.value <= 36 * (1 + 1e-12) for record in whole)
        contents = [read_json(path) for path in paths]
        of_pool = [content for content in contents if content["records"][0]["states_from"] == "pool"]
        pools |= {content["inputs"]["states_sha256"] for content in of_pool}
    assert len(pools) == 1, "one pool of states for both policies"
