"""Proofs that no state of the ball changes the greedy action, for the policy as float32 computes it."""

import copy
import hashlib
from typing import Protocol

import torch
from torch import Tensor

from nrmap.policies.network import QNetwork
from nrmap.robustness.bounds import (
    FLOAT32_UNDERFLOW,
    FLOAT32_UNIT_ROUNDOFF,
    Box,
    float32_error,
    margins_of,
    output_differences,
    propagate,
    q_difference_bounds,
    split_head,
    state_box,
)

# A perturbed state is s ± ε in float32, off by at most 2⁻²⁴ below 1; the rest covers the rounding of ε and of the box.
_STATE_ROUNDING = 2.0**-22


class Certifier(Protocol):
    """A proof, where it succeeds, that no point of the ball flips the greedy action."""

    def __call__(self, states: Tensor, actions: Tensor, attack_epsilon: float, /) -> Tensor:
        """Whether `actions` [N] stay greedy all over the ball around `states` [N, C, H, W] in [0, 1]; bool [N]."""

    def possible_actions(self, states: Tensor, attack_epsilon: float, /) -> Tensor:
        """Bool [N, A]: False where an action is proven not to be greedy anywhere in the ball around `states`."""


class IntervalCertifier:
    """Interval bounds in float64, widened by the rounding of the float32 network that acts.

    What is proven holds for every float32 state s' of the ball and every evaluation of the
    network that adds up float32 products, in any order and with fused multiply-add or without,
    as long as nothing overflows. It is no proof for TF32, Winograd or FFT convolutions, which a
    GPU may use.
    """

    def __init__(self, network: QNetwork) -> None:
        """`network` as it acts, in float32; later changes of it are not seen."""
        self._network = copy.deepcopy(network).requires_grad_(False)
        self._exact = copy.deepcopy(self._network).double()

    @torch.no_grad()
    def __call__(self, states: Tensor, actions: Tensor, attack_epsilon: float, /) -> Tensor:
        """Whether `actions` [N] stay greedy all over the ball around `states` [N, C, H, W] in [0, 1]; bool [N]."""
        certified = margins_of(q_difference_bounds(self._network, states, attack_epsilon), actions) < 0
        # That was quick and without rounding, and can only rule out; what passed is now to be proven.
        rows = certified.nonzero().squeeze(1)
        if len(rows):
            certified[rows] = margins_of(self.difference_bounds(states[rows], attack_epsilon), actions[rows]) < 0
        return certified

    @torch.no_grad()
    def possible_actions(self, states: Tensor, attack_epsilon: float) -> Tensor:
        """Which actions may be greedy somewhere in the ball around `states` [N, C, H, W] in [0, 1]; bool [N, A].

        An action is left out when another one is proven to have the larger Q-value all over the
        ball. The two are compared by the bound of their difference: bounds of each Q-value alone
        leave more actions in, as they count what moves V(s') as if it moved one of the two.
        """
        possible = ~(q_difference_bounds(self._network, states, attack_epsilon) < 0).any(dim=2)  # [N, A]
        rows = (~possible).any(dim=1).nonzero().squeeze(1)
        if len(rows):
            possible[rows] = ~(self.difference_bounds(states[rows], attack_epsilon) < 0).any(dim=2)
        return possible

    @torch.no_grad()
    def difference_bounds(self, states: Tensor, attack_epsilon: float) -> Tensor:
        """Upper bounds of Q(s', a) − Q(s', b) over the ball; float64 [N, A, A], indexed (n, a, b).

        Where one is negative, Q(s', a) < Q(s', b) in float32 as well. `states` float [N, C, H, W] in [0, 1].
        """
        network = self._exact
        ball = state_box(states.double(), attack_epsilon)
        features = propagate(network.features, Box(ball.centre, ball.radius + _STATE_ROUNDING), rounded=True)  # [N, F]
        layers, last = split_head(network.advantage)
        hidden = propagate(layers, features, rounded=True)  # [N, hidden]
        summed = hidden.magnitude @ last.weight.abs().T + last.bias.abs()  # [N, A], |W| |x| + |b|
        # Every advantage is rounded on its own, so here rounding does not cancel.
        error = float32_error(last.in_features) * summed + FLOAT32_UNDERFLOW  # [N, A]
        bounds = output_differences(last, hidden) + error[:, :, None] + error[:, None, :]
        if network.value is not None:
            # (V + A) − mean A rounds twice for each of two actions, by u of at most |V| + |A|, then |V| + 2 |A|.
            value = propagate(network.value, features, rounded=True).magnitude  # [N, 1]
            largest = value + (summed + error).amax(dim=1, keepdim=True)  # [N, 1]
            bounds += 8 * FLOAT32_UNIT_ROUNDOFF * largest[:, :, None]
        return bounds


class RememberingCertifier:
    """Proves what another certifier proves, and each state, action and radius once.

    Episodes of equal seeds run through the same states until an attack flips an action, so most
    of what is asked under attack was asked before.
    """

    def __init__(self, certify: Certifier) -> None:
        """`certify` gives the proofs; asked again it would give the same ones."""
        self._certify = certify
        self._known: dict[tuple[bytes, int, float], bool] = {}

    def __call__(self, states: Tensor, actions: Tensor, attack_epsilon: float, /) -> Tensor:
        """See `Certifier`."""
        pixels = states.cpu().numpy()
        keys = [
            (hashlib.blake2b(state.tobytes(), digest_size=16).digest(), action, attack_epsilon)
            for state, action in zip(pixels, actions.tolist(), strict=True)
        ]
        new = torch.tensor([row for row, key in enumerate(keys) if key not in self._known], dtype=torch.int64)
        if len(new):
            rows = new.to(states.device)
            proven = self._certify(states[rows], actions[rows], attack_epsilon).tolist()
            self._known |= {keys[row]: proof for row, proof in zip(new.tolist(), proven, strict=True)}
        return torch.tensor([self._known[key] for key in keys], dtype=torch.bool, device=states.device)

    def possible_actions(self, states: Tensor, attack_epsilon: float, /) -> Tensor:
        """See `Certifier`; not remembered."""
        return self._certify.possible_actions(states, attack_epsilon)
