"""Cases of the map benchmark: policies with one or four frames, and states of the same episodes for both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.policies.network import NetworkSpec, QNetwork
from nrmap.policies.policy import Policy, PolicyCard, load_policy, save_policy

GAME = EnvSpec("Freeway", 84, 84)
ACTIONS = 3
STACKS = (1, 4)
CASES = {
    f"{frames} frame{'s' * (frames > 1)}, {'dueling' if dueling else 'plain'}": (frames, dueling)
    for frames in STACKS
    for dueling in (True, False)
}
EPISODES = 8
STEPS = 1024


@dataclass(frozen=True)
class Case:
    """A policy and its states, as files for other processes."""

    name: str
    weights: str  # "random", or the file of a trained policy
    policy: Path
    states: Path

    def load(self) -> tuple[Policy, Tensor]:
        """Load the policy and its states, uint8 [N, C, H, W]."""
        return load_policy(self.policy), torch.load(self.states)


def make_cases(folder: Path, trained: Sequence[Path], num_states: int, names: Sequence[str]) -> list[Case]:
    """Make the cases `names`, keys of `CASES`, in `folder`, of `num_states` states each.

    A case uses the file of `trained` whose network fits, or else random weights.
    """
    given = {}
    for path in trained:
        spec = load_policy(path).network.spec
        given[spec.in_channels, spec.dueling] = path
    player = load_policy(given[1, True]) if (1, True) in given else random_policy(GAME)
    stacked = play(player, num_states)  # [N, 4, H, W]
    cases = []
    for name in names:
        frames, dueling = CASES[name]
        states = folder / f"states{frames}.pt"
        torch.save(stacked[:, -frames:].clone(), states)
        if (frames, dueling) in given:
            cases.append(Case(name, str(given[frames, dueling]), given[frames, dueling], states))
            continue
        path = folder / f"policy{len(cases)}.safetensors"
        save_policy(path, random_policy(replace(player.env, frame_stack=frames), dueling=dueling))
        cases.append(Case(name, "random", path, states))
    return cases


def resized_case(folder: Path, case: Case, side: int, num_states: int) -> Case:
    """Make a case in `folder` of the first states of `case`, resized to side × side.

    Its policy is a dueling network with random weights.
    """
    policy, states = case.load()
    resized = functional.interpolate(states[:num_states], size=(side, side), mode="nearest")
    case = Case(f"{side} × {side}", "random", folder / f"policy_{side}.safetensors", folder / f"states_{side}.pt")
    save_policy(case.policy, random_policy(replace(policy.env, height=side, width=side)))
    torch.save(resized, case.states)
    return case


def random_policy(env: EnvSpec, *, dueling: bool = True) -> Policy:
    """Make an untrained policy for `env`: the Nature network with PyTorch's initialisation and a fixed seed."""
    torch.manual_seed(0)
    network = QNetwork(NetworkSpec(*env.state_shape, ACTIONS, dueling))
    return Policy(network, env, PolicyCard("random", 0, 0, "random")).eval()


@torch.inference_mode()
def play(player: Policy, num_states: int) -> Tensor:
    """Play greedy episodes of a one-frame policy; return evenly spaced states of four frames, uint8 [N, 4, H, W]."""
    game = SeededVectorEnv(replace(player.env, frame_stack=max(STACKS)), EPISODES)
    everywhere = np.ones(EPISODES, dtype=bool)
    states, _ = game.begin(everywhere, range(EPISODES))
    kept = np.linspace(0, STEPS - 1, -(-num_states // EPISODES)).astype(int)
    samples = []
    for step in range(STEPS):
        if step in kept:
            samples.append(torch.from_numpy(states.copy()))
        transition = game.step(player(torch.from_numpy(states[:, -1:])).argmax(dim=1).numpy())
        states = transition.states
        if transition.ended.any():
            states, _ = game.begin(transition.ended, range(step, step + int(transition.ended.sum())))
    return torch.cat(samples)[:num_states]
