"""Atari games as seeded episodes that can be replayed from their seed and actions.

ale-py's vector environment hides the seeds of its own resets and cannot save an emulator. Here
each episode starts from a seed computed from (run seed, stream, environment, episode), so that a
finished episode can be replayed and a running one restored from its seed and actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nrmap.atari.games import rom_id
from nrmap.support.errors import check, check_fields

# Streams separate training, evaluation and validation episodes of the same run seed.
TRAINING_STREAM, EVALUATION_STREAM, VALIDATION_STREAM = 0, 1, 2


@dataclass(frozen=True)
class EnvSpec:
    """A game and its preprocessing; stored with every policy trained on it.

    One agent step repeats an action for `frame_skip` frames. A state consists of the last
    `frame_stack` grey screens, max-pooled over two frames and resized to height × width, uint8 in
    [0, 255]. An episode starts with fewer than `noop_max` no-ops (none for 0 or 1).
    `sticky_actions` is the probability that the emulator repeats the previous action. Raises
    NrmapError for unknown games and values out of range.
    """

    game: str
    height: int
    width: int
    frame_stack: int = 1
    frame_skip: int = 4
    sticky_actions: float = 0.0
    noop_max: int = 30
    max_agent_steps: int = 27_000
    full_action_space: bool = False

    def __post_init__(self) -> None:
        rom_id(self.game)
        check(self.height > 0 and self.width > 0, f"screen {self.height}×{self.width}: expected sides > 0")
        check_fields(self, 1, "frame_stack", "frame_skip", "max_agent_steps")
        check_fields(self, 0, "noop_max")
        check(0 <= self.sticky_actions < 1, f"sticky_actions={self.sticky_actions}: expected 0 ≤ p < 1")

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """The shape (frame_stack, height, width) of one state."""
        return self.frame_stack, self.height, self.width


@dataclass(frozen=True)
class Transition:
    """Result of one agent step in each of E environments.

    `terminated`: the game is over. `truncated`: the step limit ended the episode.
    """

    states: NDArray[np.uint8]  # [E, C, H, W], the states after the step
    rewards: NDArray[np.float32]  # [E], unclipped
    terminated: NDArray[np.bool_]  # [E]
    truncated: NDArray[np.bool_]  # [E]
    lives: NDArray[np.int32]  # [E], 0 in games without lives

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Bool [E]: True if the episode is terminated or truncated."""
        return self.terminated | self.truncated


def episode_seed(run_seed: int, stream: int, env: int, episode: int) -> int:
    """The emulator seed of one episode of one environment, in [0, 2^31)."""
    words = np.random.SeedSequence([run_seed, stream, env, episode]).generate_state(1)
    return int(words[0] >> 1)


class SeededVectorEnv:
    """E copies of a game; `begin` starts episodes explicitly, each from a given seed.

    First call `begin` for every environment, then alternate `send` and `recv`, or call `step`.
    After the end of an episode call `begin` for its environment before the next `send`.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, num_threads: int = 0, *, colour: bool = False) -> None:
        """`num_threads`: emulator threads, 0 for one per core. `colour`: RGB states [E, C, H, W, 3]."""
        from ale_py.vector_env import AtariVectorEnv

        self.spec = spec
        self.num_envs = num_envs
        self._env = AtariVectorEnv(
            rom_id(spec.game),
            num_envs,
            num_threads=num_threads,
            img_height=spec.height,
            img_width=spec.width,
            stack_num=spec.frame_stack,
            grayscale=not colour,
            frameskip=spec.frame_skip,
            noop_max=spec.noop_max,
            # In frames; the no-ops before the episode do not count.
            max_num_frames_per_episode=spec.max_agent_steps * spec.frame_skip,
            repeat_action_probability=spec.sticky_actions,
            full_action_space=spec.full_action_space,
            reward_clipping=False,
            episodic_life=False,
        )
        self._begun = False
        self._running = np.zeros(num_envs, dtype=bool)
        self.no_op_frames: NDArray[np.int32] = np.zeros(num_envs, dtype=np.int32)  # [E], of the current episodes

    @property
    def num_actions(self) -> int:
        """A, the number of actions."""
        return len(self.action_names)

    @property
    def action_names(self) -> tuple[str, ...]:
        """The names of the A actions, in order."""
        return tuple(action.name for action in self._env.ale.get_action_set())

    def begin(self, mask: NDArray[np.bool_], seeds: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Start an episode with `seeds[e]` in each environment e of `mask` [E]; the others continue.

        Returns the states [E, C, H, W] and lives [E] of all environments.
        """
        seeds_array = np.asarray(seeds, dtype=np.int32)
        if not self._begun and not np.all(mask):
            # ale-py requires a full reset before a partial one.
            self._env.reset(seed=np.zeros(self.num_envs, dtype=np.int32))
        self._begun = True
        states, info = self._env.reset(seed=seeds_array, options={"reset_mask": np.asarray(mask, dtype=bool)})
        self._running |= mask
        self.no_op_frames[mask] = info["episode_frame_number"][mask]
        return states, info["lives"]

    def send(self, actions: NDArray[np.integer]) -> None:
        """Begin one agent step with `actions` [E] and return immediately."""
        assert self._running.all(), "an episode has ended: call begin before send"
        self._env.send(np.ascontiguousarray(actions, dtype=np.int64))

    def recv(self) -> Transition:
        """Wait for the step begun by `send`."""
        states, rewards, terminated, truncated, info = self._env.recv()
        self._running = ~(terminated | truncated)
        return Transition(states, rewards.astype(np.float32), terminated, truncated, info["lives"])

    def step(self, actions: NDArray[np.integer]) -> Transition:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()
