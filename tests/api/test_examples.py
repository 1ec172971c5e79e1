"""The examples run, as a user runs them."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "arguments", "file", "printed"),
    [
        ("map_your_own_network.py", (), "maps.png", "S(K) = "),
        pytest.param(
            "map_a_reference_policy.py", ("2", "1"), "reference_maps.npz", "needs at least 16 episodes, found 1",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "compare_two_policies.py", ("2", "1"), "sa_ddqn_maps.png", "flipped by PGD-10", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_an_example_runs_where_the_policies_of_the_repository_are_found(
    name, arguments, file, printed, tmp_path, monkeypatch, capsys
):
    (tmp_path / "outputs").symlink_to(EXAMPLES.parent / "outputs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert (tmp_path / file).stat().st_size > 10_000
    assert printed in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook_runs_and_holds_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [cell for cell in json.loads((EXAMPLES / "maps.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] and cell["outputs"][0]["output_type"] != "error" for cell in cells)
    lines = [line for cell in cells for line in (*cell["source"], "\n") if not line.startswith("%")]
    program, large = "".join(lines), "NUM_STATES, EPISODES = 64, 16"
    assert large in program
    monkeypatch.chdir(EXAMPLES)
    scope: dict[str, Any] = {}
    exec(program.replace(large, "NUM_STATES, EPISODES = 2, 1"), scope)
    assert sorted(zip(*scope["found"]["margin_drop"].nonzero(), strict=True)) == [(40, 20), (40, 42), (40, 60)]
