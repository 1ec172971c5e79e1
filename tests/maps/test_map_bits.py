"""A map is the same to the last bit however its states are chunked and whatever else is computed with them."""

import numpy as np
import pytest
import torch
from swept_maps import identical, sweep

pytestmark = pytest.mark.bitwise

STATES, PIXELS = 11, (17, 3)  # rows of 51 pixels leave a remainder in every vector width
EPISODES = np.repeat([0, 1, 2], [5, 4, 2])
TEMPERATURES = (0.01, 1.0)


def q_values(seed: int, actions: int, count: int = STATES) -> tuple[torch.Tensor, torch.Tensor]:
    """Ablated [N, H, W, A] and clean [N, A] Q-values in float32, as the engines give them."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(count, actions, generator=generator)
    return clean[:, None, None] + 0.3 * torch.randn(count, *PIXELS, actions, generator=generator), clean


@pytest.mark.parametrize("actions", [2, 3, 6, 18])
def test_chunks_do_not_matter(actions):
    ablated, clean = q_values(0, actions)
    whole = sweep(ablated, clean, EPISODES, temperatures=TEMPERATURES, size=STATES, prefix_sizes=(4,))
    for size in range(1, 10):
        chunked = sweep(ablated, clean, EPISODES, temperatures=TEMPERATURES, size=size, prefix_sizes=(4,))
        assert identical(chunked, whole)


@pytest.mark.parametrize("actions", [3, 18])
@pytest.mark.parametrize("size", range(1, 10))
def test_neighbours_do_not_matter(size, actions):
    """A state alone, and behind up to eight others in one chunk."""
    ablated, clean = q_values(1, actions, count=1)
    alone = sweep(ablated, clean, [99], temperatures=TEMPERATURES)
    for seed in range(3):
        others = q_values(seed + 2, actions, count=size - 1)
        together = (torch.cat(both) for both in zip(others, (ablated, clean), strict=True))
        maps = sweep(*together, [*range(size - 1), 99], temperatures=TEMPERATURES, size=size)
        assert np.array_equal(maps.entropy[:, -1:], alone.entropy)
        for kind, temperature, map_ in alone.each():
            assert np.array_equal(maps[kind.name, temperature][-1:], map_)
