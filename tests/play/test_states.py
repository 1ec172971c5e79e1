"""Sampled states, pools and states files: round trips and refusals."""

from dataclasses import asdict, replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from toy_policies import FREEWAY

from nrmap.atari.episode_seeds import VALIDATION_STREAM, episode_seeds
from nrmap.play import states as states_module
from nrmap.play.rollout import Episode, even_positions, replay_states
from nrmap.play.states import RolloutStates, SourcePolicy, collect_states, load_states, pool_states, save_states
from nrmap.support.errors import NrmapError


@pytest.fixture(scope="module")
def states(toy):
    return collect_states(toy, num_states=11, episodes=3, run_seed=5, num_envs=2)


def synthetic_states(env=FREEWAY, lengths=(4, 6, 2), label="made up", seed=0):
    """Two states of random pixels per episode."""
    generator, episodes = np.random.default_rng(seed), []
    for number, length in enumerate(lengths):
        actions, rewards = generator.integers(2, size=length), generator.random(length)
        ends = {"terminated": number % 2 == 0, "truncated": number % 2 == 1}
        episode = Episode(100 * seed + number, actions.astype(np.uint8), rewards.astype(np.float32), **ends)
        episodes.append(episode)
    return RolloutStates(
        env=env, origins=(SourcePolicy(label, f"{seed:064x}"),), episodes=tuple(episodes),
        episode_origins=np.zeros(len(lengths), dtype=np.int64),
        states=generator.integers(256, size=(2 * len(lengths), *env.state_shape)).astype(np.uint8),
        episode_ids=np.repeat(np.arange(len(lengths)), 2),
        positions=np.array([step for length in lengths for step in (0, length - 1)]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def assert_equal(assert_same):
    return lambda first, second: assert_same(asdict(first), asdict(second))


def recorded_actions(states):
    """The action that was taken in each state, [N]."""
    pairs = zip(states.episode_ids, states.positions, strict=True)
    return np.array([states.episodes[episode].actions[step] for episode, step in pairs])


def test_collected_states_are_the_policys_own(toy, states):
    """Each state gives the recorded action and can be replayed from seed and actions."""
    assert [episode.seed for episode in states.episodes] == list(episode_seeds(FREEWAY, 5, 3))
    assert states.origins == (SourcePolicy("Freeway/toy/seed0", toy.sha256),)

    positions = even_positions([episode.length for episode in states.episodes], 11)
    np.testing.assert_array_equal(states.positions, np.concatenate(positions))
    np.testing.assert_array_equal(states.episode_ids, np.repeat([0, 1, 2], [len(steps) for steps in positions]))
    actions = recorded_actions(states)
    np.testing.assert_array_equal(actions, toy(torch.from_numpy(states.states)).argmax(dim=1).numpy())
    assert len(set(actions.tolist())) > 1
    np.testing.assert_array_equal(states.states, replay_states(FREEWAY, states.episodes, positions, num_envs=3))


def test_states_that_could_not_be_remembered_are_played_again(toy, states, monkeypatch, assert_equal):
    """Neither that nor the number of environments changes the sample."""
    replay = Mock(side_effect=replay_states)
    monkeypatch.setattr(states_module, "replay_states", replay)
    whole = sum(episode.length for episode in states.episodes) * 42 * 42
    for memory_budget, replayed in ((whole, 0), (whole - 1, 1)):
        again = collect_states(toy, num_states=11, episodes=3, run_seed=5, num_envs=3, memory_budget=memory_budget)
        assert_equal(again, states)
        assert replay.call_count == replayed


def test_the_sample_depends_on_the_stream(toy, states):
    other = collect_states(toy, num_states=1, episodes=1, run_seed=5, num_envs=1, stream=VALIDATION_STREAM)
    assert other.episodes[0].seed not in {episode.seed for episode in states.episodes}


def test_a_states_file_gives_back_what_was_saved(states, tmp_path, assert_equal):
    path, again = tmp_path / "folder" / "states.npz", tmp_path / "again.npz"
    for saved in (states, pool_states([synthetic_states(seed=1), synthetic_states(lengths=(3, 5), seed=2)])):
        save_states(path, saved)
        assert_equal(load_states(path), saved)
        save_states(again, load_states(path))
        assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("states", lambda a: a[:, :, :40], r"\[6, 1, 40, 42\]"),
        ("states", lambda a: a[:3], "3 episode ids"),
        ("states", lambda a: a[:0], "N ≥ 1"),
        ("episode_ids", lambda a: a + 1, "episode_ids has a number out of range"),
        ("positions", lambda a: a - 1, "positions has a number out of range"),
        ("episode_actions", lambda a: a[:-1], "episode_actions has 11 entries for 12 steps"),
        ("episode_lengths", lambda a: a * 0, "each of 1 to 12 steps"),
        ("episode_actions", lambda a: a * 0 + 3, "episode_actions has a number out of range"),
        ("episode_seeds", lambda a: a + 2**40, "episode_seeds has a number out of range"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(name, change, message, tmp_path):
    path = tmp_path / "states.npz"
    save_states(path, synthetic_states())
    with np.load(path) as file:
        content = {key: file[key] for key in file.files}
    content[name] = change(content[name])
    np.savez(path, **content)
    with pytest.raises(NrmapError, match=rf"states\.npz.*{message}"):
        load_states(path)


def test_a_pool_keeps_episodes_apart_and_remembers_their_origin(assert_equal):
    first, second = synthetic_states(label="first", seed=1), synthetic_states(lengths=(3, 5), label="second", seed=2)
    pool = pool_states([first, second, first])
    assert [origin.label for origin in pool.origins] == ["first", "second", "first"]
    assert pool.episode_ids.tolist() == np.repeat(np.arange(8), 2).tolist()
    assert pool.episode_origins.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(pool.states, np.concatenate([first.states, second.states, first.states]))
    expected = np.concatenate([recorded_actions(part) for part in (first, second, first)])
    np.testing.assert_array_equal(recorded_actions(pool), expected)
    assert [episode.seed for episode in pool.episodes] == [100, 101, 102, 200, 201, 100, 101, 102]
    assert_equal(pool_states([pool_states([first, second]), first]), pool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"game": "Breakout"}, "states are of Freeway: expected Breakout"),
        ({"height": 50}, "shape"),
        ({"full_action_space": True}, "other actions than the policy's: full_action_space=False instead of True"),
        ({"first_actions": 2}, "other actions than the policy's: first_actions=0 instead of 2"),
        ({"pooling": "rgb"}, "other eyes than the policy's: pooling=grey instead of rgb"),
    ],
)
def test_states_of_another_game_screen_or_action_set_are_refused(changes, message):
    states, other = synthetic_states(), replace(FREEWAY, **changes)
    with pytest.raises(NrmapError, match=message):
        states_module.check_same_game(states, other)
    states_module.check_same_game(states, replace(FREEWAY, max_agent_steps=9, sticky_actions=0.25))
    for parts, why in (([], "no states to pool"), ([synthetic_states(env=other), states], message)):
        with pytest.raises(NrmapError, match=why):
            pool_states(parts)
