"""Policy files of other programs: written by the library itself, or after its published layout with random weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

ACTIONS = 6  # of Pong
SIX_ACTIONS = "BankHeist"  # of which SA_DQN uses the first six of 18


@dataclass
class Foreign:
    """An agent of another program: `outputs` maps uint8 states to its outputs, `bias` are those of its last layer."""

    format: str
    save: Callable[[Path], object]
    outputs: Callable[[Tensor], Tensor]
    bias: Tensor  # [A, …], a view
    frames: int = 4
    game: str = "Pong"
    options: dict[str, Any] = field(default_factory=dict)
    tilt: Tensor | float = 1.0  # a change of the bias that moves the outputs by about as much

    def frozen(self) -> "Foreign":
        """Without gradients in its outputs."""
        self.outputs = torch.no_grad()(self.outputs)
        return self

    def level(self, state: Tensor) -> "Foreign":
        """Make the actions nearly equal in `state` [C, H, W], so that single pixels flip the greedy one."""
        with torch.no_grad():
            for _ in range(30):
                outputs = self.outputs(state[None])[0]  # [A]
                wrong = outputs - outputs.mean() - 1e-5 * torch.arange(len(outputs))
                change = wrong.reshape(-1, *[1] * (self.bias.ndim - 1)) * self.tilt
                self.bias -= change.to(self.bias.dtype)
        return self


def stored(kind: str, content: Any, outputs: Callable[[Tensor], Tensor], bias: Tensor, **facts: Any) -> Foreign:
    """An agent in a file of `torch.save`."""
    return Foreign(kind, partial(torch.save, content), outputs, bias, **facts)


def cnn(frames: int) -> list[nn.Module]:
    sizes = (frames, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)
    return [layer for size in sizes for layer in (nn.Conv2d(*size), nn.ReLU())]


def head(outputs: int) -> list[nn.Module]:
    return [nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, outputs)]


def nature(outputs: int = ACTIONS, frames: int = 4) -> nn.Sequential:
    return nn.Sequential(*cnn(frames), nn.Flatten(), *head(outputs))


def named(net: nn.Module, *names: str) -> dict[str, Tensor]:
    """The state dict of `net`, with other names for its layers in their order."""
    keys = [key.rpartition(".")[::2] for key in net.state_dict()]
    new = dict(zip(dict(keys), names, strict=True))
    return {f"{new[layer]}.{part}": net.state_dict()[f"{layer}.{part}".lstrip(".")] for layer, part in keys}


def unit(states: Tensor) -> Tensor:
    return states.float() / 255


SA_DQN = {"frames": 1, "game": SIX_ACTIONS}  # the screens of SA_DQN and of what builds on it lie on their side


class Dueling(nn.Module):
    """SA_DQN's DuelingCnnDQN; RADIAL's returns the two summands."""

    def __init__(self, frames: int = 1) -> None:
        super().__init__()
        self.cnn = nn.Sequential(*cnn(frames), nn.Flatten())
        self.advantage, self.value = nn.Sequential(*head(ACTIONS)), nn.Sequential(*head(1))

    def forward(self, x: Tensor) -> Tensor:
        advantage = self.advantage(self.cnn(x))
        return self.value(self.cnn(x)) + advantage - advantage.mean(dim=1, keepdim=True)


def sa_dqn() -> Foreign:
    net = Dueling()
    return stored("sa_dqn", net.state_dict(), lambda states: net(unit(states).mT), net.advantage[2].bias, **SA_DQN)


def sa_dqn_plain() -> Foreign:
    net = nature(frames=1)
    return stored("car", net.state_dict(), lambda states: net(unit(states).mT), net[9].bias, **SA_DQN)


def radial() -> Foreign:
    net = Dueling()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(1, 1, 84, 84))[0, 0].backward()
    optimizer.step()
    content = {"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict(), "step": 7}
    return stored("radial", content, lambda states: net(unit(states).mT), net.advantage[2].bias, **SA_DQN)


CLEANRL = ("network.0", "network.2", "network.4", "network.7")


def cleanrl_dqn() -> Foreign:
    net = nature()
    return stored("cleanrl", named(net, *CLEANRL, "network.9"), lambda states: net(unit(states)), net[9].bias)


def cleanrl_ppo() -> Foreign:
    net = nature()
    weights = named(net, *CLEANRL, "actor") | named(nn.Linear(512, 1), "critic")
    return stored("cleanrl", weights, lambda states: net(unit(states)), net[9].bias)


def expectation(logits: Tensor, values: Tensor) -> Tensor:
    return (logits.view(len(logits), ACTIONS, -1).softmax(dim=2) * values).sum(dim=2)


def cleanrl_c51() -> Foreign:
    net, atoms = nature(ACTIONS * 51), torch.linspace(-10, 10, 51)
    args = {"env_id": "PongNoFrameskip-v4", "seed": 3, "n_atoms": 51, "v_min": -10, "v_max": 10, "track": False}
    return stored(
        "cleanrl", {"model_weights": named(net, *CLEANRL, "network.9") | {"atoms": atoms}, "args": args},
        lambda states: expectation(net(unit(states)), atoms), net[9].bias.view(ACTIONS, 51), tilt=atoms / 40,
    )  # fmt: skip


def pfrl(*, shared: bool = False) -> Foreign:
    net = nature()
    weights, bias = named(net, "0.layers.0", "0.layers.1", "0.layers.2", "0.output", "1"), net[9].bias
    if shared:  # by all actions: it levels nothing
        nn.init.constant_(bias, 0.3)
        weights["2.bias"], bias = weights.pop("1.bias")[:1].clone(), torch.zeros(ACTIONS)
    return stored("pfrl", weights, lambda states: net(unit(states)), bias)


def pfrl_of_2013() -> Foreign:
    convolutions = nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten()
    net = nn.Sequential(*convolutions, nn.Linear(2592, 256), nn.ReLU(), nn.Linear(256, ACTIONS))
    weights = named(net, "0.layers.0", "0.layers.1", "0.output", "1")
    return stored("pfrl", weights, lambda states: net(unit(states)), net[7].bias)


def pfrl_dueling() -> Foreign:
    net = Dueling(frames=4)
    streams = [f"{stream}.{layer}" for stream in ("a_stream", "v_stream") for layer in ("hidden_layers.0", "output")]
    weights = named(net, "conv_layers.0", "conv_layers.1", "conv_layers.2", *streams)
    return stored("pfrl", weights, lambda states: net(unit(states)), net.advantage[2].bias)


def pfrl_ppo() -> Foreign:
    net = nature()
    actor, critic = named(net, "0", "2", "4", "7", "9.child_modules.0.0"), nn.Linear(512, 1)
    weights = actor | named(critic, "9.child_modules.1")
    return stored("pfrl", weights, lambda states: net(unit(states)), net[9].bias)


def tianshou(per_action: int = 1, *, scaled: bool = True, categorical: bool = False) -> Foreign:
    net, values = nature(ACTIONS * per_action), torch.linspace(-5, 5, per_action)
    layers = ("0.0", "0.2", "0.4", "1", "3")
    states = named(net, *(f"model.net.{layer}" for layer in layers))
    states |= named(net, *(f"model_old.net.{layer}" for layer in layers)) | ({"support": values} if categorical else {})
    if not scaled:
        with torch.no_grad():
            net[0].weight /= 255

    def outputs(raw: Tensor) -> Tensor:
        rows = net(unit(raw) if scaled else raw.float())
        return expectation(rows, values) if categorical else rows.view(len(rows), ACTIONS, -1).mean(dim=2)

    return stored(
        "tianshou", states, outputs, net[9].bias.view(ACTIONS, per_action),
        options={"input_scale": 1 / 255 if scaled else 1.0}, tilt=values / 10 if categorical else 1.0,
    )  # fmt: skip


class Noise(gymnasium.Env):
    """Random screens, for trainings of a second."""

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = gymnasium.spaces.Discrete(ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: int) -> Any:
        return self.observation_space.sample(), float(action == 2), bool(self.np_random.random() < 0.1), False, {}


def sb3(name: str) -> Foreign:
    """An agent that stable-baselines3 or sb3-contrib trains for some steps and saves."""
    import sb3_contrib
    import stable_baselines3

    settings = {"n_steps": 16, "batch_size": 16} if name == "PPO" else {"n_steps": 16} if name == "A2C" else {}
    settings = settings or {"buffer_size": 100, "learning_starts": 8, "batch_size": 8}
    kind = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    model = kind("CnnPolicy", Noise(), seed=3, device="cpu", **settings).learn(12)
    policy = model.policy.eval().requires_grad_(False)
    if name == "DQN":
        return Foreign("sb3", model.save, policy.q_net, policy.q_net.q_net[0].bias)
    if name == "QRDQN":
        bias = policy.quantile_net.quantile_net[0].bias.view(-1, ACTIONS).T
        return Foreign("sb3", model.save, lambda states: policy.quantile_net(states).mean(dim=1), bias)
    bias = policy.action_net.bias
    return Foreign("sb3", model.save, lambda states: policy.get_distribution(states).distribution.logits, bias)


FOREIGN: dict[str, Callable[[], Foreign]] = {
    **{f"sb3_{name.lower()}": lambda name=name: sb3(name) for name in ("DQN", "PPO", "A2C", "QRDQN")},
    "sa_dqn": sa_dqn,
    "car": sa_dqn_plain,
    "radial": radial,
    "cleanrl_dqn": cleanrl_dqn,
    "cleanrl_ppo": cleanrl_ppo,
    "cleanrl_c51": cleanrl_c51,
    "pfrl_dqn": pfrl,
    "pfrl_dqn of 2013": pfrl_of_2013,
    "pfrl_dqn with one bias": lambda: pfrl(shared=True),
    "pfrl_dqn, dueling": pfrl_dueling,
    "pfrl_ppo": pfrl_ppo,
    "tianshou_dqn": tianshou,
    "tianshou_dqn, not scaled": lambda: tianshou(scaled=False),
    "tianshou_qrdqn": lambda: tianshou(20),
    "tianshou_c51": lambda: tianshou(51, categorical=True),
}
