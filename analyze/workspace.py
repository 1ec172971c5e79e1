"""Save the W&B dashboard of the study: `python -m analyze.workspace --entity TEAM`.

Needs the extra `workspace` (wandb-workspaces) and a W&B account. The panels show training curves and
the summary values of analyses, by the names that `summary_name` gives.
"""

import math
from collections.abc import Sequence
from typing import Any

from analyze.report.learning_curves import DIAGNOSTICS
from conf.argument_parser import ArgumentParser
from nrmap.maps.kinds import KINDS, MapKind
from nrmap.maps.null_networks import NULL_NETWORKS
from nrmap.play.evaluation import WORST_CASE
from nrmap.support.errors import NrmapError, check, errors_in_one_line, first_line
from nrmap.support.tracking import X_AXIS, TrackingSpec, has_credentials, summary_name

NAME = "Non-robust features: games, methods, temperatures"
GROUPED_BY = ("game", "method")
PINNED_CONFIG = ("game", "method", "seed")
ATTACK = ("pgd-10", 1 / 255)  # name and ℓ∞ radius on the scale [0, 1] of pixels
CERTIFIED_RADII = (1 / 255, 3 / 255)
TRAINING_CURVES = {
    "recent_mean_return": "Return, mean of recent training episodes",
    **DIAGNOSTICS,
    "attack_epsilon": "Radius of the training attack",
    "kappa": "κ, the weight of R",
}


def study_workspace(*, entity: str, project: str, temperatures: Sequence[float]) -> Any:
    """Build a wandb_workspaces Workspace: training, returns, attacks, sparsity, null networks and maps.

    Maps that depend on the temperature have one bar for each of `temperatures`. Runs are grouped
    by game and method, so bars are means over seeds. Nothing is sent until `save()` of the workspace is called.
    Raises NrmapError if wandb-workspaces is not installed, and for a temperature that is not finite and > 0.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
        from wandb_workspaces import expr
    except ImportError as error:
        install = "python -m pip install -c constraints.txt -e '.[workspace]'"
        raise NrmapError(f"wandb-workspaces is not installed ({error}): {install}") from error
    for temperature in temperatures:
        check(0 < temperature < math.inf, f"temperature={temperature}: expected a finite number > 0")

    def bars(title: str, names: Sequence[str]) -> Any:
        return panels.BarPlot(title=title, metrics=list(names), groupby_aggfunc="mean", groupby_rangefunc="minmax")

    def of_kind(kind: MapKind, measure: str, prefixes: Sequence[str] = ("",)) -> list[str]:
        at = temperatures if kind.by_temperature else [None]
        names = [summary_name(f"{kind.name}_{measure}", temperature=temperature) for temperature in at]
        return [prefix + name for name in names for prefix in prefixes]

    attack, radius = ATTACK
    clean = summary_name("return_mean", attack="clean")
    attacked = summary_name("return_mean", attack=attack, attack_epsilon=radius)
    flips = summary_name("flip_rate", attack=attack, attack_epsilon=radius)
    certified = [summary_name("certified_rate", attack="clean", attack_epsilon=radius) for radius in CERTIFIED_RADII]
    worst = [summary_name("return_mean", attack=WORST_CASE, attack_epsilon=radius) for radius in CERTIFIED_RADII]
    (kmap,) = of_kind(KINDS["kmap"], "sparsity")
    prefixes = ("", *(f"{kind}_" for kind in NULL_NETWORKS))
    sections = {
        "Training": [panels.LinePlot(title=title, x=X_AXIS, y=[name]) for name, title in TRAINING_CURVES.items()],
        "Returns and attacks": [
            bars("Return, clean and under attack", [clean, attacked]),
            bars("Attack success: fraction of states whose action flips", [flips]),
            bars("Certified rate: fraction of clean states that no attack can flip", certified),
            bars("Return under the greedy worst case (GWC)", [clean, *worst]),
        ],
        "Sparsity S = ‖M‖₁ / ‖M‖₂ (eq. 9)": [
            *(bars(f"S({kind.title})", of_kind(kind, "sparsity")) for kind in KINDS.values()),
            panels.ScatterPlot(
                title="S(KMAP) against the return", x=panels.SummaryMetric(clean), y=panels.SummaryMetric(kmap)
            ),
        ],
        "Null networks and the grid": [
            bars(f"{symbol}({kind.title}) beside random and shuffled weights", of_kind(kind, measure, prefixes))
            for symbol, measure in (("S", "sparsity"), ("grid", "grid_excess"))
            for kind in KINDS.values()
        ],
        "Maps": [
            panels.MediaBrowser(title=title, media_keys=[name], mode="gallery", gallery_axis="run")
            for title, name in (("Heat maps", "heatmaps"), ("Maps over the game", "overlay"))
        ],
        "Every number": [panels.WeavePanelSummaryTable(table_name="records")],
    }
    pinned = [f"config:{name}" for name in PINNED_CONFIG]
    pinned += [f"summary:{name}" for name in (clean, attacked, *certified, *worst, kmap)]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[workspaces.Section(name=name, panels=content, is_open=True) for name, content in sections.items()],
        runset_settings=workspaces.RunsetSettings(
            groupby=[expr.Config(name) for name in GROUPED_BY], pinned_columns=pinned
        ),
    )


@errors_in_one_line()
def main(arguments: Sequence[str] | None = None) -> None:
    """Save the workspace and print its URL; an error prints one line and exits with status 2."""
    parser = ArgumentParser(prog="python -m analyze.workspace", description="Save the W&B dashboard.")
    parser.add_argument("--entity", required=True, help="W&B account or team that owns the project")
    parser.add_argument("--project", default=TrackingSpec().project, help="W&B project; default: %(default)s")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[1.0], help="T of eq. 6 that analyses used; default: 1"
    )
    options = parser.parse_args(arguments)
    workspace = study_workspace(entity=options.entity, project=options.project, temperatures=options.temperatures)
    check(has_credentials(), "no W&B API key: run `wandb login` or set WANDB_API_KEY")
    try:
        print(workspace.save().url)
    except Exception as error:
        raise NrmapError(f"W&B did not save the workspace: {first_line(error)}") from error


if __name__ == "__main__":
    main()
