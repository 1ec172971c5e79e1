"""Chart panels of play and training: returns, actions, Q-gaps, learning curves.

Every function takes the records of one game and returns the panels of one sheet, none without data.
Every seed has its own row or line.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from analyze.report.charts import (
    GREY,
    Curve,
    IntervalRow,
    QuantileRow,
    ReferenceLine,
    Series,
    draw_curves,
    draw_fractions,
    draw_intervals,
    draw_lines,
    draw_quantiles,
    number_text,
    titled,
)
from analyze.report.figure_files import Panel
from analyze.report.names import (
    attack_label,
    epsilon_label,
    method_rank,
    method_styles,
    policies_of,
    policy_label,
    policy_order,
    states_label,
)
from nrmap.play.evaluation import BASELINE_METHOD
from nrmap.support.records import Record, select

_DIAGNOSTICS = {
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
    "active_features": "Fraction of features that are active",
}


@dataclass(frozen=True)
class Run:
    """A training run for the learning curves; `steps_before` are the agent steps of all its ancestors."""

    method: str
    seed: int
    curves: Mapping[str, Any]
    steps_before: int = 0


def return_panels(records: Sequence[Record]) -> list[Panel]:
    """Episodes as dots, means with intervals: a panel for each attack. The clean panel also has the baselines.

    Of several evaluations of one policy the one with most episodes is shown.
    """
    means = of_most_episodes(select(records, metric="return_mean"))
    constants = [
        record for record in means if record.method == BASELINE_METHOD and (record.attack or "").startswith("constant:")
    ]
    best = max(constants, key=lambda record: record.value or 0.0, default=None)
    marks = (
        []
        if best is None
        else [ReferenceLine(f"best constant action ({attack_label(best.attack)})", best.value or 0.0)]
    )
    conditions = {
        (record.attack_epsilon or 0.0, record.attack) for record in means if record.method != BASELINE_METHOD
    } or {(0.0, "clean")}
    panels = []
    for attack_epsilon, attack in sorted(conditions, key=lambda condition: (condition[0], condition[1] or "")):
        mine = select(means, attack=attack, attack_epsilon=attack_epsilon or None)
        mine = sorted(mine, key=policy_order)
        if attack == "clean":
            mine += sorted(select(means, method=BASELINE_METHOD), key=lambda record: -(record.value or 0.0))
        title = f"Returns: {attack_label(attack, attack_epsilon or None)}"
        rows = [_return_row(record, records) for record in mine]
        draw = partial(titled, draw_intervals, title, rows=rows, x_label="return of an episode", marks=marks)
        values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
        if rows:
            panels.append(Panel(draw, f"{title}, means. {values}."))
    return panels


def of_most_episodes(records: Iterable[Record]) -> list[Record]:
    """Of records that differ in their episodes only, the one over most episodes."""
    best: dict[Record, Record] = {}
    for record in sorted(records, key=lambda record: record.episodes or 0):
        same = replace(record, value=0.0, low=None, high=None, interval=None, note=None, episodes=None, num_states=None)
        best[same] = record
    return list(best.values())


def _return_row(mean: Record, records: Sequence[Record]) -> IntervalRow:
    same = {name: getattr(mean, name) for name in ("method", "seed", "attack", "attack_epsilon", "episodes")}
    episodes = [record.value for record in select(records, metric="return", **same) if record.value is not None]
    if mean.method == BASELINE_METHOD:
        return IntervalRow(attack_label(mean.attack), mean.value, GREY, "|", mean.low, mean.high, episodes)
    colour, marker = method_styles([record.method for record in records if record.method != BASELINE_METHOD])[
        mean.method
    ]
    return IntervalRow(policy_label(mean.method, mean.seed), mean.value, colour, marker, mean.low, mean.high, episodes)


def certified_panels(records: Sequence[Record]) -> list[Panel]:
    """The certified fraction of the states of clean episodes, a panel for each radius."""
    rates = sorted(of_most_episodes(select(records, metric="certified_rate")), key=policy_order)
    styles = method_styles([record.method for record in rates])
    panels = []
    for attack_epsilon in sorted({record.attack_epsilon or 0.0 for record in rates}):
        mine = select(rates, attack_epsilon=attack_epsilon)
        rows = [
            IntervalRow(policy_label(r.method, r.seed), r.value, *styles[r.method], low=r.low, high=r.high)
            for r in mine
        ]
        title = f"Certified actions at {epsilon_label(attack_epsilon)}"
        x_label = "fraction of the states of clean episodes"
        draw = partial(titled, draw_intervals, title, rows=rows, x_label=x_label, limits=(-0.03, 1.03))
        values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
        panels.append(Panel(draw, f"{title}, fractions of the states of clean episodes. {values}."))
    return panels


def action_panels(records: Sequence[Record]) -> list[Panel]:
    """The greedy policies' actions in clean episodes, in percent."""
    measured = of_most_episodes(select(records, metric="action_share", attack="clean"))
    mine = [record for record in measured if record.value is not None]
    policies = policies_of(mine)
    actions = list(dict.fromkeys(record.item or "" for record in mine))
    if not policies:
        return []
    fractions = np.full((len(policies), len(actions)), np.nan)
    for record in mine:
        fractions[policies.index((record.method, record.seed)), actions.index(record.item or "")] = record.value
    labels = [policy_label(method, seed) for method, seed in policies]
    title = "Greedy actions, clean episodes"
    draw = partial(titled, draw_fractions, title, fractions=fractions, row_labels=labels, column_labels=actions)
    text = "; ".join(
        f"{label}: " + ", ".join(f"{action} {100 * part:.1f}%" for action, part in zip(actions, row, strict=True))
        for label, row in zip(labels, fractions, strict=True)
    )
    return [Panel(draw, f"Greedy actions in clean episodes. {text}.")]


def gap_panels(records: Sequence[Record]) -> list[Panel]:
    """Quantiles of the Q-gap over the states of whole clean episodes, and over those of the maps."""
    gaps = of_most_episodes(select(records, metric="q_gap_quantile"))
    panels = []
    for states_from in sorted({record.states_from or "" for record in gaps}):
        mine = [record for record in gaps if (record.states_from or "") == states_from]
        styles = method_styles([record.method for record in mine])
        rows = []
        for method, seed in policies_of(mine):
            own = select(mine, method=method, seed=seed)
            quantiles = {float(record.item or "nan"): record.value for record in own if record.value is not None}
            rows.append(QuantileRow(policy_label(method, seed), quantiles, *styles[method]))
        title = f"Q-gap: {states_label(states_from) if states_from else 'all states of clean episodes'}"
        draw = partial(titled, draw_quantiles, title, rows=rows, x_label="Q(s, a*) − max over the other actions")
        medians = "; ".join(f"{row.label} {number_text(row.quantiles.get(0.5))}" for row in rows)
        panels.append(Panel(draw, f"{title}. Medians: {medians}."))
    return panels


def curve_panels(runs: Sequence[Run], records: Sequence[Record]) -> list[Panel]:
    """Training returns of every run, and the diagnostics of its updates."""
    runs = sorted(runs, key=lambda run: (method_rank(run.method), run.seed))
    styles = method_styles([run.method for run in runs])
    curves = []
    for run in runs:
        episodes = run.curves["episodes"]
        if episodes:
            steps = np.array([run.steps_before + episode["agent_step"] for episode in episodes], dtype=float)
            returns = np.array([episode["undiscounted_return"] for episode in episodes], dtype=float)
            curves.append(Curve(policy_label(run.method, None), steps, returns, styles[run.method][0]))
    panels = []
    if curves:
        baselines = of_most_episodes(select(records, metric="return_mean", method=BASELINE_METHOD))
        best = max((record.value or 0.0 for record in baselines), default=None)
        marks = [] if best is None else [ReferenceLine("best baseline", best)]
        title = "Training returns, mean of the last 20 episodes"
        ends = "; ".join(f"{curve.label} ends at {curve.returns[-20:].mean():.2f}" for curve in curves)
        panels.append(Panel(partial(titled, draw_curves, title, curves=curves, marks=marks), f"{title}. {ends}."))
    for key, title in _DIAGNOSTICS.items():
        lines = []
        for run in runs:
            rows = [row for row in run.curves["rows"] if key in row]
            if rows:
                x = [run.steps_before + row["agent_step"] for row in rows]
                y = [row[key] for row in rows]
                lines.append(Series(policy_label(run.method, None), x, y, styles[run.method][0]))
        if lines:
            draw = partial(
                titled, draw_lines, title, series=lines, x_label="agent steps", y_label=key.replace("_", " ")
            )
            panels.append(Panel(draw, f"{title} during training, of {len(lines)} runs."))
    return panels
