"""The replay against a list of whole episodes that never forgets and is read one step at a time."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from episode_streams import Stream
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nrmap.learning.device_replay import DeviceReplay
from nrmap.learning.replay import Replay, ReplaySpec
from nrmap.support.errors import NrmapError

# What an agent step can bring: nothing special, a lost life, the end of the game, the step limit,
# both at once, or no step at all while other environments step (as when a run is resumed).
REPLAYS = {"host": Replay, "device": functools.partial(DeviceReplay, device=torch.device("cpu"))}
both_replays = pytest.mark.parametrize("kind", REPLAYS.values(), ids=REPLAYS)
EVENTS = ("plain", "plain", "plain", "life_loss", "terminated", "truncated", "both", "idle")


@both_replays
@settings(max_examples=120)
@given(
    num_envs=st.integers(1, 3), frame_stack=st.integers(1, 4), n_step=st.integers(1, 5), spare=st.integers(0, 12),
    data=st.data(),
)  # fmt: skip
def test_every_transition_of_any_stream_of_episodes(kind, num_envs, frame_stack, n_step, spare, data):
    smallest = n_step + frame_stack + 1
    stream = Stream(num_envs=num_envs, frame_stack=frame_stack, n_step=n_step, ring=smallest + spare, kind=kind)
    ticks = data.draw(st.lists(st.lists(st.sampled_from(EVENTS), min_size=num_envs, max_size=num_envs), max_size=45))
    for events in ticks:
        stream.step(events)
    weights = stream.replay.priorities.weights
    drawable = stream.drawable()
    # No unfinished, overwritten or fake transition has a weight, and no other lacks one.
    assert sorted(stream.absolute(np.flatnonzero(weights))) == sorted(drawable)
    held = np.minimum(stream.replay.newest + 1, stream.replay.slots).sum()
    assert held == sum(min(slots, smallest + spare) for slots in stream.slots)
    # Even the smallest ring can always be drawn from.
    assert bool(drawable) == any(slots > n_step for slots in stream.slots)
    if not drawable:
        with pytest.raises(ValueError, match="no complete transition"):
            stream.replay.sample(4, importance=1.0, rng=np.random.default_rng(0))
        return
    # Two equal shares fall on each of K equal weights, so 2 K draws meet all of them.
    batch = stream.replay.sample(2 * len(drawable), importance=1.0, rng=np.random.default_rng(0))
    assert set(stream.absolute(batch.indices)) == set(drawable)
    stream.assert_drawn_right(batch)
    assert (batch.weights == 1).all()


def busy_stream(exponent: float, kind=Replay, n_step: int = 3, steps: int = 130) -> Stream:
    """Two environments whose rings have gone round, with many ends of all kinds."""
    stream = Stream(num_envs=2, frame_stack=2, n_step=n_step, ring=40, exponent=exponent, kind=kind)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        stream.step([EVENTS[k] for k in rng.integers(len(EVENTS), size=2)])
    return stream


@both_replays
@pytest.mark.parametrize(("exponent", "importance"), [(0.5, 0.4), (0.7, 1.0), (1.0, 0.0)])
def test_priorities_and_importance_weights_follow_the_paper(exponent, importance, kind):
    stream, rng = busy_stream(exponent, kind), np.random.default_rng(2)
    replay = stream.replay
    largest, priorities = 1.0, dict.fromkeys(stream.drawable(), 1.0)  # new ones have the largest priority so far
    for _ in range(12):
        batch = replay.sample(6, importance=importance, rng=rng)
        errors = rng.normal(size=6).astype(np.float32) * 3
        replay.update_priorities(batch.indices, errors)
        for key, error in zip(stream.absolute(batch.indices), errors, strict=True):
            priorities[key] = abs(float(error)) + 1e-3
            largest = max(largest, priorities[key])
        stream.step(["plain", "truncated"])
        priorities = {key: priorities.get(key, largest) for key in stream.drawable()}
    powered = {key: priority**exponent for key, priority in priorities.items()}
    total = sum(powered.values())
    probabilities = {key: weight / total for key, weight in powered.items()}  # eq. 1 of Schaul et al.
    counts = dict.fromkeys(probabilities, 0)
    for _ in range(300):
        batch = replay.sample(32, importance=importance, rng=rng)
        keys = stream.absolute(batch.indices)
        uncorrected = np.array([(len(probabilities) * probabilities[key]) ** -importance for key in keys])
        assert batch.weights.numpy() == pytest.approx(uncorrected / uncorrected.max(), rel=1e-5)
        for key in keys:
            counts[key] += 1
    observed = np.array([counts[key] for key in probabilities])
    expected = np.array([probabilities[key] for key in probabilities]) * observed.sum()
    # Drawing one from each share varies less than independent draws do: far from the upper tail.
    assert stats.chisquare(observed, expected).pvalue > 0.05


def test_uniform_replay_ignores_errors():
    stream = busy_stream(exponent=0.0)
    batch = stream.replay.sample(16, importance=0.4, rng=np.random.default_rng(0))
    before = stream.replay.priorities.weights
    stream.replay.update_priorities(batch.indices, np.full(16, 9.0, dtype=np.float32))
    np.testing.assert_array_equal(stream.replay.priorities.weights, before)
    assert set(before) == {0.0, 1.0}


@both_replays
def test_priorities_are_brought_back_only_after_the_same_episodes(kind):
    stream, again, shorter = (busy_stream(0.5, kind) for _ in range(3))
    rng = np.random.default_rng(4)
    for _ in range(5):
        batch = stream.replay.sample(8, importance=0.5, rng=rng)
        stream.replay.update_priorities(batch.indices, rng.normal(size=8).astype(np.float32))
    state = stream.replay.get_state()
    again.replay.set_state(state)
    one, two = (each.replay.sample(64, importance=0.5, rng=np.random.default_rng(5)) for each in (stream, again))
    np.testing.assert_array_equal(one.indices, two.indices)
    assert (one.weights == two.weights).all()
    for each in (stream, again, shorter):
        each.step(["plain", "plain"])
    np.testing.assert_array_equal(stream.replay.priorities.weights, again.replay.priorities.weights)
    with pytest.raises(ValueError, match="slots written again"):
        shorter.replay.set_state(state)


@both_replays
@pytest.mark.parametrize("steps", [4, 300])
def test_the_latest_states_go_back_in_time_as_far_as_there_are_whole_ones(steps, kind):
    stream, per_env, spacing = busy_stream(0.0, kind, n_step=1, steps=steps), 5, 12
    states = stream.replay.latest_states(per_env, spacing).reshape(per_env, 2, 2, 1, 3)
    for env, episodes in enumerate(stream.episodes):
        frames = [(episode, step) for episode in episodes for step in range(len(episode.frames))]
        whole = frames[-(stream.replay.slots - 1) :]
        for k in range(per_env):
            episode, step = whole[-1 - min(k * spacing, len(whole) - 1)]
            np.testing.assert_array_equal(states[k, env], episode.stack(step, 2))


def test_n_and_the_discount_are_annealed_by_equal_factors():
    spec = ReplaySpec(1000, 8, 0.96, 0.5, anneal_steps=100, n_step_final=2, discount_final=0.99)
    horizons = [spec.horizon(step) for step in (0, 25, 50, 75, 100, 10**6)]
    assert [n for n, _ in horizons] == [8, 6, 4, 3, 2, 2]  # 5.66 and 2.83 are rounded
    assert [discount for _, discount in horizons] == pytest.approx([1 - 0.04 / 2**k for k in (0, 0.5, 1, 1.5, 2, 2)])
    assert ReplaySpec(1000, 8, 0.96, 0.5).horizon(10**6) == (8, 0.96)
    assert replace(spec, discount_final=0.0).horizon(100) == (2, pytest.approx(0.96))
    assert replace(spec, n_step_final=0).horizon(100) == (8, pytest.approx(0.99))
    with pytest.raises(NrmapError, match="anneal_steps=100: expected 0 where"):
        replace(spec, n_step_final=0, discount_final=0.0)
    with pytest.raises(NrmapError, match="n_step_final=2: expected 0 where anneal_steps is 0"):
        replace(spec, anneal_steps=0)


@both_replays
def test_annealed_returns_are_those_of_the_smaller_n(kind):
    stream, rng = busy_stream(0.0, kind), np.random.default_rng(4)
    drawable = stream.drawable()  # with the first n: a slot is complete from then on
    stream.replay.spec = replace(stream.spec, anneal_steps=10, n_step_final=1)
    stream.spec, stream.drawable = replace(stream.spec, n_step=1), lambda: drawable
    stream.assert_drawn_right(stream.replay.sample(64, importance=1.0, rng=rng, agent_step=10))


def test_both_replays_draw_the_same_batches_from_the_same_numbers():
    batches = []
    for kind in REPLAYS.values():
        stream, rng = busy_stream(0.6, kind), np.random.default_rng(6)
        for _ in range(50):
            batch = stream.replay.sample(16, importance=0.5, rng=rng)
            stream.replay.update_priorities(batch.indices, np.random.default_rng(7).gamma(1.0, size=16))
        batches.append(batch)
    host, device = batches
    np.testing.assert_array_equal(host.indices, device.indices)
    for name in ("s_tm1", "a_tm1", "r_t", "discount_t", "s_t", "weights"):
        torch.testing.assert_close(getattr(device, name), getattr(host, name), rtol=1e-6, atol=1e-7)
