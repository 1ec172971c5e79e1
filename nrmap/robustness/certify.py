"""Certificates: proofs that no state within the ℓ∞ radius ε changes the greedy action of the float32 policy."""

import copy
import hashlib

import torch
from torch import Tensor

from nrmap.policies.network import QNetwork
from nrmap.robustness.bounds import (
    FLOAT32_UNDERFLOW,
    FLOAT32_UNIT_ROUNDOFF,
    BoundedNetwork,
    Box,
    float32_error,
    margins_of,
    output_differences,
    propagate,
    q_difference_bounds,
    split_head,
    state_box,
)
from nrmap.support.errors import check

# Computing s ± ε in float32 has an error of at most 2⁻²⁴; the rest covers the rounding of ε and of the box.
_STATE_ROUNDING = 2.0**-22
MOST_DIFFERENCES = 2**27  # of float64 numbers, a GiB, of which a few are held at once


class IntervalCertifier:
    """Tries to prove that no state in the ℓ∞ ball of radius ε flips the greedy action.

    The interval bounds are in float64, widened by the rounding of the acting float32 network. The proof
    covers every float32 state s' in the ball and every evaluation of the network that sums float32
    products in any order, with or without fused multiply-add, without overflow. It does not cover
    TF32, Winograd or FFT convolutions, which a GPU may use.
    """

    def __init__(self, network: QNetwork | BoundedNetwork) -> None:
        """Copy `network`; for an agent pass `bounded_network(agent)`.

        Raises NrmapError for too many actions A: A² · max(U, 256) may be at most 2²⁷, where the last hidden layer has U
        units. With U = 512 that is 512 actions.
        """
        last = split_head(network.advantage)[1]
        actions, hidden = last.out_features, last.in_features
        numbers = actions**2 * max(hidden, 256)
        take = f"bounds for all pairs of {actions:,} actions take {numbers:,} numbers"
        check(numbers <= MOST_DIFFERENCES, f"{take}: expected at most {MOST_DIFFERENCES:,}")
        self._network = copy.deepcopy(network).requires_grad_(False)
        self._exact = copy.deepcopy(self._network).double()
        self._known: dict[tuple[bytes, int, float], bool] = {}  # results by state, action and radius

    def __call__(self, states: Tensor, actions: Tensor, attack_epsilon: float, /) -> Tensor:
        """Return bool [N]: True where `actions` [N] are proven to be greedy in the whole ball, False without a proof.

        `states` are float [N, C, H, W] in [0, 1]. Results are kept for later calls, because episodes with equal seeds
        have the same states until an attack flips an action.
        """
        keys = [
            (hashlib.blake2b(state.tobytes(), digest_size=16).digest(), action, attack_epsilon)
            for state, action in zip(states.cpu().numpy(), actions.tolist(), strict=True)
        ]
        if new := [row for row, key in enumerate(keys) if key not in self._known]:
            proven = self._proven(states[new], actions[new], attack_epsilon).tolist()
            self._known |= zip((keys[row] for row in new), proven, strict=True)
        return torch.tensor([self._known[key] for key in keys], dtype=torch.bool, device=states.device)

    @torch.no_grad()
    def _proven(self, states: Tensor, actions: Tensor, attack_epsilon: float) -> Tensor:
        # Quick bounds in float32 rule out most states; the rest need the rigorous bounds.
        certified = margins_of(q_difference_bounds(self._network, states, attack_epsilon), actions) < 0
        rows = certified.nonzero().squeeze(1)
        if len(rows):
            certified[rows] = margins_of(self.difference_bounds(states[rows], attack_epsilon), actions[rows]) < 0
        return certified

    @torch.no_grad()
    def possible_actions(self, states: Tensor, attack_epsilon: float) -> Tensor:
        """Return bool [N, A]: True if the action may be greedy somewhere in the ball.

        `states` are float [N, C, H, W] in [0, 1]. An action is excluded if another action is proven to have a larger
        Q-value in the whole ball. The proof bounds the difference of both Q-values, in which V(s') cancels; bounds of
        single Q-values would exclude fewer actions.
        """
        possible = ~(q_difference_bounds(self._network, states, attack_epsilon) < 0).any(dim=2)  # [N, A]
        rows = (~possible).any(dim=1).nonzero().squeeze(1)
        if len(rows):
            possible[rows] = ~(self.difference_bounds(states[rows], attack_epsilon) < 0).any(dim=2)
        return possible

    @torch.no_grad()
    def difference_bounds(self, states: Tensor, attack_epsilon: float) -> Tensor:
        """Return upper bounds of Q(s', a) − Q(s', b) in the ball, float64 [N, A, A] indexed (n, a, b).

        The bounds also hold for float32 Q-values. `states` are float [N, C, H, W] in [0, 1].
        """
        network = self._exact
        ball = state_box(states.double(), attack_epsilon)
        features = propagate(network.features, Box(ball.centre, ball.radius + _STATE_ROUNDING), rounded=True)  # [N, F]
        layers, last = split_head(network.advantage)
        hidden = propagate(layers, features, rounded=True)  # [N, hidden]
        summed = hidden.magnitude @ last.weight.abs().T  # [N, A], |W| |x| + |b|
        if last.bias is not None:
            summed = summed + last.bias.abs()
        # Each advantage is rounded separately, so the rounding errors of two actions do not cancel.
        error = float32_error(last.in_features) * summed + FLOAT32_UNDERFLOW  # [N, A]
        bounds = output_differences(last, hidden) + error[:, :, None] + error[:, None, :]
        if network.value is not None:
            # (V + A) − mean A rounds twice for each of the two actions, by u·(|V| + |A|) and u·(|V| + 2 |A|) at most.
            value = propagate(network.value, features, rounded=True).magnitude  # [N, 1]
            largest = value + (summed + error).amax(dim=1, keepdim=True)  # [N, 1]
            bounds += 8 * FLOAT32_UNIT_ROUNDOFF * largest[:, :, None]
        return bounds
