"""Small policies with random weights whose greedy action changes from state to state."""

from functools import cache

import numpy as np
import torch

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork
from nrmap.policies.policy import Policy, PolicyCard

SMALL_CONVS = (ConvSpec(8, 8, 4), ConvSpec(8, 4, 2))
FREEWAY = EnvSpec("Freeway", 42, 42, max_agent_steps=40)
SMALL_FREEWAY = EnvSpec("Freeway", 28, 28, max_agent_steps=40)  # for maps of it, which cost by the pixel
BREAKOUT = EnvSpec("Breakout", 42, 42, max_agent_steps=200)


@cache
def real_states(env: EnvSpec) -> tuple[np.ndarray, int]:
    """Some states of random play, and the number of actions."""
    game = SeededVectorEnv(env, 1)
    states, _ = game.begin(np.ones(1, dtype=bool), [123])
    generator, frames = np.random.default_rng(0), [states]
    for _ in range(min(30, env.max_agent_steps - 1)):
        frames.append(game.step(generator.integers(game.num_actions, size=1)).states)
    return np.concatenate(frames), game.num_actions


def toy_policy(env: EnvSpec, seed: int = 0) -> Policy:
    """Random weights; then each action's advantage is shifted and scaled to mean 0, deviation 1 over some real states.

    Without this a random network takes one action for ever.
    """
    states, num_actions = real_states(env)
    torch.manual_seed(seed)
    spec = NetworkSpec(*env.state_shape, num_actions, convs=SMALL_CONVS, hidden=32)
    network = QNetwork(spec).requires_grad_(False)
    hidden = network.advantage[:2](network.features(torch.from_numpy(states).float() / 255))
    head = network.advantage[2]
    advantages = head(hidden)  # [N, A]
    mean, deviation = advantages.mean(dim=0), advantages.std(dim=0)
    head.bias.copy_((head.bias - mean) / deviation)
    head.weight.div_(deviation[:, None])
    return Policy(network, env, PolicyCard("toy", seed, 0, f"toy{seed}"), sha256=f"{seed:064d}").eval()
