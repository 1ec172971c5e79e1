"""The W&B dashboard of the study, defined in code: `python -m analyze.workspace --entity me`.

Needs the extra `workspace` (wandb-workspaces), and an account to save it. The panels show what
trainings log as they go and what analyses keep as their summary, by the names of `summary_name`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nrmap.maps.null_networks import CONTROL_KINDS
from nrmap.maps.sparsity import MAP_NAMES
from nrmap.play.evaluation import WORST_CASE
from nrmap.support.errors import NrmapError, check
from nrmap.support.tracking import TrackingSpec, summary_name
from nrmap.support.wandb_tracker import X_AXIS, first_line, has_credentials

NAME = "Non-robust features: games, methods, temperatures"
GROUPED_BY = ("game", "method")
PINNED_CONFIG = ("game", "method", "seed")


@dataclass(frozen=True)
class Attack:
    """An attack by the name its records have, and its ℓ∞ radius in [0, 1]."""

    name: str
    epsilon: float


DEFAULT_ATTACKS = (Attack("pgd-10", 1 / 255),)
CERTIFIED_RADII = (1 / 255, 3 / 255)


def study_workspace(
    *,
    entity: str,
    project: str = "nrmap",
    temperatures: Sequence[float] = (1.0,),
    attacks: Sequence[Attack] = DEFAULT_ATTACKS,
    certified_radii: Sequence[float] = CERTIFIED_RADII,
) -> Any:
    """A wandb_workspaces Workspace with panels for training, returns, attacks, proofs, sparsity, controls and maps.

    HMAP and the KL map have a bar for every one of `temperatures`, returns and flips one for
    every one of `attacks`, what is proven one for every one of `certified_radii`; runs are
    grouped by game and method, so a bar is a mean over seeds with their spread. Nothing is sent
    before its `save()`. Raises NrmapError where wandb-workspaces is not installed and for a
    temperature ≤ 0.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
        from wandb_workspaces import expr
    except ImportError as error:
        install = "python -m pip install -c constraints.txt -e '.[workspace]'"
        raise NrmapError(f"wandb-workspaces is not installed ({error}): {install}") from error
    for temperature in temperatures:
        check(temperature > 0, f"temperature={temperature}: expected a number > 0")

    def curve(metric: str, title: str) -> Any:
        return panels.LinePlot(title=title, x=X_AXIS, y=[metric])

    def bars(title: str, names: Sequence[str]) -> Any:
        return panels.BarPlot(title=title, metrics=list(names), groupby_aggfunc="mean", groupby_rangefunc="minmax")

    def of_map(metric: str) -> list[str]:
        """The names of a metric of maps, one for every temperature where it has one."""
        has_temperature = metric.startswith(("hmap", "kl"))
        return [summary_name(metric, temperature=t) for t in (temperatures if has_temperature else [None])]

    def beside_controls(metric: str) -> list[str]:
        return [prefix + name for name in of_map(metric) for prefix in ("", *(f"{kind}_" for kind in CONTROL_KINDS))]

    clean = summary_name("return_mean", attack="clean")
    kmap = summary_name("kmap_sparsity")
    attacked = [(attack.name, attack.epsilon) for attack in attacks]
    returns = [summary_name("return_mean", attack=name, attack_epsilon=epsilon) for name, epsilon in attacked]
    flips = [summary_name("flip_rate", attack=name, attack_epsilon=epsilon) for name, epsilon in attacked]
    certified = [summary_name("certified_rate", attack="clean", attack_epsilon=radius) for radius in certified_radii]
    worst = [summary_name("return_mean", attack=WORST_CASE, attack_epsilon=radius) for radius in certified_radii]
    sections = {
        "Training": [
            curve("recent_mean_return", "Return, mean of recent training episodes"),
            curve("loss", "Loss"),
            curve("td_loss", "TD part of the loss"),
            curve("anchor_loss", "Distance from the vanilla agent's advantages"),
            curve("robust_loss", "Regulariser R (eq. 7)"),
            curve("q_mean", "Mean Q-value over the batch and all actions"),
            curve("adversarial_flips", "Share of the batch that the training attack flips"),
            curve("uncertified", "Share of the batch that the interval bounds leave open"),
            curve("probe_flips", "Share of states that PGD-10, which is not trained on, flips"),
            curve("probe_own_flips", "Share of the same states that the training attack flips"),
            curve("gradient_cosine", "Cosine of the training attack's first two gradients"),
            curve("margin_fell", "Share of the batch whose margin fell under the training attack"),
            curve("gradient_sparsity", "S of the margin's input gradient (eq. 9)"),
            curve("attack_epsilon", "Radius of the training attack"),
            curve("kappa", "κ, the weight of R"),
            curve("active_features", "Share of features that are alive"),
        ],
        "Returns and attacks": [
            bars("Return, clean and under attack", [clean, *returns]),
            bars("Attack success: share of states whose action flips", flips),
            bars("Certified actions: share of clean states that no attack can flip", certified),
            bars("Greedy worst-case return: the lowest-Q action not proven impossible", [clean, *worst]),
        ],
        "Sparsity S = ‖M‖₁ / ‖M‖₂ (eq. 9)": [
            bars("S(KMAP)", [kmap]),
            bars("S(HMAP) by temperature", of_map("hmap_sparsity")),
            bars("S(KL map) by temperature", of_map("kl_sparsity")),
            bars("S(margin-drop map)", [summary_name("margin_drop_sparsity")]),
            panels.ScatterPlot(
                title="S(KMAP) against the return",
                x=panels.SummaryMetric(clean),
                y=panels.SummaryMetric(kmap),
            ),
        ],
        "Controls and the grid": [
            *(
                bars(f"S({title}) beside random and shuffled weights", beside_controls(f"{kind}_sparsity"))
                for kind, title in MAP_NAMES.items()
            ),
            *(
                bars(f"Grid of the {title} beside random and shuffled weights", beside_controls(f"{kind}_grid_excess"))
                for kind, title in MAP_NAMES.items()
            ),
        ],
        "Maps": [
            panels.MediaBrowser(title="Heat maps", media_keys=["heatmaps"], mode="gallery", gallery_axis="run"),
            panels.MediaBrowser(title="Maps over the game", media_keys=["overlay"], mode="gallery", gallery_axis="run"),
        ],
        "Every number": [panels.WeavePanelSummaryTable(table_name="records")],
    }
    pinned_numbers = (clean, *returns, *certified, *worst, kmap)
    pinned = [f"config:{name}" for name in PINNED_CONFIG] + [f"summary:{name}" for name in pinned_numbers]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[workspaces.Section(name=name, panels=content, is_open=True) for name, content in sections.items()],
        runset_settings=workspaces.RunsetSettings(
            groupby=[expr.Config(name) for name in GROUPED_BY], pinned_columns=pinned
        ),
    )


def main(arguments: Sequence[str]) -> int:
    """Save the workspace and print its address; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m analyze.workspace", description="Save the W&B dashboard.")
    parser.add_argument("--entity", required=True, help="the account or team that owns the project")
    parser.add_argument("--project", default=TrackingSpec().project, help="default: %(default)s")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0], help="default: 1")
    options = parser.parse_args(arguments)
    try:
        workspace = study_workspace(entity=options.entity, project=options.project, temperatures=options.temperatures)
        check(has_credentials(), "no W&B API key: run `wandb login` or set WANDB_API_KEY")
        try:
            print(workspace.save().url)
        except Exception as error:
            raise NrmapError(f"W&B did not save the workspace: {first_line(error)}") from error
    except NrmapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
