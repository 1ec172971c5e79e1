"""A learner's updates: Adam, clipping, the target network; learners that stop and go on, and learn."""

import functools

import numpy as np
import pytest
import torch
from toy_learners import ACTIONS, IBP, PRECISIONS, SIDE, gradient_of, make_batch, make_learner, weights_of

from nrmap.learning.replay import Replay, ReplaySpec
from nrmap.policies.network import frozen
from nrmap.robustness.attacks import StateNoise, pgd
from nrmap.robustness.bounds import margin_bounds
from nrmap.robustness.certify import IntervalCertifier
from train.checkpoint import load_checkpoint, save_checkpoint


def test_adam_follows_its_schedule_and_its_definition():
    learner = make_learner(learning_rate=0.01, learning_rate_final=0.001, target_update_period=1000)
    first, second = [torch.zeros_like(weights_of(learner), dtype=torch.float64) for _ in range(2)]
    for t, agent_step in enumerate((0, 499, 500, 750, 999, 5000), start=1):
        rate = float(np.interp(agent_step, [500, 1000], [0.01, 0.001]))
        before = weights_of(learner).double()
        learner.update(make_batch(t), agent_step)
        gradient = gradient_of(learner).double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = rate * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-6)
        torch.testing.assert_close(weights_of(learner).double(), before - step, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm():
    free, clipped = make_learner(), make_learner(gradient_clip=0.01)
    for learner in (free, clipped):
        learner.update(make_batch(0), agent_step=0)
    one, two = gradient_of(free), gradient_of(clipped)
    assert one.norm() > 0.02
    torch.testing.assert_close(two, one * (0.01 / one.norm()), rtol=1e-3, atol=1e-7)


def test_the_target_network_follows_every_fourth_update():
    learner = make_learner()
    expected = weights_of(learner)
    for update in range(1, 10):
        learner.update(make_batch(update), agent_step=0)
        expected = expected if update % 4 else weights_of(learner)
        assert torch.equal(weights_of(learner.target_network), expected)
    assert not any(parameter.requires_grad for parameter in learner.target_network.parameters())


def test_the_policy_is_the_mean_of_the_late_weights():
    learner = make_learner(average_from=0.5, target_update_period=2)
    late = []
    for update in range(10):
        assert torch.equal(weights_of(learner.policy_network()), weights_of(learner)) or late
        learner.update(make_batch(update), agent_step=100 * update)
        if update >= 5 and update % 2 == 1:  # agent steps 500, 700 and 900, right after the target network's copy
            late.append(weights_of(learner).clone())
    torch.testing.assert_close(weights_of(learner.policy_network()), torch.stack(late).mean(dim=0))
    resumed = make_learner(average_from=0.5, target_update_period=2)
    resumed.set_state(learner.get_state())
    assert torch.equal(weights_of(resumed.policy_network()), weights_of(learner.policy_network()))


CUDA = pytest.param("cuda", marks=pytest.mark.cuda)


def test_the_probe_is_an_attack_in_the_ball_that_no_bound_contradicts(tiny_regulariser):
    learner, states = make_learner(tiny_regulariser(attack_epsilon=0.001)), make_batch(0, size=64).s_tm1
    clean = states.float() / 255
    with torch.no_grad():
        a_star = learner.online(clean).argmax(1)
        undecided = margin_bounds(learner.online, clean, a_star, 0.001) > 0
    probe = learner.probe(states)
    assert 0 < probe["probe_own_flips"] <= probe["probe_flips"] <= undecided.float().mean() < 1
    with torch.no_grad():
        learner.online.advantage[-1].bias[1] += 100.0  # action 1 wherever the ball ends
    assert learner.probe(states) == {"probe_flips": 0, "probe_own_flips": 0}
    assert make_learner().probe(states) == {}


@pytest.mark.cuda
def test_cuda_learns_what_the_cpu_learns():
    here, there = make_learner(), make_learner(device="cuda")
    for seed in range(5):
        one, two = (learner.update(make_batch(seed), agent_step=0) for learner in (here, there))
        torch.testing.assert_close(one["td_errors"], two["td_errors"].cpu(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(weights_of(here), weights_of(there).cpu(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("updates", [0, 1, 6])
@pytest.mark.parametrize("solver", [None, "pgd", "ibp"])
def test_a_learner_goes_on_from_a_file(updates, solver, device, tmp_path, tiny_regulariser):
    regulariser = {None: None, "pgd": tiny_regulariser(), "ibp": tiny_regulariser(**IBP)}[solver]
    learner = make_learner(regulariser, device=device)
    for seed in range(updates):
        learner.update(make_batch(seed), agent_step=100)
    save_checkpoint(tmp_path / "state.safetensors", {"learner": learner.get_state()})
    other = make_learner(regulariser, seed=99, device=device)
    other.generator.manual_seed(5)
    other.set_state(load_checkpoint(tmp_path / "state.safetensors")["learner"])
    # Convolutions on CUDA do not repeat to the last bit even within one process.
    same = torch.equal if device == "cpu" else functools.partial(torch.allclose, rtol=1e-3, atol=1e-4)
    for seed in range(updates, updates + 6):
        one, two = (each.update(make_batch(seed), agent_step=100) for each in (learner, other))
        assert same(one["td_errors"], two["td_errors"])
    assert same(weights_of(learner), weights_of(other))


def test_training_on_the_bounds_ends_in_a_network_that_is_certified(tiny_regulariser):
    """With κ = 0 nothing is proven and the attack succeeds; with κ everything is, and it fails everywhere."""
    batch, radius, numbers = make_batch(0, size=24), 0.1, np.arange(24)
    shares, flips = {}, {}
    for kappa in (0.0, 1.0):
        options = {"hinge": 0.5, "hinge_reduction": "per_sample_mean", "ramp_steps": 100, "attack_epsilon": radius}
        learner = make_learner(tiny_regulariser(kappa=kappa, **IBP, **options))
        for update in range(150):
            learner.update(batch, agent_step=update)
        states, noise = batch.s_tm1.float() / 255, StateNoise(0, episodes=numbers, steps=numbers)
        result = pgd(20)(frozen(learner.online), states, attack_epsilon=radius, noise=noise)
        certified = IntervalCertifier(learner.online)(states, result.clean_actions, radius)
        shares[kappa], flips[kappa] = certified.double().mean().item(), result.flipped.double().mean().item()
    assert (shares[0.0], shares[1.0], flips[1.0]) == (0.0, 1.0, 0.0)
    assert flips[0.0] > 0.1


CHAIN, GAMMA = 4, 0.9


def chain_state(position: int) -> np.ndarray:
    state = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    state[:, :, 3 * position : 3 * position + 3] = 255
    return state


@pytest.mark.parametrize("precision", PRECISIONS)
def test_learner_and_replay_find_the_values_of_a_chain(precision):
    # Action 1 walks on, the others stay; walking on from the last position ends the episode with reward 1.
    learner = make_learner(precision=precision, batch_size=16, target_update_period=20, learning_rate=3e-3)
    replay = Replay(ReplaySpec(300, 1, GAMMA, priority_exponent=0.6), num_envs=1, state_shape=(2, SIDE, SIDE))
    rng, one, position = np.random.default_rng(0), np.zeros(1, dtype=np.int64), 0
    replay.begin_episodes(one, chain_state(0)[None])
    for action in rng.integers(ACTIONS, size=250):
        ended = np.array([action == 1 and position == CHAIN - 1])
        position += action == 1 and not ended[0]
        replay.append(
            one, actions=np.array([action]), rewards=ended.astype(np.float32), terminal=ended, ended=ended,
            next_states=chain_state(position)[None],
        )  # fmt: skip
        if ended[0]:
            position = 0
            replay.begin_episodes(one, chain_state(0)[None])
    for update in range(300):
        batch = replay.sample(16, importance=1.0, rng=rng)
        errors = learner.update(batch, agent_step=update)["td_errors"]
        replay.update_priorities(batch.indices, errors.numpy())
    with torch.no_grad():
        q_values = learner.online(torch.from_numpy(np.stack([chain_state(k) for k in range(CHAIN)])).float() / 255)
    expected = np.array([[GAMMA ** (CHAIN - k), GAMMA ** (CHAIN - 1 - k), GAMMA ** (CHAIN - k)] for k in range(CHAIN)])
    np.testing.assert_allclose(q_values.numpy(), expected, atol=0.05)
