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


def cnn(frames: int, *, small: bool = False) -> list[nn.Module]:
    sizes = [(frames, 16, 8, 4), (16, 32, 4, 2)] if small else [(frames, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]
    return [layer for size in sizes for layer in (nn.Conv2d(*size), nn.ReLU())]


def head(outputs: int, hidden: int = 512, features: int = 3136) -> list[nn.Module]:
    return [nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]


def unit(states: Tensor) -> Tensor:
    return states.float() / 255


SA_DQN = {"frames": 1, "game": SIX_ACTIONS}  # the screens of SA_DQN and of what builds on it lie on their side


class Dueling(nn.Module):
    """SA_DQN's DuelingCnnDQN; RADIAL's returns the two summands."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(*cnn(1), nn.Flatten())
        self.advantage, self.value = nn.Sequential(*head(ACTIONS)), nn.Sequential(*head(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        advantage = self.advantage(self.cnn(x))
        return self.value(self.cnn(x)), advantage - advantage.mean(dim=1, keepdim=True)


def sa_dqn() -> Foreign:
    net = Dueling()
    return stored("sa_dqn", net.state_dict(), lambda states: sum(net(unit(states).mT)), net.advantage[2].bias, **SA_DQN)


def sa_dqn_plain() -> Foreign:
    net = nn.Sequential(*cnn(1), nn.Flatten(), *head(ACTIONS))
    return stored("car", net.state_dict(), lambda states: net(unit(states).mT), net[9].bias, **SA_DQN)


def radial() -> Foreign:
    net = Dueling()
    optimizer = torch.optim.Adam(net.parameters())
    sum(net(torch.rand(1, 1, 84, 84)))[0, 0].backward()
    optimizer.step()
    content = {"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict(), "step": 7}
    return stored("radial", content, lambda states: sum(net(unit(states).mT)), net.advantage[2].bias, **SA_DQN)


def cleanrl_dqn() -> Foreign:
    net = nn.ModuleDict({"network": nn.Sequential(*cnn(4), nn.Flatten(), *head(ACTIONS))})
    network = net["network"]
    return stored("cleanrl", net.state_dict(), lambda states: network(unit(states)), network[9].bias)


def cleanrl_ppo() -> Foreign:
    trunk = nn.Sequential(*cnn(4), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU())
    net = nn.ModuleDict({"network": trunk, "actor": nn.Linear(512, ACTIONS), "critic": nn.Linear(512, 1)})
    actor = net["actor"]
    return stored("cleanrl", net.state_dict(), lambda states: actor(trunk(unit(states))), actor.bias)


def expectation(logits: Tensor, values: Tensor) -> Tensor:
    return (logits.view(len(logits), ACTIONS, -1).softmax(dim=2) * values).sum(dim=2)


def cleanrl_c51() -> Foreign:
    net = nn.ModuleDict({"network": nn.Sequential(*cnn(4), nn.Flatten(), *head(ACTIONS * 51))})
    net.register_buffer("atoms", torch.linspace(-10, 10, 51))
    args = {"env_id": "PongNoFrameskip-v4", "seed": 3, "n_atoms": 51, "v_min": -10, "v_max": 10, "track": False}
    return stored(
        "cleanrl", {"model_weights": net.state_dict(), "args": args},
        lambda states: expectation(net["network"](unit(states)), net.atoms),
        net["network"][9].bias.view(ACTIONS, 51), tilt=net.atoms / 40,
    )  # fmt: skip


class PfrlCnn(nn.Module):
    def __init__(self, *, small: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(cnn(4, small=small)[::2])
        self.output = nn.Linear(2592, 256) if small else nn.Linear(3136, 512)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return self.output(x.view(len(x), -1)).relu()


class SingleSharedBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full([1], 0.3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.expand_as(x)


def pfrl(*, small: bool = False, shared: bool = False) -> Foreign:
    last = nn.Linear(256 if small else 512, ACTIONS, bias=not shared)
    net = nn.Sequential(PfrlCnn(small=small), last, *[SingleSharedBias()] * shared)
    bias = torch.zeros(ACTIONS) if shared else last.bias  # a shared one levels nothing
    return stored("pfrl", net.state_dict(), lambda states: net(unit(states)), bias)


class PfrlMlp(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.hidden_layers = nn.ModuleList([nn.Linear(3136, 512)])
        self.output = nn.Linear(512, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden_layers[0](x).relu())


def pfrl_dueling() -> Foreign:
    net = nn.ModuleDict(
        {"conv_layers": nn.ModuleList(cnn(4)[::2]), "a_stream": PfrlMlp(ACTIONS), "v_stream": PfrlMlp(1)}
    )

    def outputs(states: Tensor) -> Tensor:
        x = unit(states)
        for layer in net["conv_layers"]:
            x = layer(x).relu()
        advantage = net["a_stream"](x.flatten(1))
        return advantage - advantage.mean(dim=1, keepdim=True) + net["v_stream"](x.flatten(1))

    return stored("pfrl", net.state_dict(), outputs, net["a_stream"].output.bias)


def pfrl_ppo() -> Foreign:
    branched = nn.ModuleDict(
        {"child_modules": nn.ModuleList([nn.Sequential(nn.Linear(512, ACTIONS)), nn.Linear(512, 1)])}
    )
    net = nn.Sequential(*cnn(4), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), branched)
    actor = branched["child_modules"][0][0]
    return stored("pfrl", net.state_dict(), lambda states: actor(net[:9](unit(states))), actor.bias)


def tianshou(per_action: int = 1, *, scaled: bool = True, categorical: bool = False) -> Foreign:
    net = nn.Sequential(nn.Sequential(*cnn(4), nn.Flatten()), *head(ACTIONS * per_action))
    states = {f"{name}.net.{key}": value for name in ("model", "model_old") for key, value in net.state_dict().items()}
    values = torch.linspace(-5, 5, per_action)
    if categorical:
        states["support"] = values
    if not scaled:
        with torch.no_grad():
            net[0][0].weight /= 255

    def outputs(raw: Tensor) -> Tensor:
        rows = net(unit(raw) if scaled else raw.float())
        return expectation(rows, values) if categorical else rows.view(len(rows), ACTIONS, -1).mean(dim=2)

    return stored(
        "tianshou", states, outputs, net[3].bias.view(ACTIONS, per_action),
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
    policy = model.policy.eval()
    policy.requires_grad_(False)

    def logits(states: Tensor) -> Tensor:
        return policy.get_distribution(states).distribution.logits

    if name == "DQN":
        return Foreign("sb3", model.save, policy.q_net, policy.q_net.q_net[0].bias)
    if name == "QRDQN":
        bias = policy.quantile_net.quantile_net[0].bias.view(-1, ACTIONS).T
        return Foreign("sb3", model.save, lambda states: policy.quantile_net(states).mean(dim=1), bias)
    return Foreign("sb3", model.save, logits, policy.action_net.bias)


FOREIGN: dict[str, Callable[[], Foreign]] = {
    **{f"sb3_{name.lower()}": lambda name=name: sb3(name) for name in ("DQN", "PPO", "A2C", "QRDQN")},
    "sa_dqn": sa_dqn,
    "car": sa_dqn_plain,
    "radial": radial,
    "cleanrl_dqn": cleanrl_dqn,
    "cleanrl_ppo": cleanrl_ppo,
    "cleanrl_c51": cleanrl_c51,
    "pfrl_dqn": pfrl,
    "pfrl_dqn of 2013": lambda: pfrl(small=True),
    "pfrl_dqn with one bias": lambda: pfrl(shared=True),
    "pfrl_dqn, dueling": pfrl_dueling,
    "pfrl_ppo": pfrl_ppo,
    "tianshou_dqn": tianshou,
    "tianshou_dqn, not scaled": lambda: tianshou(scaled=False),
    "tianshou_qrdqn": lambda: tianshou(20),
    "tianshou_c51": lambda: tianshou(51, categorical=True),
}
