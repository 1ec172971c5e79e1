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
    RECENT,
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
    PolicyName,
    condition_of,
    method_styles,
    name_of,
    policies_of,
    policy_order,
    states_of,
)
from nrmap.robustness.attacks import epsilon_text
from nrmap.support.records import CONSTANT_ACTION, Record, select

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


def return_panels(records: Sequence[Record]) -> list[Panel]:
    """Episodes as dots, means with intervals: a panel for each attack. The clean panel also has the baselines.

    Of several evaluations of one policy the one with most episodes is shown.
    """
    means = of_most_episodes(select(records, metric="return_mean"))
    best = best_constant_action(means)
    marks = []
    if best is not None:
        marks = [ReferenceLine(f"best constant action ({name_of(best).title})", best.value or 0.0)]
    panels = []
    for condition in sorted({condition_of(record) for record in means}, key=lambda one: one.rank):
        mine = [record for record in means if condition_of(record) == condition]
        policies = sorted((record for record in mine if not record.is_baseline), key=policy_order)
        baselines = sorted((r for r in mine if r.is_baseline), key=lambda record: -(record.value or 0.0))
        title = f"Returns: {condition.label}"
        rows = [_return_row(record, records) for record in (*policies, *baselines)]
        draw = partial(titled, draw_intervals, title, rows=rows, x_label="return of an episode", marks=marks)
        values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
        panels.append(Panel(draw, f"{title}, means. {values}."))
    return panels


def of_most_episodes(records: Iterable[Record]) -> list[Record]:
    """Of records that differ in their episodes only, the one over most episodes."""
    best: dict[Record, Record] = {}
    for record in sorted(records, key=lambda record: record.episodes or 0):
        same = replace(record, value=0.0, low=None, high=None, interval=None, note=None, episodes=None, num_states=None)
        best[same] = record
    return list(best.values())


def best_constant_action(records: Sequence[Record]) -> Record | None:
    """The mean return of the constant action that returns most; None without any."""
    constants = select(records, metric="return_mean", method=CONSTANT_ACTION)
    return max(constants, key=lambda record: record.value or 0.0, default=None)


def _return_row(mean: Record, records: Sequence[Record]) -> IntervalRow:
    name = name_of(mean)
    same = select(records, metric="return", episodes=mean.episodes)
    episodes = [
        record.value
        for record in same
        if (name_of(record), condition_of(record)) == (name, condition_of(mean)) and record.value is not None
    ]
    colour, marker = (GREY, "|") if mean.is_baseline else method_styles(policies_of(records))[name.group]
    return IntervalRow(name.label, mean.value, colour, marker, mean.low, mean.high, episodes)


def certified_panels(records: Sequence[Record]) -> list[Panel]:
    """The certified fraction of the states of clean episodes, a panel for each radius."""
    rates = sorted(of_most_episodes(select(records, metric="certified_rate")), key=policy_order)
    styles = method_styles(policies_of(rates))
    panels = []
    for attack_epsilon in sorted({record.attack_epsilon or 0.0 for record in rates}):
        mine = select(rates, attack_epsilon=attack_epsilon)
        rows = [IntervalRow(name_of(r).label, r.value, *styles[name_of(r).group], low=r.low, high=r.high) for r in mine]
        title = f"Certified actions at {epsilon_text(attack_epsilon)}"
        x_label = "fraction of the states of clean episodes"
        draw = partial(titled, draw_intervals, title, rows=rows, x_label=x_label, limits=(-0.03, 1.03))
        values = "; ".join(f"{row.label} {number_text(row.value)}" for row in rows)
        panels.append(Panel(draw, f"{title}, fractions of the states of clean episodes. {values}."))
    return panels


def action_panels(records: Sequence[Record]) -> list[Panel]:
    """The greedy policies' actions in clean episodes, in percent."""
    measured = of_most_episodes(select(records, metric="action_share", attack="clean"))
    mine = [record for record in measured if record.value is not None and not record.is_baseline]
    policies = policies_of(mine)
    actions = list(dict.fromkeys(record.action or "" for record in mine))
    if not policies:
        return []
    fractions = np.full((len(policies), len(actions)), np.nan)
    for record in mine:
        fractions[policies.index(name_of(record)), actions.index(record.action or "")] = record.value
    labels = [policy.label for policy in policies]
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
    for states in sorted({states_of(record) for record in gaps}, key=lambda one: (one.states_from != "", one.rank)):
        mine = [record for record in gaps if states_of(record) == states]
        styles = method_styles(policies_of(mine))
        quantiles: dict[PolicyName, dict[float, float]] = {name: {} for name in policies_of(mine)}
        for record in mine:
            if record.value is not None and record.quantile is not None:
                quantiles[name_of(record)][record.quantile] = record.value
        rows = [QuantileRow(name.label, of_one, *styles[name.group]) for name, of_one in quantiles.items()]
        title = f"Q-gap: {states.label if states.states_from else 'all states of clean episodes'}"
        draw = partial(titled, draw_quantiles, title, rows=rows, x_label="Q(s, a*) − max over the other actions")
        medians = "; ".join(f"{row.label} {number_text(row.quantiles.get(0.5))}" for row in rows)
        panels.append(Panel(draw, f"{title}. Medians: {medians}."))
    return panels


def curve_panels(runs: Sequence[Run], records: Sequence[Record]) -> list[Panel]:
    """Training returns of every run, and the diagnostics of its updates."""
    runs = sorted(runs, key=lambda run: run.name.rank)
    styles = method_styles([run.name for run in runs])
    curves = []
    for run in runs:
        episodes = run.curves["episodes"]
        if episodes:
            steps = np.array([run.steps_before + episode["agent_step"] for episode in episodes], dtype=float)
            returns = np.array([episode["undiscounted_return"] for episode in episodes], dtype=float)
            curves.append(Curve(run.name.short, steps, returns, styles[run.name.group][0]))
    panels = []
    if curves:
        baselines = of_most_episodes(one for one in select(records, metric="return_mean") if one.is_baseline)
        best = max((record.value or 0.0 for record in baselines), default=None)
        marks = [] if best is None else [ReferenceLine("best baseline", best)]
        title = f"Training returns, mean of the last {RECENT} episodes"
        ends = "; ".join(f"{curve.label} ends at {curve.returns[-RECENT:].mean():.2f}" for curve in curves)
        panels.append(Panel(partial(titled, draw_curves, title, curves=curves, marks=marks), f"{title}. {ends}."))
    for key, title in DIAGNOSTICS.items():
        lines = []
        for run in runs:
            rows = [row for row in run.curves["rows"] if key in row]
            if rows:
                x = [run.steps_before + row["agent_step"] for row in rows]
                y = [row[key] for row in rows]
                lines.append(Series(run.name.short, x, y, styles[run.name.group][0]))
        if lines:
            y_label = key.replace("_", " ")
            draw = partial(titled, draw_lines, title, series=lines, x_label="agent steps", y_label=y_label)
            panels.append(Panel(draw, f"{title} during training, of {len(lines)} runs."))
    return panels
