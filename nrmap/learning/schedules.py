"""Schedules: quantities as functions of the agent step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Linear:
    """`initial` up to step `begin`, then straight to `final` at `begin + duration`, then `final`."""

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


@dataclass(frozen=True)
class SmoothRamp:
    """From 0 at `begin` to `final` at `begin + duration`: first a quartic, then a straight line.

    The quartic covers the first `quartic_fraction` of the duration and meets the line with equal value
    and slope (the smoothed ramp of SA-DQN's auto-LiRPA schedule).
    """

    final: float
    begin: int
    duration: int
    quartic_fraction: float = 0.25

    def __call__(self, step: int) -> float:
        """The value at agent step `step`, in [0, final]."""
        if step <= self.begin:
            return 0.0
        if step >= self.begin + self.duration:
            return self.final
        # Value and slope agree where the quartic c·u⁴ meets the line through (1, 1): its slope
        # there is 4c·m³ = (1 − c·m⁴) / (1 − m), at u = m = quartic_fraction.
        fraction, progress = self.quartic_fraction, (step - self.begin) / self.duration
        coefficient = 1 / (fraction**4 + 4 * fraction**3 * (1 - fraction))
        if progress < fraction:
            return self.final * coefficient * progress**4
        slope = 4 * coefficient * fraction**3
        return self.final * (1 - slope * (1 - progress))


@dataclass(frozen=True)
class GeometricRamp:
    """0 up to `begin`, then from `initial · final` by equal factors up to `final` at `begin + duration`.

    Every order of magnitude takes the same time.
    """

    final: float
    begin: int
    duration: int
    initial: float

    def __call__(self, step: int) -> float:
        """The value at agent step `step`, in [0, final]."""
        if step <= self.begin:
            return 0.0
        if step >= self.begin + self.duration:
            return self.final
        return float(self.final * self.initial ** (1 - (step - self.begin) / self.duration))


def epsilon_per_env(epsilon: float, num_envs: int, spread: float) -> NDArray[np.float64]:
    """ε_i = ε^(1 + spread · i / (E − 1)), [E]: from ε down to ε^(1 + spread) (Horgan et al. 2018).

    Environments that explore less reach the states of a good policy. With `spread` 0 all have ε.
    """
    ranks = np.arange(num_envs) / max(num_envs - 1, 1)
    return epsilon ** (1 + spread * ranks)
