"""The collector's transitions in the replay, against emulators played by hand one after the other."""

import copy
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from conftest import TINY

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.atari.episode_seeds import TRAINING_STREAM, episode_seed
from nrmap.learning.device_replay import DeviceReplay
from nrmap.learning.replay import Replay, ReplaySpec
from nrmap.support.errors import NrmapError
from train.collector import Collector

# A random player's game is over after 150 to 300 steps, so some end by themselves and some at the limit.
SPEC = EnvSpec("Breakout", 36, 36, max_agent_steps=200)
# Here lives are lost and rewards are 20 and more.
PHOENIX = EnvSpec("Phoenix", 36, 36, max_agent_steps=100)
NUM_ENVS, SEED = 2, 5


def make_collector(spec: EnvSpec, *, kind=Replay, capacity: int = 900, **settings: bool) -> Collector:
    of_stack = {name: getattr(spec, name) for name in ("state_shape", "newest_first", "stack_fill")}
    replay = kind(ReplaySpec(capacity, 1, 0.9, 0.0), num_envs=NUM_ENVS, **of_stack)
    return Collector(replace(TINY, env=spec, num_envs=NUM_ENVS, seed=SEED, **settings), replay)


def actions_at(tick: int, num_actions: int) -> np.ndarray:
    return np.random.default_rng([7, tick]).integers(num_actions, size=NUM_ENVS)


def collect(collector: Collector, ticks: int, *, first: int = 0) -> list:
    finished = []
    for tick in range(first, first + ticks):
        collector.send(actions_at(tick, collector.num_actions))
        finished += collector.receive()
    return finished


@cache
def played_by_hand(spec: EnvSpec, env: int, ticks: int) -> list[dict]:
    """The episodes of one environment, one after the other in a lone emulator: seeds derived, actions those sent."""
    emulator = SeededVectorEnv(spec, 1)
    episodes: list[dict] = []
    tick = 0
    while tick < ticks:
        seed = episode_seed(SEED, TRAINING_STREAM, env, len(episodes))
        states, lives = emulator.begin(np.ones(1, dtype=bool), [seed])
        episode = {"states": [states[0].copy()], "lives": [lives[0].copy()], "terminated": False, "truncated": False}
        episode |= {"actions": [], "rewards": [], "restarted": []}
        episodes.append(episode)
        while tick < ticks and not (episode["terminated"] or episode["truncated"]):
            action = actions_at(tick, emulator.num_actions)[env]
            step = emulator.step(np.array([action]))
            episode["actions"].append(int(action))
            for name in ("states", "rewards", "lives", "restarted"):
                episode[name].append(getattr(step, name)[0].copy())
            episode.update(terminated=bool(step.terminated[0]), truncated=bool(step.truncated[0]))
            tick += 1
    return episodes


UNCLIPPED = {"clip_rewards": False, "life_loss_ends_return": False}
OTHER_EYES = {"stack_fill": "first_frame", "newest_first": True, "fire_reset": "step", "life_loss": "restarts"}
STACKED = replace(SPEC, frame_stack=4, max_agent_steps=60)
CASES = [
    (SPEC, 420, UNCLIPPED, {"game over", "truncation"}),
    (replace(PHOENIX, frame_stack=3), 220, {}, {"lost life", "truncation", "large reward"}),
    (PHOENIX, 60, UNCLIPPED, {"large reward"}),
    # Here the rings have gone round.
    *(
        pytest.param(replace(STACKED, **eyes), 90, {**UNCLIPPED, "kind": kind, "capacity": 2 * 50}, met, marks=marks)
        for kind in (Replay, partial(DeviceReplay, device=torch.device("cpu")))
        for eyes, met, marks in (
            ({"noop_max": 0}, set(), pytest.mark.slow),
            ({"noop_max": 30}, set(), ()),
            (OTHER_EYES, {"restart"}, ()),
        )
    ),
]


@pytest.mark.parametrize(("spec", "ticks", "options", "meets"), CASES)
def test_the_replay_holds_the_latest_of_the_episodes_and_nothing_else(spec, ticks, options, meets):
    collector = make_collector(spec, **options)
    collector.begin()
    finished, replay = collect(collector, ticks), collector.replay

    expected: dict[tuple[int, int], tuple] = {}
    ended, met = [], set()
    for env in range(NUM_ENVS):
        slot = 0
        for episode in played_by_hand(spec, env, ticks):
            for k, (action, reward) in enumerate(zip(episode["actions"], episode["rewards"], strict=True)):
                last = k == len(episode["actions"]) - 1
                lost = episode["lives"][k + 1] < episode["lives"][k]
                met |= {name for name, there in (("lost life", lost), ("large reward", abs(reward) > 1)) if there}
                over = (episode["terminated"] and last) or (options.get("life_loss_ends_return", True) and lost)
                reward = np.sign(reward) if options.get("clip_rewards", True) else reward
                transition = (episode["states"][k], action, reward, 0.0 if over else 0.9, episode["states"][k + 1])
                if slot - (spec.frame_stack - 1) > replay.newest[env] - replay.slots:
                    expected[env, slot] = transition
                slot += 1
            slot += 1  # the last frame has a slot and no action
            met |= {name for name, key in (("game over", "terminated"), ("truncation", "truncated")) if episode[key]}
            met |= {"restart"} if any(episode["restarted"]) else set()
            if episode["terminated"] or episode["truncated"]:
                ended.append((env, sum(episode["rewards"]), len(episode["actions"])))
    assert meets <= met
    assert sorted((end.env, end.undiscounted_return, end.length) for end in finished) == sorted(ended)

    batch = replay.sample(2 * len(expected), importance=1.0, rng=np.random.default_rng(0))
    drawn = [divmod(int(index), replay.slots) for index in batch.indices]
    drawn = [(env, int(replay.newest[env] - (replay.newest[env] - slot) % replay.slots)) for env, slot in drawn]
    assert set(drawn) == set(expected)
    for b, key in enumerate(drawn):
        state, action, reward, discount, next_state = expected[key]
        np.testing.assert_array_equal(batch.s_tm1[b].numpy(), state)
        np.testing.assert_array_equal(batch.s_t[b].numpy(), next_state)
        found = [float(values[b]) for values in (batch.a_tm1, batch.r_t, batch.discount_t)]
        assert found == pytest.approx([action, reward, discount])


def test_the_log_forgets_an_episode_once_the_replay_has_overwritten_it():
    # Episodes of 71 slots: when the third begins, 3 slots of the first are still there.
    collector = make_collector(replace(SPEC, max_agent_steps=70), capacity=74 * NUM_ENVS)
    collector.begin()
    forgotten = 0
    for tick in range(215):
        collect(collector, 1, first=tick)
        episodes = collector.get_state()["episodes"]
        for env in range(NUM_ENVS):
            firsts = [episode["first_slot"] for episode in episodes if episode["env"] == env]
            newest = int(collector.replay.newest[env])
            oldest_kept = max(newest - collector.replay.slots + 1, 0)
            assert firsts[0] <= oldest_kept
            # When the last episode began, the second one was still needed.
            assert len(firsts) == 1 or firsts[1] > firsts[-1] - collector.replay.slots
            forgotten += firsts[0] > 0
    assert forgotten > 0


SHORT = replace(SPEC, max_agent_steps=30)
NEWEST_FIRST = replace(SHORT, frame_stack=2, newest_first=True)


@cache
def played_state(spec) -> dict:
    """The state of a collector after some episodes of 30 steps."""
    collector = make_collector(spec)
    collector.begin()
    collect(collector, 40)
    return collector.get_state()


# The emulator ends an episode too early, does not end it where it did, or shows other frames.
@pytest.mark.parametrize("change", [{"max_agent_steps": 29}, {"max_agent_steps": 31}, {"sticky_actions": 0.9}])
def test_an_emulator_that_plays_otherwise_is_noticed(change):
    with pytest.raises(NrmapError, match=r"^cannot resume: episode 0 of environment 0 is another one"):
        make_collector(replace(SHORT, **change)).set_state(copy.deepcopy(played_state(SHORT)))


@pytest.mark.parametrize(
    ("what", "spec"), [("frame", SHORT), ("frame", NEWEST_FIRST), ("reward", SHORT), ("lives", SHORT)]
)
def test_one_pixel_one_reward_and_one_life_are_noticed(what, spec, monkeypatch):
    state, steps = copy.deepcopy(played_state(spec)), 0
    recv = SeededVectorEnv.recv

    def recv_otherwise(self):
        nonlocal steps
        step, steps = recv(self), steps + 1
        if steps == 35:
            {"frame": step.states[1, 0, 3], "reward": step.rewards[1:], "lives": step.lives[1:]}[what][0] += 1
        return step

    monkeypatch.setattr(SeededVectorEnv, "recv", recv_otherwise)
    with pytest.raises(NrmapError, match=r"^cannot resume: episode 1 of environment 1 is another"):
        make_collector(spec).set_state(state)
    assert steps == 40
