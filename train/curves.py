"""Learning curve of a run: its training episodes, and averaged diagnostics every 2,000 agent steps."""

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from train.trainer import Iteration

ROW_EVERY = 2_000  # agent steps
RECENT_EPISODES = 20


class Curves:
    """The learning curve of a run. Checkpoints include the curve, so that a resumed run continues it."""

    def __init__(self) -> None:
        self.episodes: list[dict[str, Any]] = []
        self.rows: list[dict[str, float]] = []
        self.rollbacks: list[dict[str, Any]] = []
        self.abandoned_rows: list[dict[str, float]] = []  # rows that a roll-back discarded
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, summed over all processes of an interrupted run."""
        return self._seconds_before + time.monotonic() - self._started

    def record(self, iteration: Iteration) -> None:
        """Keep the episodes that ended in `iteration`."""
        for episode in iteration.finished_episodes:
            self.episodes.append({"agent_step": iteration.agent_step, **asdict(episode)})

    def recent_mean_return(self) -> float | None:
        """The mean unclipped return of the last 20 training episodes; None before the first ends."""
        recent = [episode["undiscounted_return"] for episode in self.episodes[-RECENT_EPISODES:]]
        return float(np.mean(recent)) if recent else None

    def row_is_due(self, agent_step: int) -> bool:
        """Whether `agent_step` has reached another multiple of 2,000 since the last row."""
        last = self.rows[-1]["agent_step"] if self.rows else 0
        return agent_step // ROW_EVERY > last // ROW_EVERY

    def add_row(self, agent_step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Append a row and return it: agent step, seconds, steps per second since the last row, and `metrics`.

        The row also has the number of ended episodes and, once there is one, `recent_mean_return`.
        """
        seconds = self.seconds
        last = self.rows[-1] if self.rows else {"agent_step": 0, "seconds": 0.0}
        row = {
            "agent_step": agent_step,
            "seconds": seconds,
            "steps_per_second": (agent_step - last["agent_step"]) / max(seconds - last["seconds"], 1e-9),
            "episodes": len(self.episodes),
            **metrics,
        }
        recent = self.recent_mean_return()
        if recent is not None:
            row["recent_mean_return"] = recent
        self.rows.append(row)
        return row

    def describe(self) -> str:
        """The recent mean return as text: "return 21.3", or "no episode ended yet"."""
        recent = self.recent_mean_return()
        return "no episode ended yet" if recent is None else f"return {recent:.1f}"

    def get_state(self) -> dict[str, Any]:
        """Return the whole curve as JSON values, with roll-backs only if there were any."""
        state = {"episodes": self.episodes, "rows": self.rows, "seconds": self.seconds}
        if self.rollbacks:
            state |= {"rollbacks": self.rollbacks, "abandoned_rows": self.abandoned_rows}
        return state

    def set_seconds(self, seconds: float) -> None:
        """Set the training time so far; the clock goes on from there."""
        self._seconds_before, self._started = seconds, time.monotonic()

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Curves":
        """Restore curves from a `state` of `get_state`; the clock goes on from the seconds in `state`."""
        curves = cls()
        curves.episodes, curves.rows = state["episodes"], state["rows"]
        curves.rollbacks, curves.abandoned_rows = state.get("rollbacks", []), state.get("abandoned_rows", [])
        curves.set_seconds(float(state["seconds"]))
        return curves
