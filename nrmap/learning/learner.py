"""One update of DDQN or SA-DDQN; a regulariser adds κ · R in `Learner.step`."""

import copy
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nrmap.learning.double_dqn import anchor_loss, double_q_targets, td_loss
from nrmap.learning.inner_attack import InnerAttack
from nrmap.learning.replay import Batch
from nrmap.learning.schedules import Linear
from nrmap.learning.state_adversarial import RegulariserSpec, hinge_loss, hold_advantages
from nrmap.policies.network import STATE_SCALE, QNetwork, frozen, rounded, with_rounded_weights
from nrmap.robustness.attacks import StateNoise, pgd
from nrmap.robustness.bounds import margin_bounds
from nrmap.robustness.perturbations import other_action_margin
from nrmap.support.cuda_graphs import Graphed
from nrmap.support.schema import Fraction, NotNegative, SomeSteps, schema

PROBE = pgd(10)


@schema
class LearnerSpec:
    """Settings of Adam, the target network and weight averaging.

    The learning rate is `learning_rate` until the fraction `decay_from` of the training, then falls linearly to
    `learning_rate_final` at the last agent step. Every `target_update_period` updates the online weights are copied to
    the target network. From the fraction `average_from` of the training on they are then also averaged, and the policy
    gets the mean. Without `double_q` the target network also chooses the actions of the targets. `gradient_clip` is the
    largest norm of the gradient; 0 does not clip. Raises NrmapError for values out of range.
    """

    batch_size: Annotated[int, Field(ge=1, le=10**12)]
    learning_rate: NotNegative
    learning_rate_final: NotNegative
    decay_from: Fraction
    adam_epsilon: NotNegative
    gradient_clip: NotNegative
    target_update_period: SomeSteps
    double_q: bool
    average_from: Fraction = 1.0


@dataclass(frozen=True)
class Rates:
    """Scheduled values of one update: floats, or tensors of shape [] on the learner's device.

    A tensor `kappa` must be float32, because float64 would make the loss float64.
    """

    learning_rate: float | Tensor
    kappa: float | Tensor
    attack_epsilon: float | Tensor
    robust: bool  # whether the loss has R of eq. 7: a run is DDQN until its ramp begins


class Learner:
    """Updates an online network from batches; has its target network, Adam and the averaged weights."""

    def __init__(
        self,
        *,
        online: QNetwork,
        spec: LearnerSpec,
        regulariser: RegulariserSpec | None,
        total_steps: int,
        generator: torch.Generator,
        precision: torch.dtype = torch.float32,
        parent: QNetwork | None = None,
        anchor: float = 0.0,
        graphs: bool = False,
    ) -> None:
        """Prepare to train `online` for `total_steps` agent steps, by DDQN or, with a `regulariser`, SA-DDQN.

        `generator` draws the random numbers of the inner attack. `precision` is the dtype of the large matrix products,
        see `nrmap.policies.network.rounded`; interval bounds are always in float32. A `parent` adds `anchor` ·
        `anchor_loss` to the loss; without one `anchor` has no effect. With `graphs` greedy actions are a CUDA graph on
        a GPU; for updates see `DeviceUpdates`.
        """
        self.spec, self.regulariser, self.generator = spec, regulariser, generator
        self.online, self.precision, self.anchor = online, precision, anchor
        self.device = next(online.parameters()).device
        self.target_network = with_rounded_weights(online, precision)
        self._parent_q_values = None if parent is None else rounded(with_rounded_weights(parent, precision), precision)
        self._q_values = rounded(online, precision, exact_input=regulariser is not None)
        self._target_q_values = rounded(self.target_network, precision)
        on_gpu = self.device.type == "cuda"
        self.optimiser = torch.optim.Adam(
            online.parameters(), lr=spec.learning_rate, eps=spec.adam_epsilon, fused=True, capturable=on_gpu
        )
        self._greedy = Graphed(self._greedy_actions, self.device, enabled=graphs)
        decay_begin = int(spec.decay_from * total_steps)
        self.learning_rate = Linear(
            spec.learning_rate, spec.learning_rate_final, decay_begin, max(total_steps - decay_begin, 1)
        )
        self._average_begin = int(spec.average_from * total_steps)
        self._average: list[Tensor] = []  # running means of the parameters
        self._averaged = 0
        self.updates = 0
        self.attack_level = 0  # raised by one with every roll-back

    def update(self, batch: Batch, agent_step: int) -> dict[str, Tensor]:
        """Learn from `batch`, and return "td_errors" [B] and scalar diagnostics by name, on the learner's device."""
        metrics = self.step(batch.to(self.device), self.rates(agent_step))
        self.after_step(agent_step)
        return metrics

    def rates(self, agent_step: int) -> Rates:
        """The scheduled values at `agent_step`; κ and the radius are 0 without a regulariser."""
        kappa, attack_epsilon = self.regulariser.at(agent_step) if self.regulariser else (0.0, 0.0)
        return Rates(self.learning_rate(agent_step), kappa, attack_epsilon, robust=attack_epsilon > 0)

    def step(self, batch: Batch, rates: Rates) -> dict[str, Tensor]:
        """Take one Adam step on `batch`, and return what `update` does; `after_step` copies and averages the weights.

        `loss` is `td_loss` + κ · `robust_loss` + `anchor` · `anchor_loss`, as far as they apply. If `rates` are
        tensors, a CUDA graph can record the step: it reads no value on the host.
        """
        s_tm1, s_t = self._scaled(batch.s_tm1), self._scaled(batch.s_t)  # [B, C, H, W] in [0, 1]
        targets = double_q_targets(
            online=self._q_values if self.spec.double_q else None,
            target_network=self._target_q_values,
            s_t=s_t,
            r_t=batch.r_t,
            discount_t=batch.discount_t,
        )  # [B]
        q_tm1 = self._q_values(s_tm1)  # [B, A]

        regulariser, margins = self.regulariser, None
        warnings: dict[str, Tensor] = {}
        if regulariser is not None and rates.robust:  # SA-DDQN, eq. 7
            a_star = q_tm1.argmax(dim=1)  # [B]
            if self.inner_attack is None:  # margins that no state of the ball exceeds
                margins = margin_bounds(self.online, s_tm1, a_star, rates.attack_epsilon)  # [B]
            else:  # margins at the worst states that the inner attack finds
                s_adversarial, warnings = self.inner_attack(
                    self.online, s_tm1, a_star, attack_epsilon=rates.attack_epsilon, generator=self.generator,
                    precision=self.precision,
                )  # fmt: skip
                margins = other_action_margin(self._q_values(s_adversarial), a_star)  # [B]
                warnings["margin_fell"] = (margins < other_action_margin(q_tm1.detach(), a_star)).float().mean()

        loss, td_errors = td_loss(q_tm1=q_tm1, a_tm1=batch.a_tm1, targets=targets, weights=batch.weights)
        metrics = {"td_loss": loss}
        if self._parent_q_values is not None:
            with torch.no_grad():
                parent_q_values = self._parent_q_values(s_tm1)  # [B, A]
            metrics["anchor_loss"] = anchor_loss(q_tm1, parent_q_values)
            loss = loss + self.anchor * metrics["anchor_loss"]
        if regulariser is not None and margins is not None:  # TD + κ R
            margins = hold_advantages(margins, q_tm1, a_star, fraction=regulariser.hold_advantages)
            robust_loss = hinge_loss(margins, hinge=regulariser.hinge, reduction=regulariser.hinge_reduction)
            loss = loss + rates.kappa * robust_loss
            not_robust = "adversarial_flips" if regulariser.solver == "pgd" else "uncertified"
            metrics |= {"robust_loss": robust_loss, not_robust: (margins > 0).float().mean(), **warnings}

        self.optimiser.zero_grad()
        loss.backward()
        if self.spec.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.online.parameters(), self.spec.gradient_clip)
        for group in self.optimiser.param_groups:
            group["lr"] = rates.learning_rate
        self.optimiser.step()
        metrics |= {"td_errors": td_errors, "q_mean": q_tm1.mean(), "loss": loss}
        return {name: value.detach() for name, value in metrics.items()}

    def after_step(self, agent_step: int) -> None:
        """Count the update; if due, copy the online weights to the target network and average them."""
        self.updates += 1
        if self.updates % self.spec.target_update_period == 0:
            self.target_network.load_state_dict(self.online.state_dict())
            if agent_step >= self._average_begin:
                self._average_weights()

    @torch.no_grad()
    def _average_weights(self) -> None:
        self._averaged += 1
        weights = [parameter.detach() for parameter in self.online.parameters()]
        if self._averaged == 1:
            self._average = [weight.clone() for weight in weights]
        for mean, weight in zip(self._average, weights, strict=True):
            mean.lerp_(weight, 1 / self._averaged)

    def policy_network(self) -> QNetwork:
        """Return a copy of the policy's network.

        It has the averaged weights, or the online ones if none were averaged yet.
        """
        network = copy.deepcopy(self.online)
        for parameter, mean in zip(network.parameters(), self._average, strict=False):
            parameter.data.copy_(mean)
        return network

    def _scaled(self, states: Tensor) -> Tensor:
        return states.to(self.device).to(torch.float32, memory_format=torch.channels_last) * STATE_SCALE

    @torch.no_grad()
    def greedy_actions(self, states: Tensor) -> Tensor:
        """Return argmax_a Q(s, a), int64 [E] on the CPU, for uint8 `states` [E, C, H, W]."""
        return self._greedy(states).cpu()

    def _greedy_actions(self, states: Tensor) -> Tensor:
        return self.online(self._scaled(states)).argmax(dim=1)

    @torch.no_grad()
    def active_features(self, states: Tensor) -> float:
        """Return the fraction of the last convolution's features that are positive in any of the uint8 states.

        `states` are [E, C, H, W]. Near 0 the ReLUs have died: the network always takes one action, which looks robust.
        """
        features = self.online.features(self._scaled(states))  # [E, F]
        return float((features > 0).any(dim=0).float().mean())

    def probe(self, states: Tensor) -> dict[str, float]:
        """Return the fractions of uint8 `states` [N, C, H, W] whose greedy action flips at the attack's final radius.

        `probe_flips` is for the evaluation's PGD-10, which no training uses. `probe_own_flips` is for the training's
        own attack (solver "pgd" only). If the first is far larger, the network masks gradients instead of resisting.
        Without a regulariser the result is empty. Draws nothing from the training's generator.
        """
        if self.regulariser is None:
            return {}
        scaled, radius, numbers = self._scaled(states), self.regulariser.attack_epsilon, np.arange(len(states))
        noise = StateNoise(0, episodes=numbers, steps=numbers)
        attacked = PROBE(frozen(self.online, value=False), scaled, attack_epsilon=radius, noise=noise)
        flips = {"probe_flips": float(attacked.flipped.float().mean())}
        if self.inner_attack is not None:
            a_star, generator = attacked.clean_actions, torch.Generator(self.device).manual_seed(0)
            reached, _ = self.inner_attack(self.online, scaled, a_star, attack_epsilon=radius, generator=generator)
            with torch.no_grad():
                flipped = self.online(reached).argmax(dim=1) != a_star  # [N]
            flips["probe_own_flips"] = float(flipped.float().mean())
        return flips

    @property
    def inner_attack(self) -> InnerAttack | None:
        """The training's attack at the current `attack_level`; None without the solver "pgd"."""
        return None if self.regulariser is None else self.regulariser.attack(self.attack_level)

    def get_state(self) -> dict[str, Any]:
        """Return all state that later updates depend on. Its tensors are the learner's own, not copies."""
        return {
            "online": self.online.state_dict(),
            "target_network": self.target_network.state_dict(),
            "optimiser": [self.optimiser.state[parameter] for parameter in self.online.parameters()],
            "generator": self.generator.get_state(),
            "attack_level": self.attack_level,
            "average": self._average,
            "averaged": self._averaged,
            "updates": self.updates,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state from `get_state`."""
        self.online.load_state_dict(state["online"])
        self.target_network.load_state_dict(state["target_network"])
        if state["updates"]:
            moments = zip(self.online.parameters(), state["optimiser"], strict=True)
            adam = {
                "state": {index: _laid_out_as(parameter, kept) for index, (parameter, kept) in enumerate(moments)},
                "param_groups": self.optimiser.state_dict()["param_groups"],
            }
            self.optimiser.load_state_dict(adam)
        self.generator.set_state(state["generator"])
        self.updates = state["updates"]
        # Checkpoints of earlier versions lack these.
        self.attack_level = state.get("attack_level", 0)
        self._average = [
            torch.empty_like(parameter).copy_(mean)
            for parameter, mean in zip(self.online.parameters(), state.get("average", []), strict=False)
        ]
        self._averaged = state.get("averaged", 0)


def _laid_out_as(parameter: Tensor, moments: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy Adam's `moments` to the memory layout of `parameter`: fused Adam pairs elements by address, not index."""
    return {
        name: torch.empty_like(parameter).copy_(moment) if moment.shape == parameter.shape else moment
        for name, moment in moments.items()
    }
