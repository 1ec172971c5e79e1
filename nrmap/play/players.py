"""Players for evaluation: clean policy, policy under attack, worst case, and state-independent baselines."""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nrmap.play.rollout import ActionFn, Actions, Bytes, Ints
from nrmap.policies.agent import Agent
from nrmap.policies.network import unit_states
from nrmap.robustness.attacks import Attack, GradientAttack, StateNoise
from nrmap.robustness.certify import IntervalCertifier
from nrmap.robustness.perturbations import other_action_margin
from nrmap.support.cuda_graphs import Graphed

# Maps an episode's number to a count of its states.
EpisodeCounts = Counter[int]


def constant_player(action: int) -> ActionFn:
    """Return a player that always takes `action`."""
    return lambda states, episodes, steps, /: np.full(len(states), action)


def random_player(num_actions: int, seed: int, max_agent_steps: int) -> ActionFn:
    """Return a player of uniformly random actions, for steps below `max_agent_steps`.

    The actions depend only on (`seed`, episode, step).
    """

    @functools.cache
    def actions_of(episode: int) -> Ints:
        return np.random.default_rng([seed, episode]).integers(num_actions, size=max_agent_steps)

    return lambda states, episodes, steps, /: np.array(
        [actions_of(episode)[step] for episode, step in zip(episodes.tolist(), steps, strict=True)]
    )


class CleanPlayer:
    """The greedy policy; records the Q-gap of every state and counts certified states.

    `certified` maps each radius to the number of certified states per episode.
    """

    def __init__(
        self, policy: Agent, certify: IntervalCertifier | None = None, certify_epsilons: Sequence[float] = ()
    ) -> None:
        """`certify_epsilons` are the radii to certify. Without `certify` no state counts as certified."""
        self._policy, self._certify = policy, certify
        self._gaps: list[NDArray[np.float32]] = []
        self.certified: dict[float, EpisodeCounts] = {attack_epsilon: Counter() for attack_epsilon in certify_epsilons}

    @property
    def q_gaps(self) -> NDArray[np.float64]:
        """The Q-gaps [N] of all states seen: the greedy action's Q-value minus the second-largest, at least 0."""
        return np.concatenate(self._gaps).astype(np.float64)

    @torch.inference_mode()
    def __call__(self, states: Bytes, episodes: Ints, steps: Ints, /) -> Actions:
        """Choose the greedy actions, and record Q-gaps and certified states; see `ActionFn`."""
        seen = torch.from_numpy(states).to(self._policy.device)
        q_values = self._policy(seen)  # [N, A]
        actions = q_values.argmax(dim=1)  # [N]
        self._gaps.append(-other_action_margin(q_values, actions).cpu().numpy())
        if self._certify is not None:
            for attack_epsilon, counts in self.certified.items():
                proven = self._certify(unit_states(seen), actions, attack_epsilon)  # [N]
                counts.update(episodes[proven.cpu().numpy()].tolist())
        return actions.cpu().numpy()


class AttackedPlayer:
    """The greedy policy on attacked states; `flips` counts the flipped actions per episode.

    On a CPU, states certified by `certify` are not attacked: no attack can flip them. This saves time and
    does not change the results. On a GPU a GradientAttack attacks all states, which is faster than a proof.
    """

    def __init__(
        self, policy: Agent, attack: Attack, attack_epsilon: float, seed: int, certify: IntervalCertifier | None = None
    ) -> None:
        """`seed` seeds the attack's random numbers. Raises NrmapError as the policy's `for_attacks` does."""
        self._policy, self._q_values = policy, policy.for_attacks()
        self._attack, self._attack_epsilon, self._seed = attack, attack_epsilon, seed
        # On a GPU a CUDA graph attacks all states in less time than a proof takes.
        self._graphs = policy.device.type == "cuda" and isinstance(attack, GradientAttack)
        self._certify = None if self._graphs else certify
        self._graphed, self._most = Graphed(self._attacked_in_one_batch, policy.device, enabled=True), 0  # states in it
        self.flips: EpisodeCounts = Counter()

    def __call__(self, states: Bytes, episodes: Ints, steps: Ints, /) -> Actions:
        """Choose the greedy actions at the attacked states, and count the flips; see `ActionFn`."""
        seen = torch.from_numpy(states).to(self._policy.device)
        if self._certify is None:
            return self._attacked(seen, episodes, steps)
        actions = self._policy(seen).argmax(dim=1)  # [N]
        open_rows = ~self._certify(unit_states(seen), actions, self._attack_epsilon)  # [N]
        chosen: Actions = actions.cpu().numpy()
        if open_rows.any():
            where = open_rows.cpu().numpy()
            chosen[where] = self._attacked(seen[open_rows], episodes[where], steps[where])
        return chosen

    def _attacked(self, seen: Tensor, episodes: Ints, steps: Ints) -> Actions:
        noise, states = StateNoise(self._seed, episodes, steps), unit_states(seen)
        if not self._graphs:
            attacked = self._attack(self._q_values, states, attack_epsilon=self._attack_epsilon, noise=noise)
            found = torch.stack([attacked.actions, attacked.clean_actions])
        else:
            assert isinstance(self._attack, GradientAttack)
            starts = self._attack.starts(states, attack_epsilon=self._attack_epsilon, noise=noise)
            if len(states) > self._most:  # only at first: the number of running episodes never grows
                self._graphed = Graphed(self._attacked_in_one_batch, seen.device, enabled=True)
                self._most = len(states)
            fill = torch.arange(self._most, device=seen.device) % len(states)
            found = self._graphed(states[fill], starts[:, fill])[:, : len(states)]
        actions, clean_actions = found.cpu().numpy()
        self.flips.update(episodes[actions != clean_actions].tolist())
        return actions

    def _attacked_in_one_batch(self, states: Tensor, starts: Tensor) -> Tensor:
        """Return the actions under attack and the clean ones, [2, N]."""
        assert isinstance(self._attack, GradientAttack)
        attacked = self._attack.in_one_batch(self._q_values, states, starts, attack_epsilon=self._attack_epsilon)
        return torch.stack([attacked.actions, attacked.clean_actions])


class WorstCasePlayer:
    """A player that takes the action of lowest Q-value among those that the bounds cannot rule out.

    This gives the greedy worst-case return of Oikarinen et al. (2021, RADIAL). `flips` counts per episode the states
    where that action is not the greedy one: an upper bound on the flips of any attack of this radius on the states of
    this episode. The return itself is not a lower bound, because a low Q-value does not guarantee a low return.
    """

    def __init__(self, policy: Agent, certify: IntervalCertifier, attack_epsilon: float) -> None:
        """`certify` is on the device of the policy."""
        self._policy, self._certify, self._attack_epsilon = policy, certify, attack_epsilon
        self.flips: EpisodeCounts = Counter()

    @torch.inference_mode()
    def __call__(self, states: Bytes, episodes: Ints, steps: Ints, /) -> Actions:
        """Choose the actions, and count those that are not greedy; see `ActionFn`."""
        seen = torch.from_numpy(states).to(self._policy.device)
        scaled = unit_states(seen)
        q_values = self._policy(seen)  # [N, A]
        greedy = q_values.argmax(dim=1)  # [N]
        actions = greedy.clone()
        # If the greedy action is certified, no other action is possible.
        rows = (~self._certify(scaled, greedy, self._attack_epsilon)).nonzero().squeeze(1)
        if len(rows):
            possible = self._certify.possible_actions(scaled[rows], self._attack_epsilon)  # [n, A]
            actions[rows] = q_values[rows].masked_fill(~possible, torch.inf).argmin(dim=1)
        self.flips.update(episodes[(actions != greedy).cpu().numpy()].tolist())
        return actions.cpu().numpy()
