"""Sample states from whole episodes, pool them over policies, save and load them.

A states file (.npz without pickles) holds the sample, and the seeds and actions of its episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nrmap.atari.env_spec import PIXEL_FIELDS, EnvSpec
from nrmap.atari.envs import action_names
from nrmap.atari.episode_seeds import EPISODE_SEEDS, EVALUATION_STREAM, episode_seeds
from nrmap.play.rollout import Episode, ProgressFn, env_of, even_positions, greedy, no_report, play, replay_states
from nrmap.policies.agent import Agent, check_states
from nrmap.support.errors import check, named
from nrmap.support.files import ArrayForms, read_npz, write_npz
from nrmap.support.identity import recorded
from nrmap.support.schema import Word, schema, validated

# 76,000 states of a single frame, more than 16 whole episodes of most games.
DEFAULT_MEMORY_BUDGET = 512 * 2**20

FORMAT_VERSION: Literal[1] = 1
HEADER_KEY = "nrmap_states"

# Arrays of a states file: type and number of dimensions. Actions and rewards of all E episodes are
# concatenated; `episode_lengths` gives their lengths.
ARRAYS: ArrayForms = {
    "states": (np.uint8, (4,)),
    "episode_ids": (np.int64, (1,)),
    "positions": (np.int64, (1,)),
    "episode_origins": (np.int64, (1,)),
    "episode_seeds": (np.int64, (1,)),
    "episode_lengths": (np.int64, (1,)),
    "episode_terminated": (np.bool_, (1,)),
    "episode_truncated": (np.bool_, (1,)),
    "episode_actions": (np.uint8, (1,)),
    "episode_rewards": (np.float32, (1,)),
}
# Those that are fields of `RolloutStates`.
SAMPLE = ("states", "episode_ids", "positions", "episode_origins")


@schema
class SourcePolicy:
    """The policy that played an episode; `policy_sha256` is None for an agent without a hash."""

    label: Word
    policy_sha256: str | None


@dataclass(frozen=True)
class RolloutStates:
    """N states from E whole episodes, in order of episode, then time.

    State n is step `positions[n]` of `episodes[e]` with e = `episode_ids[n]`, played by the policy
    `origins[episode_origins[e]]`. Raises NrmapError for arrays that contradict each other.
    """

    env: EnvSpec
    origins: tuple[SourcePolicy, ...]
    episodes: tuple[Episode, ...]  # E of them
    episode_origins: NDArray[np.int64]  # [E], indices into `origins`
    states: NDArray[np.uint8]  # [N, C, H, W]
    episode_ids: NDArray[np.int64]  # [N]
    positions: NDArray[np.int64]  # [N], in agent steps

    def __post_init__(self) -> None:
        check_states(torch.from_numpy(self.states), self.env.state_shape)
        count = len(self.states)
        check(len(self.episode_ids) == len(self.positions) == count, f"expected {count} episode ids and positions")
        check(len(self.episode_origins) == len(self.episodes), "expected one origin for each episode")
        _check_indices("episode_origins", self.episode_origins, len(self.origins))
        _check_indices("episode_ids", self.episode_ids, len(self.episodes))
        lengths = np.array([episode.length for episode in self.episodes])
        _check_indices("positions", self.positions, lengths[self.episode_ids])
        actions = np.concatenate([episode.actions for episode in self.episodes])
        _check_indices("episode_actions", actions, len(action_names(self.env)))
        _check_indices("episode_seeds", np.array([episode.seed for episode in self.episodes]), EPISODE_SEEDS)


def _check_indices(name: str, indices: NDArray[np.integer], size: int | NDArray[np.int64]) -> None:
    check(bool(((indices >= 0) & (indices < size)).all()), f"{name} has a number out of range")


def collect_states(
    policy: Agent,
    *,
    num_states: int,
    episodes: int,
    run_seed: int,
    num_envs: int = 8,
    stream: int = EVALUATION_STREAM,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    progress: ProgressFn = no_report,
) -> RolloutStates:
    """Collect `num_states` states of the greedy policy, spread evenly over `episodes` whole episodes.

    The positions are known only after all episodes have ended. All states are kept until then if they fit into
    `memory_budget` bytes; otherwise the episodes are replayed. Raises NrmapError as `env_of` and `play` do, for fewer
    states than episodes, and for episodes that are too short. Raises NrmapError unless `episodes` ≥ 1 and `run_seed` ≥
    0.
    """
    env = env_of(policy)
    check(num_states >= episodes, f"num_states={num_states}: expected at least one for each of {episodes} episodes")
    seeds = episode_seeds(env, run_seed, episodes, stream)
    player = StateRecorder(policy, memory_budget)
    played = play(player, env, seeds, num_envs=num_envs, progress=progress)
    positions = even_positions([episode.length for episode in played], num_states)
    states = player.states(positions)
    if states is None:
        states = replay_states(env, played, positions, num_envs=num_envs)
    return RolloutStates(
        env=env,
        origins=(SourcePolicy(policy.label, policy.sha256),),
        episodes=played,
        episode_origins=np.zeros(episodes, dtype=np.int64),
        states=states,
        episode_ids=np.repeat(np.arange(episodes), [len(steps) for steps in positions]),
        positions=np.concatenate(positions),
    )


class StateRecorder:
    """The greedy player of `policy`, which keeps all states seen.

    Once they do not fit into `memory_budget` bytes, it drops them all.
    """

    def __init__(self, policy: Agent, memory_budget: int) -> None:
        self._act = greedy(policy)
        self._left = memory_budget
        self._seen: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def __call__(
        self, states: NDArray[np.uint8], episodes: NDArray[np.int64], steps: NDArray[np.int64]
    ) -> NDArray[np.integer]:
        """Choose the greedy actions, and keep the states; see `ActionFn`."""
        self._left -= states.nbytes
        if self._left < 0:
            self._seen.clear()
        else:
            keys = zip(episodes.tolist(), steps.tolist(), strict=True)
            self._seen.update(zip(keys, states.copy(), strict=True))
        return self._act(states, episodes, steps)

    def states(self, positions: Sequence[NDArray[np.int64]]) -> NDArray[np.uint8] | None:
        """Return the states [N, C, H, W] at `positions[e]` of each episode e; None if the budget was too small."""
        if self._left < 0:
            return None
        return np.stack([self._seen[e, step] for e, steps in enumerate(positions) for step in steps.tolist()])


def check_same_game(states: RolloutStates, env: EnvSpec) -> None:
    """Raise NrmapError unless `states` and `env` have the same game, state shape, actions and preprocessing."""
    ours, theirs = states.env, env
    check(ours.game == theirs.game, f"the states are of {ours.game}: expected {theirs.game}")
    check(
        ours.state_shape == theirs.state_shape,
        f"the states have shape {ours.state_shape}: the policy for {theirs.game} takes {theirs.state_shape}",
    )
    for names, what in ((("full_action_space", "first_actions"), "actions"), (PIXEL_FIELDS, "eyes")):
        pairs = [(name, getattr(ours, name), getattr(theirs, name)) for name in names]
        other = ", ".join(f"{name}={one} instead of {two}" for name, one, two in pairs if one != two)
        check(not other, f"the states were played with other {what} than the policy's: {other}")


def pool_states(parts: Sequence[RolloutStates]) -> RolloutStates:
    """Concatenate the episodes and states of `parts`; every episode keeps its origin.

    Episodes are renumbered, so episodes 0 of two parts stay separate. Raises NrmapError without
    parts and for parts of different games, state shapes, action sets or preprocessing.
    """
    check(len(parts) >= 1, "no states to pool: expected at least one file")
    first = parts[0]
    for part in parts[1:]:
        check_same_game(part, first.env)
    episodes_before = np.cumsum([0] + [len(part.episodes) for part in parts])
    origins_before = np.cumsum([0] + [len(part.origins) for part in parts])
    return RolloutStates(
        env=first.env,
        origins=tuple(origin for part in parts for origin in part.origins),
        episodes=tuple(episode for part in parts for episode in part.episodes),
        episode_origins=np.concatenate([origins_before[i] + part.episode_origins for i, part in enumerate(parts)]),
        states=np.concatenate([part.states for part in parts]),
        episode_ids=np.concatenate([episodes_before[i] + part.episode_ids for i, part in enumerate(parts)]),
        positions=np.concatenate([part.positions for part in parts]),
    )


def save_states(path: Path, states: RolloutStates) -> None:
    """Write `states` to `path` atomically; equal states give equal bytes.

    Raises NrmapError if the arrays take more than 4 GiB, or if `path` cannot be written.
    """
    episodes = states.episodes
    arrays = {
        **{name: getattr(states, name) for name in SAMPLE},
        "episode_seeds": [episode.seed for episode in episodes],
        "episode_lengths": [episode.length for episode in episodes],
        "episode_terminated": [episode.terminated for episode in episodes],
        "episode_truncated": [episode.truncated for episode in episodes],
        "episode_actions": np.concatenate([episode.actions for episode in episodes]),
        "episode_rewards": np.concatenate([episode.rewards for episode in episodes]),
    }
    metadata = recorded(_Header(FORMAT_VERSION, states.env, states.origins))
    typed: dict[str, Any] = {name: np.asarray(arrays[name], dtype=dtype) for name, (dtype, _) in ARRAYS.items()}
    write_npz(path, HEADER_KEY, metadata, typed)


def load_states(path: Path) -> RolloutStates:
    """Load the states file `path`.

    Raises NrmapError if the file is missing, damaged or of another format, and if an array is missing, has another type
    or shape, contradicts another, or holds a number out of range, such as an action that the game lacks.
    """
    header, content = read_npz(
        path, HEADER_KEY, "states", read_header=partial(validated, _Header), forms=lambda header: ARRAYS
    )
    with named(f"{path}: "):
        sample = {name: content[name] for name in SAMPLE}
        return RolloutStates(env=header.env, origins=header.origins, episodes=_episodes_of(content), **sample)


@schema
class _Header:
    """The JSON header of a states file."""

    format: Literal[1]
    env: EnvSpec
    origins: tuple[SourcePolicy, ...]


def _episodes_of(content: dict[str, NDArray[Any]]) -> tuple[Episode, ...]:
    lengths = content["episode_lengths"]
    longest = len(content["episode_actions"])
    fits = len(lengths) >= 1 and bool(((lengths >= 1) & (lengths <= longest)).all())
    check(fits, f"expected at least one episode, each of 1 to {longest} steps")
    for name in ("episode_seeds", "episode_terminated", "episode_truncated"):
        check(
            len(content[name]) == len(lengths), f"{name} has {len(content[name])} entries for {len(lengths)} episodes"
        )
    for name in ("episode_actions", "episode_rewards"):
        check(len(content[name]) == lengths.sum(), f"{name} has {len(content[name])} entries for {lengths.sum()} steps")
    cuts = np.cumsum(lengths)[:-1]
    return tuple(
        Episode(int(seed), actions, rewards, bool(terminated), bool(truncated))
        for seed, actions, rewards, terminated, truncated in zip(
            content["episode_seeds"],
            np.split(content["episode_actions"], cuts),
            np.split(content["episode_rewards"], cuts),
            content["episode_terminated"],
            content["episode_truncated"],
            strict=True,
        )
    )
