"""bench.curves keeps the curves of trainings as data; here the trainings are made up."""

import json
import sys

import matplotlib.image
import pytest

from bench.curves import main

ROWS = [
    {"agent_step": 1_000, "probe_flips": 1.0, "gradient_cosine": 0.5},
    {"agent_step": 2_000, "probe_flips": 0.5, "recent_mean_return": 3.0},
    {"agent_step": 3_000, "probe_flips": 0.25, "gradient_cosine": 0.125},
]
HEADER = (
    "run,agent_step,recent_mean_return,greedy_return,adversarial_flips,probe_own_flips,probe_flips,"
    "gradient_cosine,margin_fell,gradient_sparsity,uncertified"
)


def test_runs_are_taken_in_and_drawn_from_the_file_alone(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "runs.csv"
    for name, rows in (("A", ROWS[:1]), ("$\\frac$", ROWS[:1]), ("A", ROWS)):  # the second A replaces the first
        folder = tmp_path / name
        (folder / "train").mkdir(parents=True, exist_ok=True)
        (folder / "train/curves.json").write_text(json.dumps({"rows": rows, "episodes": []}))
        monkeypatch.setattr(sys, "argv", ["bench.curves", str(file), "--add", f"{name}={folder}"])
        with monkeypatch.context() as patched:
            patched.setattr("bench.curves.draw", lambda rows, path: None)
            main()
    assert file.read_text().splitlines() == [
        HEADER,
        "$\\frac$,2000,,,,,1,0.5,,,",
        "A,2000,3,,,,0.75,0.5,,,",
        "A,4000,,,,,0.25,0.125,,,",
    ]
    file.write_text(file.read_text().replace("2000,3,", "2000,3,nan").replace("n_step", "n_$step"))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(file)])
    main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| $\\frac$ | 2,000 | — | 1 | 0.5 |",
        "| A | 4,000 | 3 | 0.25 | 0.125 |",
    ]
    assert matplotlib.image.imread(file.with_suffix(".png")).std() > 0, "drawn, and $ starts no formula"


HEAD = b"run,agent_step,x\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (HEAD + b"A,1,\xff\n", "is not a file of curves: 'utf-8' codec"),
        (b"", "is not a file of curves"),
        (HEAD + b"A,1\n", "row 2 has 2 cells: expected 3"),
        (HEAD + b"A,,1\n", "row 2, 'agent_step': '': expected a number"),
        (b"run,x,x\nA,1,2\n", "expected 3 to 60 different names"),
        (HEAD, "holds no curves"),
        ({"rows": [{}], "episodes": []}, "/curves.json"),
    ],
)
def test_a_file_of_another_form_is_one_line(content, why, tmp_path, ended) -> None:
    file, is_training = tmp_path / "runs.csv", isinstance(content, dict)
    if is_training:
        (tmp_path / "curves.json").write_text(json.dumps(content))
    else:
        file.write_bytes(content)
    add = ["--add", f"A={tmp_path}"] if is_training else []
    (line,) = ended(main, str(file), *add)[2].splitlines()
    assert line.startswith(f"error: {tmp_path}")
    assert why in line
    assert file.exists() != is_training
