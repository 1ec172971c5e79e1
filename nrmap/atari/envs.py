"""Atari games as seeded episodes: an emulator's state is (seed, actions since).

ale-py's vector environment draws the seeds of its own resets where nobody sees them, and an
emulator inside it cannot be saved. Here every episode is started from a seed that follows
from (run seed, stream, environment, episode), so an episode can be played again, and a running
one brought back, from its seed and its actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from nrmap.atari.games import rom_id
from nrmap.support.errors import check

# Streams keep training, evaluation and validation episodes apart for one and the same run seed.
TRAINING_STREAM, EVALUATION_STREAM, VALIDATION_STREAM = 0, 1, 2


@dataclass(frozen=True)
class EnvSpec:
    """How a game becomes states and actions; kept with every policy that learned from it.

    One agent step is `frame_skip` frames with one action; the state is the last `frame_stack`
    grey screens, max-pooled over two frames and resized to height × width, as uint8 in
    [0, 255]. `noop_max` is the largest number of no-ops before an episode, `sticky_actions` the
    probability that the emulator repeats the previous action.
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
        check(self.frame_stack >= 1, f"frame_stack={self.frame_stack}: expected at least 1")
        check(self.frame_skip >= 1, f"frame_skip={self.frame_skip}: expected at least 1")
        check(0 <= self.sticky_actions < 1, f"sticky_actions={self.sticky_actions}: expected 0 ≤ p < 1")
        check(self.noop_max >= 0, f"noop_max={self.noop_max}: expected at least 0")
        check(self.max_agent_steps >= 1, f"max_agent_steps={self.max_agent_steps}: expected at least 1")

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """The shape (frame_stack, height, width) of one state."""
        return self.frame_stack, self.height, self.width


@dataclass(frozen=True)
class Transition:
    """What one agent step of every environment gave; E is the number of environments.

    `terminated`: the game is over. `truncated`: the step limit ended the episode.
    """

    states: NDArray[np.uint8]  # [E, C, H, W], the states after the step
    rewards: NDArray[np.float32]  # [E], unclipped
    terminated: NDArray[np.bool_]  # [E]
    truncated: NDArray[np.bool_]  # [E]
    lives: NDArray[np.int32]  # [E], 0 in games without lives

    @property
    def ended(self) -> NDArray[np.bool_]:
        """[E], whether the episode is over for either reason."""
        return self.terminated | self.truncated


def episode_seed(run_seed: int, stream: int, env: int, episode: int) -> int:
    """The emulator seed, in [0, 2^31), of one episode of one environment."""
    words = np.random.SeedSequence([run_seed, stream, env, episode]).generate_state(1)
    return int(words[0] >> 1)


class SeededVectorEnv:
    """E copies of a game whose episodes begin only when told to, each from a given seed.

    Call `begin` for every environment first, then alternate `send` and `recv` (or `step`);
    an environment whose episode has ended must be begun again before the next `send`.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, num_threads: int = 0, *, colour: bool = False) -> None:
        """`num_threads`: emulator threads; 0 takes one for each core. `colour` gives RGB states [E, C, H, W, 3]."""
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
            # This limit is in frames; the no-ops before the episode do not count.
            max_num_frames_per_episode=spec.max_agent_steps * spec.frame_skip,
            repeat_action_probability=spec.sticky_actions,
            full_action_space=spec.full_action_space,
            reward_clipping=False,
            episodic_life=False,
        )
        self._begun = False
        self._running = np.zeros(num_envs, dtype=bool)
        self.no_op_frames: NDArray[np.int32] = np.zeros(num_envs, dtype=np.int32)  # [E], before the current episodes

    @property
    def num_actions(self) -> int:
        """A, the size of the action set."""
        return len(self.action_names)

    @property
    def action_names(self) -> tuple[str, ...]:
        """The A actions by name, in order."""
        return tuple(action.name for action in self._env.ale.get_action_set())

    def begin(self, mask: NDArray[np.bool_], seeds: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Start an episode in every environment of `mask` [E], one seed each.

        The others are left as they are. Returns the states [E, C, H, W] and lives [E] of all.
        """
        seeds_array = np.asarray(seeds, dtype=np.int32)
        if not self._begun and not np.all(mask):
            # A partial reset needs a full one before it.
            self._env.reset(seed=np.zeros(self.num_envs, dtype=np.int32))
        self._begun = True
        states, info = self._env.reset(seed=seeds_array, options={"reset_mask": np.asarray(mask, dtype=bool)})
        self._running |= mask
        self.no_op_frames[mask] = info["episode_frame_number"][mask]
        return states, info["lives"]

    def send(self, actions: NDArray[np.integer]) -> None:
        """Begin one agent step of every environment with `actions` [E]; returns at once."""
        assert self._running.all(), "an ended episode was stepped: begin it again first"
        self._env.send(np.ascontiguousarray(actions, dtype=np.int64))

    def recv(self) -> Transition:
        """Wait for the step that `send` began."""
        states, rewards, terminated, truncated, info = self._env.recv()
        self._running = ~(terminated | truncated)
        return Transition(states, rewards.astype(np.float32), terminated, truncated, info["lives"])

    def step(self, actions: NDArray[np.integer]) -> Transition:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()
