"""A stand-in for your own agent: an untrained network and random states, for map_your_own_network.py."""

import torch
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
    nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 6),
)  # fmt: skip
states = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8)
with torch.no_grad():  # an untrained network prefers one action everywhere: let its actions compete
    network[-1].bias -= network(states / 255).mean(dim=0)
