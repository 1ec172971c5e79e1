"""Targets and the TD loss against arithmetic by hand and a plain loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nrmap.learning.double_dqn import anchor_loss, double_q_targets, td_loss


class Table(nn.Module):
    """Q-values read from a table by the state's only pixel."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.rows[states.flatten().long()]


ONLINE = Table([[1.0, 2.0, 3.0], [5.0, 4.0, 0.0]])
TARGET = Table([[10.0, 20.0, 15.0], [-1.0, 7.0, 2.0]])
S_T = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1)
R_T = torch.tensor([1.0, 0.0, -2.0, 0.5])
DISCOUNT_T = torch.tensor([0.5, 0.9, 0.0, 1.0])


@pytest.mark.parametrize(
    ("online", "bootstraps"),
    [
        (ONLINE, [15, -1, 15, -1]),  # arg max of the online rows: action 2 in state 0, action 0 in state 1
        (None, [20, 7, 20, 7]),  # plain Q-learning: the largest value
    ],
)
def test_targets_by_hand(online, bootstraps):
    targets = double_q_targets(online=online, target_network=TARGET, s_t=S_T, r_t=R_T, discount_t=DISCOUNT_T)
    assert targets.tolist() == pytest.approx([1 + 0.5 * bootstraps[0], 0.9 * bootstraps[1], -2, 0.5 + bootstraps[3]])
    assert not targets.requires_grad


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_td_loss_is_the_weighted_mean_huber_loss(batch, actions, seed):
    rng = np.random.default_rng(seed)
    q_tm1, targets = rng.normal(size=(batch, actions)) * 2, rng.normal(size=batch) * 2
    a_tm1, weights = rng.integers(actions, size=batch), rng.random(batch)
    expected, slopes = 0.0, np.zeros((batch, actions))
    for b in range(batch):
        error = targets[b] - q_tm1[b, a_tm1[b]]
        huber = error**2 / 2 if abs(error) <= 1 else abs(error) - 1 / 2
        expected += weights[b] * huber / batch
        slopes[b, a_tm1[b]] = -weights[b] * np.clip(error, -1, 1) / batch
    estimates = torch.tensor(q_tm1, requires_grad=True)
    loss, td_errors = td_loss(
        q_tm1=estimates, a_tm1=torch.tensor(a_tm1), targets=torch.tensor(targets), weights=torch.tensor(weights)
    )
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert td_errors.tolist() == pytest.approx((targets - q_tm1[np.arange(batch), a_tm1]).tolist())
    assert not td_errors.requires_grad
    loss.backward()
    np.testing.assert_allclose(estimates.grad.numpy(), slopes, atol=1e-12)


def test_the_anchor_leaves_v_free():
    q_values, parents = torch.randn(2, 5, 3, dtype=torch.float64)
    moved = q_values + torch.randn(5, 1, dtype=torch.float64)
    torch.testing.assert_close(anchor_loss(moved, parents), anchor_loss(q_values, parents))
