"""Points of the ball around states, of the kinds that a bound might forget."""

from collections.abc import Iterator

import torch
from torch import Tensor

from nrmap.robustness.perturbations import project


def points_of_the_ball(states: Tensor, attack_epsilon: float, seed: int, count: int) -> Iterator[Tensor]:
    """Uniform points, corners, points on a few axes, and corners with the same sign down every column."""
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
