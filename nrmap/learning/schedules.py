"""Schedules: quantities as functions of the agent step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """A schedule: `initial` up to step `begin`, a straight line to `final` at step `begin + duration`, then `final`."""

    initial: float
    final: float
    begin: int
    duration: int

    def __call__(self, step: int) -> float:
        """The value at agent step `step`."""
        if step < self.begin:
            return self.initial
        if step >= self.begin + self.duration:
            return self.final
        return self.initial + (self.final - self.initial) * (step - self.begin) / self.duration


QUARTIC_FRACTION = 0.25


@dataclass(frozen=True)
class Ramp:
    """A schedule that rises from 0 at agent step `begin` to 1 at `begin + duration`.

    With `initial` > 0 it jumps to `initial` after `begin` and grows geometrically. Otherwise a quartic covers the first
    quarter and joins a straight line smoothly (the smoothed ramp of SA-DQN's auto-LiRPA schedule).
    """

    begin: int
    duration: int
    initial: float = 0.0

    def __call__(self, step: int) -> float:
        """The value at agent step `step`, in [0, 1]."""
        if step <= self.begin:
            return 0.0
        if step >= self.begin + self.duration:
            return 1.0
        fraction, progress = QUARTIC_FRACTION, (step - self.begin) / self.duration
        if self.initial:
            return float(self.initial ** (1 - progress))
        # At u = m = 1/4 the quartic c·u⁴ meets a line through (1, 1) with equal value and slope:
        # 4c·m³ = (1 − c·m⁴) / (1 − m).
        coefficient = 1 / (fraction**4 + 4 * fraction**3 * (1 - fraction))
        if progress < fraction:
            return coefficient * progress**4
        slope = 4 * coefficient * fraction**3
        return 1 - slope * (1 - progress)
