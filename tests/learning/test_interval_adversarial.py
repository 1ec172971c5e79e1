"""SA-DDQN with interval bounds ends in agents that can be certified."""

import numpy as np
from toy_learners import make_batch, make_learner

from nrmap.policies.network import frozen
from nrmap.robustness.attacks import StateNoise, pgd
from nrmap.robustness.certify import IntervalCertifier


def test_training_on_the_bounds_ends_in_a_network_that_is_certified(tiny_regulariser):
    """With κ = 0 nothing is proven and the attack succeeds; with κ everything is, and it fails everywhere."""
    batch, radius = make_batch(0, size=24), 0.1
    states, numbers = batch.s_tm1.float() / 255, np.arange(24)
    noise = StateNoise(0, episodes=numbers, steps=numbers)
    shares, flips = {}, {}
    for kappa in (0.0, 1.0):
        regulariser = tiny_regulariser(
            solver="ibp", pgd_steps=0, pgd_step_fraction=0.0, kappa=kappa, hinge=0.5, attack_epsilon=radius,
            hinge_reduction="per_sample_mean", ramp_steps=100,
        )  # fmt: skip
        learner = make_learner(regulariser)
        for update in range(150):
            learner.update(batch, agent_step=update)
        q_values = frozen(learner.online)
        result = pgd(20)(q_values, states, attack_epsilon=radius, noise=noise)
        certified = IntervalCertifier(learner.online)(states, result.clean_actions, radius)
        shares[kappa], flips[kappa] = certified.double().mean().item(), result.flipped.double().mean().item()
    assert (shares[0.0], shares[1.0]) == (0.0, 1.0)
    assert flips[0.0] > 0.1
    assert flips[1.0] == 0
