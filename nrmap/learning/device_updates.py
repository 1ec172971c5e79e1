"""Updates on the device: draw a batch, learn and set priorities, as one CUDA graph if enabled."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nrmap.learning.device_replay import DeviceReplay
from nrmap.learning.learner import Learner, Rates
from nrmap.support.cuda_graphs import Graphed


class DeviceUpdates:
    """Runs updates of `learner` on batches from `replay`; both must be on the same device."""

    def __init__(
        self, learner: Learner, replay: DeviceReplay, *, importance: Callable[[int], float], graphs: bool
    ) -> None:
        """`importance` maps an agent step to β of `ReplaySpec`. Without `graphs` the same operations run one by one."""
        self._learner, self._replay, self._importance, self._graphs = learner, replay, importance, graphs
        # One graph for each loss: it changes when the ramp begins.
        self._forms: dict[bool, Graphed] = {}
        self._names: dict[bool, tuple[str, ...]] = {}

    def __call__(self, rng: np.random.Generator, agent_step: int) -> dict[str, Tensor]:
        """Run the update at `agent_step` on a batch drawn by `rng`. Return diagnostics by name, device scalars."""
        rates = self._learner.rates(agent_step)
        scheduled = (rates.learning_rate, rates.kappa, rates.attack_epsilon, self._importance(agent_step))
        numbers = [*scheduled, *self._replay.spec.horizon(agent_step), *rng.random(self._learner.spec.batch_size)]
        if rates.robust not in self._forms:
            self._forms[rates.robust] = Graphed(
                partial(self._update, robust=rates.robust),
                self._learner.device,
                enabled=self._graphs,
                generators=[self._learner.generator],
            )
        inputs = torch.tensor(numbers, dtype=torch.float64)
        values = self._forms[rates.robust](inputs)  # [M], overwritten by the next update
        self._learner.after_step(agent_step)
        return dict(zip(self._names[rates.robust], values.clone().unbind(), strict=True))

    def _update(self, numbers: Tensor, *, robust: bool) -> Tensor:
        """Run one update and return M diagnostics [M].

        `numbers` [6 + B] are six scheduled values, then B uniform draws.
        """
        learning_rate, kappa, attack_epsilon, importance, n_step, discount = numbers[:6].unbind()
        batch = self._replay.draw(numbers[6:], importance=importance, n_step=n_step, discount=discount)
        # Adam's kernel for CUDA reads a float32 learning rate.
        rates = Rates(learning_rate.float(), kappa.float(), attack_epsilon, robust)
        metrics = self._learner.step(batch, rates)
        self._replay.update_priorities(batch.indices, metrics.pop("td_errors"))
        self._names[robust] = tuple(metrics)
        return torch.stack(list(metrics.values()))
