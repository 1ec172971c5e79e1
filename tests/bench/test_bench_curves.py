"""bench.curves keeps the curves of trainings as data; here the trainings are made up."""

import json
import sys
from pathlib import Path

import matplotlib.image

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
        main()
    assert file.read_text().splitlines() == [
        f"{HEADER},gradient_sparsity",
        "B,2000,,,,1,0.5,,",
        "A,2000,3,,,0.75,0.5,,",
        "A,4000,,,,0.25,0.125,,",
    ]
    file.with_suffix(".png").unlink()
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(file)])
    main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| B | 2,000 | — | — | — | 1 | 0.5 | — | — |",
        "| A | 4,000 | 3 | — | — | 0.25 | 0.125 | — | — |",
    ]
    assert matplotlib.image.imread(file.with_suffix(".png")).std() > 0, "something is drawn"
