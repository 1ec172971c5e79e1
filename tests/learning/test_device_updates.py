"""Updates on static buffers, with schedules as tensors: those of the CPU, and without a value on the host."""

import copy

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from toy_learners import ACTIONS, IBP, SIDE, SPEC, make_batch, make_learner, undecided_network, weights_of

from nrmap.learning.device_replay import DeviceReplay
from nrmap.learning.device_updates import DeviceUpdates
from nrmap.learning.learner import Rates
from nrmap.learning.replay import Replay, ReplaySpec
from nrmap.learning.schedules import Linear

CPU = torch.device("cpu")
REPLAY = ReplaySpec(60, 3, 0.9, priority_exponent=0.5, anneal_steps=400, n_step_final=1, discount_final=0.95)
BETA = Linear(0.4, 1.0, 0, 1_000)
METHODS = {
    "ddqn": None,
    "pgd": {},
    "worst_of_path": {"inner_attack": "worst_of_path", "hold_advantages": 0.5},
    "n_fgsm": {"inner_attack": "n_fgsm", "pgd_steps": 1},
    "random_steps": {"inner_attack": "random_steps", "ramp_of": "kappa"},
    "ibp": {**IBP, "hinge_reduction": "per_sample_mean"},
}
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def learner_for(tiny_regulariser):
    def make(method, **options):
        changes = METHODS[method]
        regulariser = None if changes is None else tiny_regulariser(ramp_begin=100, ramp_steps=800, **changes)
        return make_learner(regulariser, **options)

    return make


def filled(kind, **options):
    """A replay of 100 random steps in each of two environments."""
    replay, rng = kind(REPLAY, num_envs=2, state_shape=(2, SIDE, SIDE), **options), np.random.default_rng(0)
    both = np.arange(2)
    replay.begin_episodes(both, rng.integers(256, size=(2, 2, SIDE, SIDE), dtype=np.uint8))
    for _ in range(100):
        replay.append(
            both, actions=rng.integers(ACTIONS, size=2), rewards=rng.normal(size=2).astype(np.float32),
            terminal=rng.random(2) < 0.1, ended=np.zeros(2, dtype=bool),
            next_states=rng.integers(256, size=(2, 2, SIDE, SIDE), dtype=np.uint8),
        )  # fmt: skip
    return replay


@pytest.mark.bitwise
@methods
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_schedules_as_tensors_change_no_bit(method, precision, learner_for):
    numbers, tensors = (learner_for(method, precision=precision, gradient_clip=1.0) for _ in range(2))
    for agent_step in (0, 100, 101, 137, 600, 955, 2000):
        batch = make_batch(agent_step)
        expected = numbers.update(batch, agent_step)
        rates = tensors.rates(agent_step)
        scalars = torch.tensor([rates.learning_rate, rates.kappa, rates.attack_epsilon], dtype=torch.float64)
        rate, kappa, attack_epsilon = scalars.unbind()
        found = tensors.step(batch, Rates(rate, kappa.float(), attack_epsilon, rates.robust))
        tensors.after_step(agent_step)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert torch.equal(weights_of(numbers), weights_of(tensors))


@methods
def test_updates_from_a_replay_on_the_device_are_those_from_the_host(method, learner_for):
    parent = {"parent": undecided_network(3), "anchor": 0.5}
    here, there = (learner_for(method, **copy.deepcopy(parent)) for _ in range(2))
    host, device = filled(Replay), filled(DeviceReplay, device=CPU)
    updates = DeviceUpdates(there, device, importance=BETA, graphs=True)  # graphs need CUDA: the same calls, eagerly
    one, two = np.random.default_rng(1), np.random.default_rng(1)
    for agent_step in (0, 99, 101, 300, 500, 990):
        batch = host.sample(SPEC.batch_size, importance=BETA(agent_step), rng=one, agent_step=agent_step)
        expected = here.update(batch, agent_step)
        host.update_priorities(batch.indices, expected.pop("td_errors").numpy())
        found = updates(two, agent_step)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights_of(there), weights_of(here), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(device.priorities.weights, host.priorities.weights, rtol=1e-4)


def test_a_replay_and_its_batches_are_on_one_device():
    meta = torch.device("meta")  # no values, and no operations with tensors of another device
    replay = filled(DeviceReplay, device=meta)
    numbers = torch.empty(3 + 6, dtype=torch.float64, device=meta)
    importance, n_step, discount = numbers[:3].unbind()
    batch = replay.draw(numbers[3:], importance=importance, n_step=n_step, discount=discount)
    assert all(tensor.is_meta for tensor in vars(batch).values())
    replay.update_priorities(batch.indices, torch.empty(6, device=meta))
    assert replay.latest_states(2, 3).is_meta


@methods
def test_an_update_reads_no_value_on_the_host(method, learner_for):
    learner = learner_for(method, gradient_clip=1.0, parent=undecided_network(3), anchor=0.5)
    updates = DeviceUpdates(learner, filled(DeviceReplay, device=CPU), importance=BETA, graphs=False)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        numbers = mode.from_tensor(torch.zeros(6 + SPEC.batch_size, dtype=torch.float64))
        for robust in (False, method != "ddqn"):
            values = updates._update(numbers, robust=robust)
            assert values.shape == (len(updates._names[robust]),)
        with pytest.raises(DataDependentOutputException):
            values.tolist()


@pytest.mark.cuda
@methods
def test_graphed_updates_are_eager_updates(method, learner_for, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    made = []
    for graphs in (True, False):
        learner = learner_for(method, device="cuda", gradient_clip=1.0, average_from=0.3)
        replay = filled(DeviceReplay, device=torch.device("cuda"))
        updates = DeviceUpdates(learner, replay, importance=BETA, graphs=graphs)
        rng = np.random.default_rng(1)
        values = [updates(rng, agent_step) for agent_step in range(0, 1000, 20)]
        made.append((learner, replay, values))
        assert all(form.enabled == graphs for form in updates._forms.values())
    (one, first, values), (two, second, others) = made
    assert torch.equal(weights_of(one), weights_of(two))
    assert torch.equal(first.priorities.scaled, second.priorities.scaled)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(values, others, strict=True) for name in a)
    states = make_batch(0).s_tm1
    assert all(torch.equal(one.greedy_actions(states), two.greedy_actions(states)) for _ in range(6))
