"""Chart panels of trainings: returns and diagnostics against agent steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyze.report.charts import RECENT, Curve, ReferenceLine, Series, draw_curves, draw_lines
from analyze.report.figure_files import Panel
from analyze.report.names import PolicyName, method_styles
from analyze.report.panels import of_most_episodes, panel_of
from nrmap.support.records import Record, select

# Titles of the curves of a training, besides its return.
DIAGNOSTICS = {
    "greedy_return": "Greedy return on validation seeds",
    "loss": "Loss",
    "td_loss": "TD part of the loss",
    "q_mean": "Mean Q-value over the batch and all actions",
    "anchor_loss": "Distance from the vanilla agent's advantages",
    "robust_loss": "Regulariser R of eq. 7",
    "adversarial_flips": "Fraction of the batch that the training attack flips",
    "uncertified": "Fraction of the batch that the bounds do not certify",
    "probe_flips": "Probe: fraction of states that PGD-10 flips",
    "probe_own_flips": "Probe: fraction that the training attack flips",
    "gradient_cosine": "Cosine of the training attack's first two gradients",
    "margin_fell": "Fraction of the batch whose margin the attack lowers",
    "gradient_sparsity": "S of the margin's input gradient, eq. 9",
    "attack_level": "Number of roll-backs",
    "active_features": "Fraction of features that are active",
}


@dataclass(frozen=True)
class Run:
    """A training run for the learning curves; `steps_before` are the agent steps of all its ancestors."""

    name: PolicyName
    curves: Mapping[str, Any]
    steps_before: int = 0


def curve_panels(runs: Sequence[Run], records: Sequence[Record]) -> list[Panel]:
    """Training returns of every run, and the diagnostics of its updates."""
    runs = sorted(runs, key=lambda run: run.name.rank)
    colours = {name: colour for name, (colour, _) in method_styles([run.name for run in runs]).items()}
    curves = []
    for run in runs:
        episodes = run.curves["episodes"]
        steps, returns = (
            np.array([episode[key] for episode in episodes], dtype=float)
            for key in ("agent_step", "undiscounted_return")
        )
        if episodes:
            curves.append(Curve(run.name.short, run.steps_before + steps, returns, colours[run.name.group]))
    panels = []
    if curves:
        baselines = of_most_episodes(record for record in select(records, metric="return_mean") if record.is_baseline)
        best = max((record.value or 0.0 for record in baselines), default=None)
        marks = [] if best is None else [ReferenceLine("best baseline", best)]
        ends = "; ".join(f"{curve.label} ends at {curve.returns[-RECENT:].mean():.2f}" for curve in curves)
        title = f"Training returns, mean of the last {RECENT} episodes"
        panels.append(panel_of(draw_curves, title, f". {ends}", curves=curves, marks=marks))
    for key, title in DIAGNOSTICS.items():
        lines = []
        for run in runs:
            rows = [row for row in run.curves["rows"] if key in row]
            x = [run.steps_before + row["agent_step"] for row in rows]
            if rows:
                lines.append(Series(run.name.short, x, [row[key] for row in rows], colours[run.name.group]))
        if lines:
            labels = {"x_label": "agent steps", "y_label": key.replace("_", " ")}
            panels.append(
                panel_of(draw_lines, title, f" during training, of {len(lines)} runs", series=lines, **labels)
            )
    return panels
