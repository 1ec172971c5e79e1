"""The states that maps are made of: sampled from whole episodes, pooled over policies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nrmap.atari.envs import EVALUATION_STREAM, EnvSpec
from nrmap.atari.episode_seeds import episode_seeds
from nrmap.play.rollout import (
    ActionFn,
    Episode,
    Progress,
    env_of,
    even_positions,
    greedy,
    play,
    replay_states,
)
from nrmap.policies.agent import Agent, check_states
from nrmap.support.errors import check

# Of the states of running episodes: 76,000 of a single frame, more than 16 whole episodes of most games.
DEFAULT_MEMORY_BUDGET = 512 * 2**20


@dataclass(frozen=True)
class SourcePolicy:
    """The policy that played an episode."""

    label: str
    policy_sha256: str | None


@dataclass(frozen=True)
class RolloutStates:
    """N states out of E whole episodes, in order of episode and then of time.

    State n was seen by `origins[episode_origins[episode_ids[n]]]` at step `positions[n]` of
    episode `episode_ids[n]`, an index into `episodes`.
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

    @property
    def actions(self) -> NDArray[np.int64]:
        """[N], the greedy action that the state's own policy took there."""
        pairs = zip(self.episode_ids, self.positions, strict=True)
        return np.array([self.episodes[episode].actions[step] for episode, step in pairs], dtype=np.int64)

    @property
    def origin_ids(self) -> NDArray[np.int64]:
        """[N], which of `origins` saw each state."""
        return self.episode_origins[self.episode_ids]


def _check_indices(name: str, indices: NDArray[np.int64], size: int | NDArray[np.int64]) -> None:
    check(bool(((indices >= 0) & (indices < size)).all()), f"{name} holds a number out of range")


def collect_states(
    policy: Agent,
    *,
    num_states: int,
    episodes: int,
    run_seed: int,
    num_envs: int = 8,
    stream: int = EVALUATION_STREAM,
    device: str | torch.device = "cpu",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    progress: Progress | None = None,
) -> RolloutStates:
    """`num_states` states of the greedy policy, spread evenly over `episodes` whole episodes.

    Which states those are is known when all episodes have ended. Until then all are kept, if they
    take no more than `memory_budget` bytes; else the recorded episodes are played again. Raises
    NrmapError when the policy does not fit its environment or the episodes cannot give that many
    states.
    """
    env = env_of(policy)
    check(num_states >= episodes, f"num_states={num_states}: expected at least one for each of {episodes} episodes")
    seeds = episode_seeds(env, run_seed, episodes, stream)
    player = StateRecorder(greedy(policy, device), memory_budget)
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
    """Plays as `act` does and remembers what it saw, as long as that fits into `memory_budget` bytes."""

    def __init__(self, act: ActionFn, memory_budget: int) -> None:
        self._act = act
        self._left = memory_budget
        self._seen: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def __call__(
        self, states: NDArray[np.uint8], episodes: NDArray[np.int64], steps: NDArray[np.int64]
    ) -> NDArray[np.integer]:
        """See `ActionFn`."""
        self._left -= states.nbytes
        if self._left < 0:
            self._seen.clear()
        else:
            keys = zip(episodes.tolist(), steps.tolist(), strict=True)
            self._seen.update(zip(keys, states.copy(), strict=True))
        return self._act(states, episodes, steps)

    def states(self, positions: Sequence[NDArray[np.int64]]) -> NDArray[np.uint8] | None:
        """Those at `positions[e]` of each episode e, [N, C, H, W]; None if there were too many to remember."""
        if self._left < 0:
            return None
        return np.stack([self._seen[e, step] for e, steps in enumerate(positions) for step in steps.tolist()])


def check_same_game(states: RolloutStates, env: EnvSpec) -> None:
    """NrmapError unless the states can be shown to a policy of `env`: same game, screen, stack and actions."""
    ours, theirs = states.env, env
    check(ours.game == theirs.game, f"the states are of {ours.game}: expected {theirs.game}")
    check(
        ours.state_shape == theirs.state_shape,
        f"the states have shape {ours.state_shape}: the policy for {theirs.game} takes {theirs.state_shape}",
    )
    check(ours.full_action_space == theirs.full_action_space, "the states are of another action set than the policy's")


def pool_states(parts: Sequence[RolloutStates]) -> RolloutStates:
    """All episodes and states of `parts`, one part after the other; every episode keeps its origin.

    Episodes are numbered anew, so that two parts' episodes 0 are different ones. Raises
    NrmapError without parts, or when they are of different games, screens or action sets.
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
