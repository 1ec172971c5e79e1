"""Different kinds of points in the ball around states."""

from collections.abc import Iterator

import torch
from torch import Tensor

from nrmap.robustness.perturbations import project


def points_of_the_ball(states: Tensor, attack_epsilon: float, seed: int, count: int) -> Iterator[Tensor]:
    """Yield uniform points, corners, points on few axes, and corners with equal signs within a column."""
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        noise = torch.rand(states.shape, generator=generator, dtype=states.dtype) * 2 - 1
        if index % 4 == 1:
            noise = noise.sign()
        elif index % 4 == 2:
            noise = noise.sign() * (torch.rand(states.shape, generator=generator) < 0.05)
        elif index % 4 == 3:
            noise = noise[:, :, :1, :].sign().expand_as(states)
        yield project(states + attack_epsilon * noise, states, attack_epsilon)
