"""Chart panels of trainings: returns and diagnostics against agent steps."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.report.charts import ReferenceLine, Series, draw_lines, panel_of
from analyze.report.names import method_styles
from analyze.report.results import FoundTraining, of_most_episodes
from analyze.report.sheets import Panel
from nrmap.support.records import Record, select

RECENT = 20  # episodes that a learning curve averages
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


def curve_panels(trainings: Sequence[FoundTraining], records: Sequence[Record]) -> list[Panel]:
    """Plot training returns, the best baseline of `records`, and diagnostics; agent steps include earlier trainings."""
    runs = sorted((training for training in trainings if training.curves), key=lambda run: run.name)
    styles = method_styles(run.name for run in runs)

    def lines_of(rows: str, key: str) -> list[Series]:
        lines = []
        for run in runs:
            points = [(row["agent_step"], row[key]) for row in (run.curves or {})[rows] if key in row]
            if points:
                x, y = np.array(points, dtype=np.float64).T
                lines.append(Series(run.name.short, run.steps_before + x, y, styles[run.name.group][0]))
        return lines

    def panel(title: str, text: str, y_label: str, lines: list[Series], marks: Sequence[ReferenceLine] = ()) -> Panel:
        return panel_of(draw_lines, title, text, series=lines, x_label="agent steps", y_label=y_label, marks=marks)

    panels = []
    episodes = lines_of("episodes", "undiscounted_return")
    if episodes:
        baselines = of_most_episodes(select(records, metric="return_mean", is_baseline=True))
        best = max((record.value or 0.0 for record in baselines), default=None)
        marks = [] if best is None else [ReferenceLine("best baseline", best)]
        means = [replace(line, y=_recent_means(line.y), dots=line.y) for line in episodes]
        ends = "; ".join(f"{line.label} ends at {np.asarray(line.y)[-1]:.2f}" for line in means)
        title = f"Training returns, mean of the last {RECENT} episodes"
        panels.append(panel(title, f". {ends}", "training return", means, marks))
    for key, title in DIAGNOSTICS.items():
        lines = lines_of("rows", key)
        if lines:
            panels.append(panel(title, f" during training, of {len(lines)} runs", key.replace("_", " "), lines))
    return panels


def _recent_means(returns: ArrayLike) -> NDArray[np.float64]:
    """Average the last `RECENT` returns at each episode, fewer at the start."""
    values = np.asarray(returns)
    return np.array([values[max(end - RECENT, 0) : end].mean() for end in range(1, len(values) + 1)])
