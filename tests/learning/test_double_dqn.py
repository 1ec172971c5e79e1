"""The TD loss against a plain loop; `test_losses.py` compares the targets too."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nrmap.learning.double_dqn import td_loss


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
    a_tm1, targets, weights = map(torch.tensor, (a_tm1, targets, weights))
    loss, td_errors = td_loss(q_tm1=estimates, a_tm1=a_tm1, targets=targets, weights=weights)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(td_errors, targets - torch.tensor(q_tm1)[torch.arange(batch), a_tm1])
    assert not td_errors.requires_grad
    loss.backward()
    np.testing.assert_allclose(estimates.grad.numpy(), slopes, atol=1e-12)
