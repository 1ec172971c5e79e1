"""Small networks, their ablated Q-values by brute force, and maps made of them."""

from dataclasses import fields

import numpy as np
import torch
from random_networks import ablated_one_by_one

from nrmap.ablation import AblatedChunk, AblationSpec
from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.maps.sweep import sweep_maps
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork

SPEC = NetworkSpec(1, 9, 8, actions=4, convs=(ConvSpec(6, 4, 2), ConvSpec(8, 2, 1)), hidden=16)

_DRAWN = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0))
Q_VALUES, CLEAN = _DRAWN[:, :6].reshape(4, 2, 3, 5), _DRAWN[:, 6]  # [N, H, W, A] and [N, A]


def chunked(q_values, clean, size=3):
    parts = (slice(start, start + size) for start in range(0, len(clean), size))
    return [AblatedChunk(part.start, q_values[part], clean[part]) for part in parts]


def ablated(network, states, by_channel=False):
    """Q-values [N, (C,) H, W, A] of every ablated state and [N, A] of the clean ones, pixel by pixel."""
    with torch.no_grad():
        spec = AblationSpec(channels="each" if by_channel else "all")
        return ablated_one_by_one(network, states, spec), network(states)


def random_network(seed, spec=SPEC):
    """In float64 and without biases, so that single pixels matter."""
    torch.manual_seed(seed)
    network = QNetwork(spec).double()
    for name, parameter in network.named_parameters():
        parameter.data *= 0 if name.endswith("bias") else 3
    return network


def random_states(seed, count, spec=SPEC):
    """A few bright pixels on a dark screen."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, spec.in_channels, spec.height, spec.width)
    bright = torch.rand(shape, generator=generator) < 0.15
    return torch.rand(shape, generator=generator, dtype=torch.float64) * bright


def sweep(q_values, clean, episode_ids=None, temperatures=(1.0,), floor=0.0, size=3, **options):
    ids = np.zeros(len(clean), dtype=np.int64) if episode_ids is None else episode_ids
    chunks = chunked(torch.as_tensor(q_values), torch.as_tensor(clean), size)
    return sweep_maps(chunks, episode_ids=ids, temperatures=temperatures, rounding_floor=floor, **options)


def identical(first: EpisodeMaps, second: EpisodeMaps) -> bool:
    """Bit for bit, prefixes too."""
    others = [field.name for field in fields(EpisodeMaps) if field.name not in ("temperatures", "arrays", "prefixes")]
    return (
        first.temperatures == second.temperatures
        and first.arrays.keys() == second.arrays.keys()
        and all(np.array_equal(array, second.arrays[name]) for name, array in first.arrays.items())
        and all(np.array_equal(getattr(first, name), getattr(second, name)) for name in others)
        and first.prefixes.keys() == second.prefixes.keys()
        and all(identical(part, second.prefixes[size]) for size, part in first.prefixes.items())
    )
