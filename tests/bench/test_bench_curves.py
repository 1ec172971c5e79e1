"""bench.curves compares trainings from the files that they leave; here the files are made up."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from analyze.report.results import flattened
from bench.curves import main, read_run, the_recipe
from nrmap.learning.settings import TrainSettings

ROWS = [
    {"agent_step": 20, "seconds": 5.0},
    {"agent_step": 60, "seconds": 30.0, "q_mean": 0.25},
    {"agent_step": 121, "seconds": 120.0, "q_mean": 0.5, "recent_mean_return": 11 / 3},
]


def made_up(folder: Path, settings: TrainSettings, rows: list[dict[str, float]], returns: list[float]) -> Path:
    place = folder / "train" / "Freeway" / "ddqn" / "seed3" / "0123456789ab"
    place.mkdir(parents=True)
    episodes: list[dict[str, Any]] = [{"undiscounted_return": value} for value in returns]
    (place / "settings.json").write_text(json.dumps(asdict(settings)))
    (place / "curves.json").write_text(json.dumps({"rows": rows, "episodes": episodes}))
    return folder


@pytest.fixture
def learned(tmp_path: Path, tiny_settings) -> Path:
    settings = tiny_settings(warm_up_steps=30, steps_per_update=2, num_envs=2, seed=3)
    return made_up(tmp_path / "B", settings, ROWS, [7.0, 1.0, 3.0])


def test_a_run_is_read(learned: Path, tiny_settings) -> None:
    recipe = tiny_settings(learner={"learning_rate": 0.5}, replay={"n_step": 1}, seed=9, steps=60)
    run = read_run(learned, flattened(asdict(recipe)))
    assert (run.name, run.seed, run.minutes) == ("B", 3, 2.0)
    assert run.changes == "`n_step=3`, `learning_rate=0.001`", "another length and another seed are no changes"
    # An update every 2 steps after the first 30.
    assert [updates for updates, _, _ in run.curve] == [0, 15, 45]
    np.testing.assert_equal([mean for _, mean, _ in run.curve], [np.nan, np.nan, 11 / 3])
    np.testing.assert_equal([q for _, _, q in run.curve], [np.nan, 0.25, 0.5])
    assert run.last_returns == [1.0, 3.0], "one for each environment"


def test_a_run_of_the_recipe_has_no_changes(learned: Path, tiny_settings) -> None:
    assert read_run(learned, flattened(asdict(tiny_settings()))).changes == "the recipe"


def test_the_recipe_follows_its_overrides() -> None:
    recipe, other = the_recipe([]), the_recipe(["scale.learner.learning_rate=0.5", "env=Pong"])
    differing = {key: other[key] for key in other if other[key] != recipe.get(key)}
    assert differing == {"learner.learning_rate": "0.5", "env.game": "Pong"}


def test_the_command(learned: Path, tmp_path: Path, tiny_settings, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    begun = made_up(tmp_path / "C", tiny_settings(), ROWS[:1], [])
    target = tmp_path / "pictures" / "search"
    monkeypatch.setattr(sys, "argv", ["bench.curves", str(learned), str(begun), "--to", str(target)])
    main()
    assert list(csv.reader(target.with_suffix(".csv").read_text().splitlines())) == [
        ["run", "updates", "recent_mean_return", "q_mean"],
        ["B", "0", "nan", "nan"],
        ["B", "15", "nan", "0.2500"],
        ["B", "45", "3.67", "0.5000"],
        ["C", "0", "nan", "nan"],
    ]
    table = capsys.readouterr().out.splitlines()[2:]
    assert [line.rsplit(" | ", maxsplit=3)[1:] for line in table] == [
        ["45", "2", "2.0 (1 to 3) |"],
        ["0", "0", "— |"],
    ]
    picture = matplotlib.image.imread(target.with_suffix(".png"))  # [H, W, 4]
    assert picture.std() > 0, "something is drawn"
