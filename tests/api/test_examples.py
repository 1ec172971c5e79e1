"""The examples run, as a user runs them."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Run an example in `folder`, where the policies of the repository are found."""
    (folder / "outputs").symlink_to(EXAMPLES.parent / "outputs")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_map_your_own_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("map_your_own_network.py", monkeypatch=monkeypatch, folder=tmp_path)
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert capsys.readouterr().out.startswith("S(K) = ")


def test_map_a_reference_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("map_a_reference_policy.py", "2", "1", monkeypatch=monkeypatch, folder=tmp_path)
    assert (tmp_path / "reference_maps.npz").is_file()
    assert "needs at least 16 episodes, found 1" in capsys.readouterr().out


def test_compare_two_policies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("compare_two_policies.py", "2", "1", monkeypatch=monkeypatch, folder=tmp_path)
    assert (tmp_path / "sa_ddqn_maps.png").is_file()
    assert capsys.readouterr().out.count("flipped by PGD-10") == 2


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
