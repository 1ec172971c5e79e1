"""Whole runs: killed and resumed, repeated, and step by step against what the settings say."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from nrmap.atari.envs import SeededVectorEnv
from nrmap.atari.episode_seeds import TRAINING_STREAM, episode_seed
from nrmap.learning.exploration import Explorer
from nrmap.learning.learner import Learner
from nrmap.learning.replay import Replay
from nrmap.policies.network import NetworkSpec, QNetwork
from nrmap.support.errors import NrmapError
from nrmap.support.runtime import choose_device
from train.checkpoint import load_checkpoint, save_checkpoint
from train.collector import Collector
from train.curves import Curves
from train.trainer import Trainer

CPU = torch.device("cpu")


def train(trainer: Trainer, *, stop_at: int | None = None) -> None:
    """Run up to agent step `stop_at`."""
    for iteration in trainer.run():
        if iteration.agent_step == stop_at:
            return


def initial_network(settings) -> QNetwork:
    torch.manual_seed(4)
    actions = SeededVectorEnv(settings.env, 1).num_actions
    return QNetwork(NetworkSpec(*settings.env.state_shape, actions, dueling=settings.dueling))


@pytest.fixture
def run_of(tiny_settings, tiny_regulariser):
    """Settings by name: plain DDQN on Freeway, and everything that has a state of its own on a game with lives."""
    plain = tiny_settings()
    robust = tiny_settings(
        env={"game": "Breakout", "frame_stack": 2, "sticky_actions": 0.25},
        method="sa_ddqn", regulariser=tiny_regulariser(), learner={"gradient_clip": 1.0},
        replay={"n_step": 4, "priority_exponent": 0.7}, seed=8, parent=plain, anchor=0.5,
    )  # fmt: skip
    return {"plain": plain, "robust": robust}.__getitem__


@pytest.mark.bitwise
@pytest.mark.parametrize(
    ("name", "points", "at_ends", "options"),
    [
        ("plain", [8, 100], False, {"precision": torch.bfloat16}),  # while warming up, and late
        pytest.param("plain", [8, 100], True, {}, marks=pytest.mark.slow),
        ("robust", [100], True, {}),
        pytest.param("robust", [8, 100], True, {"precision": torch.bfloat16}, marks=pytest.mark.slow),
        ("robust", [100], False, {"replay_on_device": True}),
        pytest.param("robust", [8, 100], True, {"device": "cuda"}, marks=pytest.mark.cuda),
    ],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(name, points, at_ends, options, run_of, tmp_path, assert_same):
    """Killed at some agent steps, and with `at_ends` right after each environment's first episode has ended."""
    settings, options = run_of(name), {**options, "device": choose_device(options.get("device", "cpu"))}
    trainer, curves, ended = Trainer(settings, **options), Curves(), set()
    for iteration in trainer.run():
        curves.record(iteration)
        first_ends = {episode.env for episode in iteration.finished_episodes} - ended
        ended |= first_ends
        if iteration.agent_step in points or (first_ends and at_ends):
            state = {"trainer": trainer.get_state(), "curves": curves.get_state()}
            save_checkpoint(tmp_path / f"{iteration.agent_step}.safetensors", state)
    assert ended == {0, 1}
    assert trainer.agent_step == settings.steps
    assert (trainer.collector.replay.newest > 2 * trainer.collector.replay.slots).all()  # the ring went round
    files = sorted(tmp_path.iterdir())
    assert (len(files) > len(points)) == at_ends

    final, metrics = trainer.get_state(), trainer.metrics()
    for file in files:
        resumed = Trainer(settings, **options)
        state = load_checkpoint(file)
        resumed.set_state(state["trainer"])
        curves_again = Curves.from_state(state["curves"])
        for iteration in resumed.run():
            curves_again.record(iteration)
        assert_same(resumed.get_state(), final)
        assert resumed.metrics() == metrics
        assert curves_again.episodes == curves.episodes
        np.testing.assert_array_equal(resumed.collector.states, trainer.collector.states)


@pytest.mark.bitwise
def test_runs_repeat_and_seeds_differ(run_of, assert_same):
    settings = replace(run_of("robust"), steps=60)
    states = []
    for torch_seed, seed in enumerate((8, 8, 9)):
        torch.manual_seed(torch_seed)  # of no influence
        trainer = Trainer(replace(settings, seed=seed), device=CPU)
        train(trainer)
        states.append(trainer.get_state())
    assert_same(states[0], states[1])
    one, other = states[0], states[2]
    parts = [(one["learner"][part], other["learner"][part]) for part in ("online", "generator")]
    parts += [(one[part], other[part]) for part in ("exploration_rng", "sampling_rng")]
    parts.append([[episode["actions"] for episode in state["collector"]["episodes"]] for state in (one, other)])
    for part, other_part in parts:
        with pytest.raises(AssertionError):
            assert_same(part, other_part)


def test_methods_from_one_start_share_all_but_the_loss(tiny_settings, tiny_regulariser, assert_same):
    vanilla = tiny_settings(method="ddqn_continued", steps=60)
    robust = replace(vanilla, method="sa_ddqn", regulariser=tiny_regulariser())
    silent = replace(vanilla, method="sa_ddqn", regulariser=tiny_regulariser(ramp_begin=10_000))
    trainers = {
        name: Trainer(settings, device=CPU, initial=initial_network(settings))
        for name, settings in (("vanilla", vanilla), ("robust", robust), ("silent", silent))
    }
    # Up to the first update nothing but the start, the seeds and the exploration has a say.
    for trainer in trainers.values():
        train(trainer, stop_at=vanilla.warm_up_steps)
    assert_same(trainers["vanilla"].get_state(), trainers["robust"].get_state())
    for trainer in trainers.values():
        train(trainer)
    assert_same(trainers["vanilla"].get_state(), trainers["silent"].get_state())
    with pytest.raises(AssertionError):
        assert_same(trainers["vanilla"].learner.get_state(), trainers["robust"].learner.get_state())


@pytest.mark.parametrize(
    ("steps_per_update", "warm_up", "steps"),
    [(1, 30, 64), (2, 31, 64), (4, 40, 63), (8, 9, 64), (2, 64, 63), (1, 70, 64)],
)
def test_updates_come_when_they_are_due(tiny_settings, steps_per_update, warm_up, steps):
    of_steps = {"steps": steps, "steps_per_update": steps_per_update, "warm_up_steps": warm_up}
    settings = tiny_settings(**of_steps, learner={"batch_size": 1})
    trainer = Trainer(settings, device=CPU)
    counts = [(iteration.agent_step, trainer.learner.updates) for iteration in trainer.run()]
    expected, updates = [], 0
    for step in range(1, 65):
        before_the_tick = (step - 1) // settings.num_envs * settings.num_envs
        updates += step % steps_per_update == 0 and before_the_tick >= warm_up
        if step % settings.num_envs == 0:
            expected.append((step, updates))
    assert counts == expected
    assert settings.updates == updates


def test_without_exploration_the_network_acts(tiny_settings):
    settings = tiny_settings(steps=24, warm_up_steps=1_000, exploration={"epsilon_initial": 0.0, "epsilon_final": 0.0})
    network = initial_network(settings)
    trainer = Trainer(settings, device=CPU, initial=network)
    train(trainer)
    env, expected = SeededVectorEnv(settings.env, settings.num_envs), []
    seeds = [episode_seed(settings.seed, TRAINING_STREAM, e, 0) for e in range(settings.num_envs)]
    states, _ = env.begin(np.ones(settings.num_envs, dtype=bool), seeds)
    for _ in range(settings.steps // settings.num_envs):
        with torch.no_grad():
            expected.append(network(torch.from_numpy(states).float() / 255).argmax(1).numpy())
        states = env.step(expected[-1]).states
    logged = [episode["actions"] for episode in trainer.get_state()["collector"]["episodes"]]
    np.testing.assert_array_equal(np.stack(logged, axis=1), np.stack(expected))


def test_exploring_actions_are_mixed_with_greedy_ones(tiny_settings):
    exploration = {"epsilon_initial": 0.6, "epsilon_final": 0.6, "env_spread": 0.0, "max_repeat": 1}
    settings = tiny_settings(env={"max_agent_steps": 1_000}, steps=400, warm_up_steps=1_000, exploration=exploration)
    network = initial_network(settings)
    with torch.no_grad():
        network.advantage[-1].bias[1] += 100.0  # action 1 is greedy in every state
    trainer = Trainer(settings, device=CPU, initial=network)
    train(trainer)
    played = [episode["actions"] for episode in trainer.get_state()["collector"]["episodes"]]
    counts = np.bincount(np.concatenate(played), minlength=3)
    assert stats.chisquare(counts, counts.sum() * np.array([0.2, 0.6, 0.2])).pvalue > 0.01


def test_a_run_is_the_loop_written_down(run_of):
    """Its parts are those of a trainer; seeds, schedules, priorities, the anchor and the order are written out."""
    replay = {"n_step": 4, "n_step_final": 2, "discount_final": 0.9, "anneal_steps": 90, "priority_exponent": 0.7}
    settings = run_of("robust")
    settings = replace(
        settings,
        replay=replace(settings.replay, **replay, importance_initial=0.4),
        learner=replace(settings.learner, decay_from=0.25),
    )
    parent = initial_network(settings)
    trainer = Trainer(settings, device=CPU, initial=parent)
    train(trainer)

    exploration, sampling, _, attack = np.random.SeedSequence(settings.seed).spawn(4)
    exploration_rng, sampling_rng = np.random.default_rng(exploration), np.random.default_rng(sampling)
    collector = Collector(
        settings, Replay(settings.replay, num_envs=2, state_shape=settings.env.state_shape, newest_first=False)
    )
    explorer = Explorer(num_envs=2, num_actions=collector.num_actions, max_repeat=settings.exploration.max_repeat)
    learner = Learner(
        online=copy.deepcopy(parent), spec=settings.learner, regulariser=settings.regulariser, total_steps=120,
        generator=torch.Generator().manual_seed(int(attack.generate_state(1)[0])), parent=parent, anchor=0.5,
    )  # fmt: skip
    losses = []
    collector.begin()
    for step in range(0, 120, 2):
        epsilon = np.interp(step, [0, 80], [1.0, 0.1])
        exploring = explorer.step(np.array([epsilon, epsilon**2]), exploration_rng)
        with torch.no_grad():
            greedy = learner.online(torch.from_numpy(collector.states).float() / 255).argmax(dim=1).numpy()
        collector.send(np.where(exploring < 0, greedy, exploring))
        if step >= 30:  # the warm-up; then an update every two agent steps
            importance = np.interp(step, [0, 120], [0.4, 1.0])
            batch = collector.replay.sample(8, importance=importance, rng=sampling_rng, agent_step=step)
            found = learner.update(batch, step)
            collector.replay.update_priorities(batch.indices, found["td_errors"].numpy())
            losses.append(found["loss"].item())
        collector.receive()
    torch.testing.assert_close(trainer.learner.get_state()["online"], learner.get_state()["online"])
    assert trainer.metrics()["loss"] == pytest.approx(np.mean(losses))


def test_metrics_are_means_and_schedules(run_of):
    settings = run_of("robust")
    trainer = Trainer(settings, device=CPU)
    train(trainer, stop_at=60)
    metrics = trainer.metrics()
    schedules = {"epsilon": 1 - 0.9 * 60 / 80, "attack_epsilon": 0.05, "learning_rate": 1e-3}
    assert {name: metrics[name] for name in schedules} == pytest.approx(schedules)
    # Nothing was learned since, so only schedules and probes are left.
    assert metrics.keys() - trainer.metrics().keys() >= {"loss", "td_loss", "q_mean", "robust_loss"}


@pytest.mark.parametrize(("alive", "fraction"), [(16, 16 / 64), (0, 0)])
def test_dead_features_are_counted(alive, fraction, tiny_settings):
    trainer = Trainer(tiny_settings(steps=40), device=CPU)
    train(trainer)
    trainer.collector.states[0] = 0  # unlike the other
    features = trainer.learner.online.features(torch.from_numpy(trainer.collector.states).float() / 255)  # [E, F]
    assert trainer.metrics()["active_features"] == float((features.amax(dim=0) > 0).float().mean())
    with torch.no_grad():
        trainer.learner.online.features[4].bias.copy_(torch.where(torch.arange(64) < alive, 1e6, -1e6))
    assert trainer.metrics()["active_features"] == fraction


def test_a_run_that_diverges_says_so(tiny_settings):
    trainer = Trainer(tiny_settings(steps=40), device=CPU)
    with torch.no_grad():
        next(trainer.learner.online.parameters()).fill_(torch.nan)
    train(trainer)
    with pytest.raises(NrmapError, match=r"diverged before agent step 40: .* is nan"):
        trainer.metrics()


def test_a_start_of_another_shape_is_refused(tiny_settings):
    settings = tiny_settings()
    with pytest.raises(ValueError, match="the initial network is"):
        Trainer(settings, device=CPU, initial=initial_network(replace(settings, dueling=False)))


def test_a_copy_of_the_start_is_trained_even_if_it_came_frozen(tiny_settings):
    settings = tiny_settings(steps=40)
    network = initial_network(settings).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer = Trainer(settings, device=CPU, initial=network)
    train(trainer)
    after, given = trainer.learner.online.state_dict(), network.state_dict()
    assert all(torch.equal(before[name], given[name]) and not torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in network.parameters())
