"""bench.curves keeps the curves of trainings as data; here the trainings are made up."""

import json
import sys
from pathlib import Path

import matplotlib.image
import pytest

from bench.curves import main

ROWS = [
    {"agent_step": 1_000, "probe_flips": 1.0, "gradient_cosine": 0.5},
    {"agent_step": 2_000, "probe_flips": 0.5, "recent_mean_return": 3.0},
    {"agent_step": 3_000, "probe_flips": 0.25, "gradient_cosine": 0.125},
]
HEADER = "run,agent_step,recent_mean_return,adversarial_flips,probe_own_flips,probe_flips,gradient_cosine,margin_fell"


def made_up(folder: Path, rows: list[dict[str, float]]) -> Path:
    place = folder / "train" / "Freeway" / "ddqn" / "seed3" / "0123456789ab"
    place.mkdir(parents=True)
    (place / "curves.json").write_text(json.dumps({"rows": rows, "episodes": []}))
    return folder


def test_runs_are_taken_in_and_drawn_from_the_file_alone(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "runs.csv"
    one, two = made_up(tmp_path / "one", ROWS), made_up(tmp_path / "two", ROWS[:1])
    for name, folder in (("A", two), ("B", two), ("A", one)):  # the second A replaces the first
        monkeypatch.setattr(sys, "argv", ["bench.curves", str(file), "--add", f"{name}={folder}"])
        with monkeypatch.context() as patched:
            patched.setattr("bench.curves.draw", lambda rows, path: None)
            main()
    assert file.read_text().splitlines() == [
        f"{HEADER},gradient_sparsity",
        "B,2000,,,,1,0.5,,",
        "A,2000,3,,,0.75,0.5,,",
        "A,4000,,,,0.25,0.125,,",
    ]
    file.write_text(file.read_text().replace("2000,3,", "2000,3,nan"))  # as earlier versions wrote
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(file)])
    main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| B | 2,000 | — | — | — | 1 | 0.5 | — | — |",
        "| A | 4,000 | 3 | — | — | 0.25 | 0.125 | — | — |",
    ]
    assert matplotlib.image.imread(file.with_suffix(".png")).std() > 0, "something is drawn"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"run,agent_step,x\nA,1,\xff\n", "is not a file of curves: 'utf-8' codec"),
        (b"run,agent_step,x\nA,1\n", "row 2 has 2 cells: expected 3"),
        (b"run,agent_step,x\nA,1,2,3\n", "row 2 has 4 cells: expected 3"),
        (b"run,agent_step,x\nA,1,much\n", "row 2, 'x': 'much': expected a number"),
        (b"run,agent_step,x\nA,1,-1e308\n", "'-1e308': expected a number within"),
        (b"run,agent_step,x\nA,,1\n", "row 2, 'agent_step': '': expected a number"),
        (b"run\nA\n", "expected 3 to 60 different names"),
        (b"run,x,x\nA,1,2\n", "expected 3 to 60 different names"),
        (b'run,agent_step,x\n"A', "is not a CSV file"),
        (b"", "is not a file of curves"),
        (b"run,agent_step,x\n", "holds no curves"),
    ],
)
def test_files_of_another_form_are_one_line(content, why, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "runs.csv").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(tmp_path / "runs.csv")])
    with pytest.raises(SystemExit):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert why in line


@pytest.mark.parametrize(
    "curves", [{}, [], {"rows": [{}], "episodes": []}, {"rows": [{"agent_step": "x"}], "episodes": []},
               {"rows": [{"agent_step": 1, "x": 1e308}], "episodes": []}]
)  # fmt: skip
def test_trainings_with_damaged_curves_are_one_line(curves, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "curves.json").write_text(json.dumps(curves))
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(tmp_path / "runs.csv"), "--add", f"A={tmp_path}"])
    with pytest.raises(SystemExit):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'curves.json'}: ")
    assert not (tmp_path / "runs.csv").exists()


def test_a_dollar_in_a_name_starts_no_formula(tmp_path, monkeypatch) -> None:
    (tmp_path / "runs.csv").write_text("run,agent_$step,$\\frac$\n$\\frac$,1,2\n")
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(tmp_path / "runs.csv")])
    main()
    assert (tmp_path / "runs.png").is_file()
