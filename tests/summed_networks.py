"""Small random networks and states, points near them, and the same networks summed in other orders."""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork, frozen
from nrmap.robustness.perturbations import project

SPECS = (
    NetworkSpec(1, 12, 12, 3, convs=(ConvSpec(4, 4, 2), ConvSpec(5, 3, 1)), hidden=32),
    NetworkSpec(2, 11, 14, 4, dueling=False, convs=(ConvSpec(6, 5, 3),), hidden=24),
    NetworkSpec(1, 9, 9, 2, convs=(ConvSpec(3, 3, 2), ConvSpec(4, 2, 1), ConvSpec(3, 2, 1)), hidden=8),
)


def random_network(spec: NetworkSpec, seed: int, cancelling: float = 0.0) -> QNetwork:
    """With `cancelling`, hidden units come in equal pairs whose weights of that size cancel but for a little."""
    torch.manual_seed(seed)
    network = QNetwork(spec).requires_grad_(False)
    if cancelling:
        hidden, last = network.advantage[0], network.advantage[2]
        half = hidden.out_features // 2
        hidden.weight[half:], hidden.bias[half:] = hidden.weight[:half], hidden.bias[:half]
        last.weight[:, :half] += cancelling
        last.weight[:, half:] -= cancelling
    return network


def random_states(spec: NetworkSpec, seed: int, count: int) -> torch.Tensor:
    """As a game gives them: multiples of 1/255 in float32, many black and white."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(-80, 336, (count, spec.in_channels, spec.height, spec.width), generator=generator)
    return levels.clamp(0, 255).float() * (1 / 255)


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


def random_case(seed: int, count: int = 12) -> tuple[QNetwork, torch.Tensor, torch.Tensor]:
    network, states = random_network(SPECS[seed % 2], seed), random_states(SPECS[seed % 2], seed, count)
    return network, states, network(states).argmax(dim=1)


def in_another_order(network: QNetwork, seed: int) -> QNetwork:
    """The same function with its channels and hidden units permuted, so that every sum is added up in another order."""
    generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(network)
    order = torch.arange(network.spec.in_channels)
    for conv in other.features:
        if isinstance(conv, torch.nn.Conv2d):
            new = torch.randperm(conv.out_channels, generator=generator)
            conv.weight.copy_(conv.weight[new][:, order].clone())
            conv.bias.copy_(conv.bias[new].clone())
            order = new
    height, width = network.spec.feature_sides
    columns = torch.arange(len(order) * height * width).view(len(order), height, width)[order].flatten()
    for head in (other.advantage, other.value):
        if head is not None:
            new = torch.randperm(network.spec.hidden, generator=generator)
            head[0].weight.copy_(head[0].weight[new][:, columns].clone())
            head[0].bias.copy_(head[0].bias[new].clone())
            head[2].weight.copy_(head[2].weight[:, new].clone())
    return other


def summed_in_turn(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """The float32 outputs [N, A] of `layer`: the products are added to the bias one after the other."""
    products = inputs[:, None] * layer.weight  # [N, A, F]
    summands = torch.cat([layer.bias[:, None].expand(len(inputs), -1, 1), products], dim=2)
    return torch.from_numpy(np.add.accumulate(summands.numpy(), axis=2)[:, :, -1])


def ways_to_evaluate(network: QNetwork):
    """The float32 network in several orders of summation: [N, C, H, W] → [N, A]."""
    yield from (network, frozen(network), copy.deepcopy(network).to(memory_format=torch.contiguous_format))
    yield lambda points: torch.cat([network(point[None]) for point in points])
    yield from (in_another_order(network, seed) for seed in range(3))


def two_ends(layers: Iterable[nn.Module], states: Tensor, attack_epsilon: float) -> tuple[Tensor, Tensor]:
    """Interval bounds as lower and upper ends, with W⁺ and W⁻ instead of |W|; differentiable in the weights."""
    low, high = (states - attack_epsilon).clamp(0, 1), (states + attack_epsilon).clamp(0, 1)
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            apply = layer._conv_forward if isinstance(layer, nn.Conv2d) else functional.linear
            rising, falling = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
            of_low, of_high = (apply(end, rising, layer.bias) for end in (low, high))
            low, high = of_low + apply(high, falling, None), of_high + apply(low, falling, None)
        else:
            low, high = layer(low), layer(high)
    return low, high


def lead_of(network: QNetwork, action: int, change: float) -> None:
    """Give `action` a larger Q-value by `change` over every other."""
    network.advantage[2].bias[action] += change
