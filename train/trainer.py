"""The training loop of every method: act, learn while the emulators run, store."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nrmap.learning.device_replay import DeviceReplay
from nrmap.learning.device_updates import DeviceUpdates
from nrmap.learning.exploration import Explorer
from nrmap.learning.learner import Learner
from nrmap.learning.replay import Replay
from nrmap.learning.schedules import Linear
from nrmap.learning.settings import TrainSettings
from nrmap.policies.network import NetworkSpec, QNetwork, seeded_network
from nrmap.support.errors import check
from train.collector import Collector, FinishedEpisode

PROBE_STATES_PER_ENV = 4
PROBE_SPACING = 16  # agent steps of an environment


@dataclass(frozen=True)
class Iteration:
    """One step of every environment: the agent step after it, and the episodes that it ended."""

    agent_step: int
    finished_episodes: list[FinishedEpisode]


class Trainer:
    """A training run that can be stopped after any iteration and continued exactly."""

    def __init__(
        self,
        settings: TrainSettings,
        *,
        device: torch.device,
        initial: QNetwork | None = None,
        precision: torch.dtype = torch.float32,
        graphs: bool = True,
        replay_on_device: bool | None = None,
    ) -> None:
        """Start from a copy of `initial` (None: weights drawn from the seed); for `precision` see `Learner`.

        `settings.anchor` above 0 keeps advantages near those of `initial`. With `replay_on_device` the replay is on
        `device`; None means on a GPU only. On a GPU with `graphs`, acting is a CUDA graph, and so are updates if the
        replay is on the GPU. Raises ValueError if `initial` has another shape than `settings` and the game need.
        """
        self.settings = settings
        exploration_seed, sampling_seed, network_seed, attack_seed = np.random.SeedSequence(settings.seed).spawn(4)
        self._exploration_rng = np.random.default_rng(exploration_seed)
        self._sampling_rng = np.random.default_rng(sampling_seed)
        on_device = device.type == "cuda" if replay_on_device is None else replay_on_device
        make_replay: Callable[..., Replay] = partial(DeviceReplay, device=device) if on_device else Replay
        env = settings.env
        replay = make_replay(
            settings.replay, num_envs=settings.num_envs, state_shape=env.state_shape,
            newest_first=env.newest_first, stack_fill=env.stack_fill,
        )  # fmt: skip
        self.collector = Collector(settings, replay)
        num_actions = self.collector.num_actions
        self._explorer = Explorer(
            num_envs=settings.num_envs, num_actions=num_actions, max_repeat=settings.exploration.max_repeat
        )
        spec = NetworkSpec(*env.state_shape, actions=num_actions, dueling=settings.dueling)
        first_weights = int(network_seed.generate_state(1)[0])
        network = seeded_network(spec, seed=first_weights) if initial is None else copy.deepcopy(initial)
        if network.spec != spec:
            raise ValueError(f"the initial network is {network.spec}: expected {spec}")
        self.learner = Learner(
            online=network.to(device).requires_grad_(True),
            spec=settings.learner,
            regulariser=settings.regulariser,
            total_steps=settings.steps,
            generator=torch.Generator(device).manual_seed(int(attack_seed.generate_state(1)[0])),
            precision=precision,
            parent=copy.deepcopy(network) if settings.anchor > 0 else None,
            anchor=settings.anchor,
            graphs=graphs,
        )
        self._importance = Linear(settings.replay.importance_initial, 1.0, 0, settings.steps)
        self._device_updates = (
            DeviceUpdates(self.learner, replay, importance=self._importance, graphs=graphs)
            if isinstance(replay, DeviceReplay)
            else None
        )
        self.agent_step = 0
        self._collected: dict[str, list[Tensor]] = defaultdict(list)

    def run(self) -> Iterator[Iteration]:
        """Train to the end; yield an `Iteration` after each step of all environments."""
        while self.agent_step < self.settings.steps:
            yield self.step()

    def step(self) -> Iteration:
        """Step every environment once; the updates that are due run at the same time as the emulators."""
        if self.agent_step == 0:
            self.collector.begin()
        self.collector.send(self._actions())
        for _ in range(self._updates_due()):
            self.learn()
        finished = self.collector.receive()
        self.agent_step += self.settings.num_envs
        return Iteration(self.agent_step, finished)

    def _actions(self) -> NDArray[np.int64]:
        """Return the εz-greedy actions [E]: of each environment the random action of `Explorer`, or the greedy one."""
        epsilons = self.settings.exploration.epsilons(self.agent_step, self.settings.num_envs)
        exploring = self._explorer.step(epsilons, self._exploration_rng)  # [E], -1 where greedy
        if (exploring >= 0).all():
            return exploring
        greedy = self.learner.greedy_actions(torch.from_numpy(self.collector.states)).numpy()
        return np.where(exploring >= 0, exploring, greedy)

    def _updates_due(self) -> int:
        """Count the updates in the coming `num_envs` agent steps: one every `steps_per_update`, 0 during warm-up."""
        if self.agent_step < self.settings.warm_up_steps:
            return 0
        period = self.settings.steps_per_update
        return (self.agent_step + self.settings.num_envs) // period - self.agent_step // period

    def learn(self) -> None:
        """Run one update from the replay and keep its diagnostics for `metrics`."""
        if self._device_updates is not None:
            metrics = self._device_updates(self._sampling_rng, self.agent_step)
        else:
            metrics = self._update_from_host()
        for name, value in metrics.items():
            self._collected[name].append(value)

    def _update_from_host(self) -> dict[str, Tensor]:
        batch = self.collector.replay.sample(
            self.settings.learner.batch_size,
            importance=self._importance(self.agent_step),
            rng=self._sampling_rng,
            agent_step=self.agent_step,
        )
        metrics = self.learner.update(batch, self.agent_step)
        self.collector.replay.update_priorities(batch.indices, metrics.pop("td_errors").cpu().numpy())
        return metrics

    def metrics(self) -> dict[str, float]:
        """Return numbers by name: means of the updates' diagnostics since the last call, current schedules, probes.

        `epsilon` is the exploration rate of the first environment, which explores most. Raises NrmapError where a
        mean is not finite: the training has diverged.
        """
        means = {name: float(torch.stack(values).mean()) for name, values in self._collected.items()}
        self._collected.clear()
        for name, mean in means.items():
            check(
                math.isfinite(mean),
                f"the training diverged before agent step {self.agent_step:,}: {name} is {mean}; "
                "try a lower learning_rate or a gradient_clip",
            )
        rates = self.learner.rates(self.agent_step)
        schedules = {
            "epsilon": float(self.settings.exploration.epsilons(self.agent_step, 1)[0]),
            **{name: getattr(rates, name) for name in ("learning_rate", "kappa", "attack_epsilon")},
        }
        if self.settings.regulariser and self.settings.regulariser.rollback_every:
            schedules["attack_level"] = float(self.learner.attack_level)
        active = self.learner.active_features(torch.from_numpy(self.collector.states))
        return {**means, **schedules, "active_features": active, **self.probe()}

    def probe(self) -> dict[str, float]:
        """Return `Learner.probe` of four states of each environment: the newest, and 16, 32 and 48 steps before."""
        return self.learner.probe(self.collector.replay.latest_states(PROBE_STATES_PER_ENV, PROBE_SPACING))

    def get_state(self) -> dict[str, Any]:
        """Return all state that the rest of the run depends on."""
        return {
            "agent_step": self.agent_step,
            "exploration_rng": self._exploration_rng.bit_generator.state,
            "sampling_rng": self._sampling_rng.bit_generator.state,
            "explorer": self._explorer.get_state(),
            "learner": self.learner.get_state(),
            "collector": self.collector.get_state(),
            "collected": {name: torch.stack(values) for name, values in self._collected.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a `state` of `get_state` in a new trainer; plays and raises as `Collector.set_state` does."""
        self.agent_step = state["agent_step"]
        if self.agent_step < 0 or self.agent_step % self.settings.num_envs:
            raise ValueError(f"agent step {self.agent_step}")
        self._exploration_rng.bit_generator.state = state["exploration_rng"]
        self._sampling_rng.bit_generator.state = state["sampling_rng"]
        self._explorer.set_state(state["explorer"])
        self.learner.set_state(state["learner"])
        self.collector.set_state(state["collector"])
        for name, values in state["collected"].items():
            self._collected[name] = list(values.to(self.learner.device))
