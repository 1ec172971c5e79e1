"""The trainings of a search for a recipe, side by side: `python -m bench.curves FOLDER … --to docs/search`.

Every FOLDER is one outputs folder, named after its run. Writes the learning curves as one picture
and as CSV, and prints a Markdown table: what each run changed, how far it came, and its returns.
"""

import argparse
import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from analyze.report.results import flattened
from nrmap.learning.settings import train_settings
from nrmap.support.files import atomic_path, read_json
from nrmap.support.layout import CURVES_FILE, SETTINGS_FILE

# What a run of another length or seed does not differ in.
_NOT_COMPARED = ("seed", "steps", "parent", "regulariser", "method")


@dataclass(frozen=True)
class Run:
    """One training: what it changed of the recipe, and (updates, mean return, mean Q-value) at every row."""

    name: str
    changes: str
    seed: int
    num_envs: int
    minutes: float
    curve: list[tuple[int, float, float]]  # NaN before the first episode, or update
    episodes: list[dict[str, Any]]

    @property
    def last_returns(self) -> list[float]:
        """The returns of the last episode of every environment."""
        return [episode["undiscounted_return"] for episode in self.episodes[-self.num_envs :]]


def read_run(folder: Path, recipe: dict[str, str]) -> Run:
    """The only training under `folder`."""
    (path,) = folder.rglob(CURVES_FILE)
    settings, curves = read_json(path.with_name(SETTINGS_FILE)), read_json(path)
    own = {key: value for key, value in flattened(settings).items() if key.split(".")[0] not in _NOT_COMPARED}
    changes = [f"`{key.rpartition('.')[2]}={value}`" for key, value in own.items() if recipe.get(key) != value]
    curve = []
    for row in curves["rows"]:
        updates = max(row["agent_step"] - settings["warm_up_steps"], 0) // settings["steps_per_update"]
        curve.append((updates, row.get("recent_mean_return", np.nan), row.get("q_mean", np.nan)))
    minutes = curves["rows"][-1]["seconds"] / 60
    return Run(
        folder.name, ", ".join(changes) or "the recipe", settings["seed"], settings["num_envs"], minutes, curve,
        curves["episodes"],
    )  # fmt: skip


def the_recipe(overrides: list[str]) -> dict[str, str]:
    """The settings of `python -m train` with `overrides`, flat."""
    with initialize_config_module("conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("train", ["outputs=unused", *overrides]), resolve=True)
    assert isinstance(config, dict)
    return flattened(asdict(train_settings({str(key): value for key, value in config.items()})))


def draw(runs: list[Run], path: Path) -> None:
    """Returns and mean Q-values against updates; every line ends in its run's name."""
    figure, panels = plt.subplots(2, 1, figsize=(8, 8), sharex=True, layout="constrained")
    colours = plt.get_cmap("tab20")
    for index, run in enumerate(runs):
        curve = np.array(run.curve)  # [rows, 3]
        for axes, values in zip(panels, curve[:, 1:].T, strict=True):
            known = np.isfinite(values)
            if known.any():
                axes.plot(curve[known, 0] / 1000, values[known], color=colours(index), linewidth=1.2)
                end = (curve[known, 0][-1] / 1000, values[known][-1])
                axes.annotate(run.name, end, xytext=(3, 0), textcoords="offset points", va="center", fontsize=9)
    panels[0].set(ylabel="mean return of the last 20 training episodes")
    panels[1].set(ylabel="mean Q-value of the batches", xlabel="thousand updates")
    for axes in panels:
        axes.grid(alpha=0.2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def main() -> None:
    """Compare the runs that were named."""
    parser = argparse.ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, required=True, help="path of the picture and the CSV, without their endings")
    parser.add_argument("--recipe", nargs="*", default=[], help="overrides that make the settings to compare with")
    options = parser.parse_args()
    recipe = the_recipe(options.recipe)
    runs = [read_run(folder, recipe) for folder in options.folders]
    draw(runs, options.to.with_suffix(".png"))
    with atomic_path(options.to.with_suffix(".csv")) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "updates", "recent_mean_return", "q_mean"))
        for run in runs:
            writer.writerows((run.name, updates, f"{mean:.2f}", f"{q:.4f}") for updates, mean, q in run.curve)
    print("| run | seed | differs from the recipe in | updates | minutes | last return of every environment |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        returns = run.last_returns
        spread = f"{np.mean(returns):.1f} ({min(returns):g} to {max(returns):g})" if returns else "—"
        print(f"| {run.name} | {run.seed} | {run.changes} | {run.curve[-1][0]:,} | {run.minutes:.0f} | {spread} |")


if __name__ == "__main__":
    main()
