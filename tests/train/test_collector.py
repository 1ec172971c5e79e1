"""The collector's transitions in the replay, against emulators played by hand one after the other."""

from dataclasses import replace

import numpy as np
import pytest

from nrmap.atari.envs import TRAINING_STREAM, EnvSpec, SeededVectorEnv, episode_seed
from nrmap.learning.replay import Replay, ReplaySpec
from nrmap.support.errors import NrmapError
from train.collector import Collector

# A random player's game is over after 150 to 300 steps, so some end by themselves and some at the limit.
SPEC = EnvSpec("Breakout", 36, 36, max_agent_steps=200)
# Here lives are lost and rewards are 20 and more.
PHOENIX = EnvSpec("Phoenix", 36, 36, max_agent_steps=100)
NUM_ENVS, SEED = 2, 5


def make_collector(
    spec: EnvSpec = SPEC, *, capacity: int = 900, n_step: int = 1, clip_rewards: bool = True, life_loss: bool = True
) -> Collector:
    replay = Replay(ReplaySpec(capacity, n_step, 0.9, 0.0), num_envs=NUM_ENVS, state_shape=spec.state_shape)
    return Collector(
        env_spec=spec,
        num_envs=NUM_ENVS,
        seed=SEED,
        replay=replay,
        clip_rewards=clip_rewards,
        life_loss_ends_return=life_loss,
    )


def actions_at(tick: int, num_actions: int) -> np.ndarray:
    return np.random.default_rng([7, tick]).integers(num_actions, size=NUM_ENVS)


def collect(collector: Collector, ticks: int, *, first: int = 0) -> list:
    finished = []
    for tick in range(first, first + ticks):
        collector.send(actions_at(tick, collector.num_actions))
        finished += collector.receive()
    return finished


def played_by_hand(spec: EnvSpec, env: int, ticks: int) -> list[dict]:
    """The episodes of one environment, one after the other in a lone emulator: seeds derived, actions those sent."""
    emulator = SeededVectorEnv(spec, 1)
    episodes: list[dict] = []
    tick = 0
    while tick < ticks:
        seed = episode_seed(SEED, TRAINING_STREAM, env, len(episodes))
        states, lives = emulator.begin(np.ones(1, dtype=bool), [seed])
        episode = {"states": [states[0].copy()], "lives": [int(lives[0])], "actions": [], "rewards": []}
        episode.update(terminated=False, truncated=False)
        episodes.append(episode)
        while tick < ticks and not (episode["terminated"] or episode["truncated"]):
            action = actions_at(tick, emulator.num_actions)[env]
            step = emulator.step(np.array([action]))
            episode["actions"].append(int(action))
            episode["rewards"].append(float(step.rewards[0]))
            episode["states"].append(step.states[0].copy())
            episode["lives"].append(int(step.lives[0]))
            episode.update(terminated=bool(step.terminated[0]), truncated=bool(step.truncated[0]))
            tick += 1
    return episodes


@pytest.mark.parametrize(
    ("spec", "ticks", "clip_rewards", "life_loss", "meets"),
    [
        (SPEC, 420, False, False, {"game over", "truncation"}),
        (replace(PHOENIX, frame_stack=3), 220, True, True, {"lost life", "truncation", "large reward"}),
        (PHOENIX, 60, False, False, {"large reward"}),
    ],
)
def test_the_replay_holds_the_episodes_and_nothing_else(spec, ticks, clip_rewards, life_loss, meets):
    collector = make_collector(spec, clip_rewards=clip_rewards, life_loss=life_loss)
    collector.begin()
    finished = collect(collector, ticks)

    expected: dict[tuple[int, int], tuple] = {}
    ended, met = [], set()
    for env in range(NUM_ENVS):
        slot = 0
        episodes = played_by_hand(spec, env, ticks)
        for episode in episodes:
            for k, action in enumerate(episode["actions"]):
                last = k == len(episode["actions"]) - 1
                lost = episode["lives"][k + 1] < episode["lives"][k]
                met |= {"lost life"} if lost else set()
                met |= {"large reward"} if abs(episode["rewards"][k]) > 1 else set()
                over = (episode["terminated"] and last) or (life_loss and lost)
                reward = np.sign(episode["rewards"][k]) if clip_rewards else episode["rewards"][k]
                transition = (episode["states"][k], action, reward, 0.0 if over else 0.9, episode["states"][k + 1])
                expected[env, slot] = transition
                slot += 1
            slot += 1  # the last frame has a slot and no action
            met |= {name for name, key in (("game over", "terminated"), ("truncation", "truncated")) if episode[key]}
            if episode["terminated"] or episode["truncated"]:
                ended.append((env, sum(episode["rewards"]), len(episode["actions"])))
    assert meets <= met
    assert sorted((end.env, end.undiscounted_return, end.length) for end in finished) == sorted(ended)

    replay = collector.replay
    assert replay.newest.max() < replay.slots  # nothing is overwritten here, so slots are absolute
    batch = replay.sample(2 * len(expected), importance=1.0, rng=np.random.default_rng(0))
    drawn = [(int(i) // replay.slots, int(i) % replay.slots) for i in batch.indices]
    assert set(drawn) == set(expected)
    for b, key in enumerate(drawn):
        state, action, reward, discount, next_state = expected[key]
        np.testing.assert_array_equal(batch.s_tm1[b].numpy(), state)
        np.testing.assert_array_equal(batch.s_t[b].numpy(), next_state)
        assert int(batch.a_tm1[b]) == action
        assert float(batch.r_t[b]) == pytest.approx(reward)
        assert float(batch.discount_t[b]) == pytest.approx(discount)


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


def played_state() -> dict:
    """The state of a collector after some episodes of 30 steps."""
    collector = make_collector(SHORT)
    collector.begin()
    collect(collector, 70)
    return collector.get_state()


SHORT = replace(SPEC, max_agent_steps=30)


# The emulator ends an episode too early, does not end it where it did, or shows other frames.
@pytest.mark.parametrize("change", [{"max_agent_steps": 29}, {"max_agent_steps": 31}, {"sticky_actions": 0.9}])
def test_an_emulator_that_plays_otherwise_is_noticed(change):
    with pytest.raises(
        NrmapError, match=r"^cannot resume: episode 0 of environment 0 is another one when played again"
    ):
        make_collector(replace(SHORT, **change)).set_state(played_state())


@pytest.mark.parametrize("what", ["frame", "reward", "lives"])
def test_one_pixel_one_reward_and_one_life_are_noticed(what, monkeypatch):
    state, steps = played_state(), 0
    recv = SeededVectorEnv.recv

    def recv_otherwise(self):
        nonlocal steps
        step, steps = recv(self), steps + 1
        if steps == 65:
            {"frame": step.states[1, 0, 3], "reward": step.rewards[1:], "lives": step.lives[1:]}[what][0] += 1
        return step

    monkeypatch.setattr(SeededVectorEnv, "recv", recv_otherwise)
    with pytest.raises(NrmapError, match=r"^cannot resume: episode 2 of environment 1 is another"):
        make_collector(SHORT).set_state(state)
    assert steps == 70
