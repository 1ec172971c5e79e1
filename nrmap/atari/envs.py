"""Atari games as seeded episodes that can be replayed from their seed and actions.

ale-py's vector environment hides the seeds of its own resets and cannot save an emulator. Here
each episode starts from a given seed, such as one of `nrmap.atari.episode_seeds`, so that a
finished episode can be replayed and a running one restored from its seed and actions.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.games import rom_id
from nrmap.support.errors import NrmapError, check


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
    restarted: NDArray[np.bool_]  # [E], the stack began anew after a lost life, see EnvSpec

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Bool [E]: True if the episode is terminated or truncated."""
        return self.terminated | self.truncated


def _vector_env(spec: EnvSpec, num_envs: int, *, colour: bool) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        rom_id(spec.game),
        num_envs,
        img_height=spec.height,
        img_width=spec.width,
        stack_num=spec.frame_stack,
        grayscale=not colour,
        frameskip=spec.frame_skip,
        noop_max=spec.noop_max,
        use_fire_reset=spec.fire_reset == "frame",
        # In frames; the no-ops before the episode do not count.
        max_num_frames_per_episode=spec.max_agent_steps * spec.frame_skip,
        repeat_action_probability=spec.sticky_actions,
        full_action_space=spec.full_action_space,
        reward_clipping=False,
        episodic_life=False,
    )


# A seed for an episode that nobody watches: it starts in a tenth of the time, because the game is not loaded again.
ANY_SEED = -1


class SeededVectorEnv:
    """E copies of a game; `begin` starts episodes explicitly, each from a given seed.

    First call `begin` for every environment, as ale-py requires. Then alternate `send` and `recv`, or call `step`.
    After the end of an episode call `begin` for its environment before the next `send`.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, *, colour: bool = False) -> None:
        """`colour` gives RGB screens [E, C, H, W, 3]. Those of `Emulators` have C = 1 and are not resized.

        Raises NrmapError if the game has fewer actions than `spec.first_actions`, and if the crop of `spec` leaves no
        row.
        """
        self.spec = spec
        self.num_envs = num_envs
        self._env: Any
        if spec.in_vector_env:
            self._env = _vector_env(spec, num_envs, colour=colour)
            actions = self._env.ale.get_action_set()
        else:
            from nrmap.atari.emulators import Emulators

            self._env = Emulators(spec, num_envs, colour=colour)
            actions = self._env.actions
        check(
            spec.first_actions <= len(actions),
            f"first_actions={spec.first_actions}: {spec.game} has {len(actions)} actions",
        )
        # The names of the A actions, in order.
        self.action_names = tuple(action.name for action in actions[: spec.first_actions or None])
        self._running = np.zeros(num_envs, dtype=bool)
        self.no_op_frames: NDArray[np.int32] = np.zeros(num_envs, dtype=np.int32)  # [E], of the current episodes

    @property
    def num_actions(self) -> int:
        """A, the number of actions."""
        return len(self.action_names)

    def begin(self, mask: NDArray[np.bool_], seeds: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Start an episode in each environment where `mask` [E] is True; the others continue.

        Return the states [E, C, H, W] and lives [E] of all environments. `seeds` has a seed, or `ANY_SEED`, for each
        new episode, in order.
        """
        seeds_array = np.asarray(seeds, dtype=np.int32)
        states, info = self._env.reset(seed=seeds_array, options={"reset_mask": np.asarray(mask, dtype=bool)})
        self._running |= mask
        self.no_op_frames[mask] = info["episode_frame_number"][mask]
        return states, info["lives"]

    def send(self, actions: NDArray[np.integer]) -> None:
        """Begin one agent step with `actions` [E] and return immediately.

        Raises NrmapError for an action out of range. Fails an assertion if an episode has ended and `begin` was not
        called.
        """
        assert self._running.all(), "an episode has ended: call begin before send"
        for wrong in actions[(actions < 0) | (actions >= self.num_actions)]:  # ale-py would wait for ever
            raise NrmapError(f"action {wrong}: {self.spec.game} has actions 0 to {self.num_actions - 1}")
        self._env.send(np.ascontiguousarray(actions, dtype=np.int64))

    def recv(self) -> Transition:
        """Wait for the step begun by `send` and return its result."""
        states, rewards, terminated, truncated, info = self._env.recv()
        self._running = ~(terminated | truncated)
        restarted = info.get("restarted", np.zeros(self.num_envs, dtype=bool))
        return Transition(states, rewards.astype(np.float32), terminated, truncated, info["lives"], restarted)

    def step(self, actions: NDArray[np.integer]) -> Transition:
        """Play one agent step: `send`, then `recv`."""
        self.send(actions)
        return self.recv()


@functools.cache
def action_names(spec: EnvSpec) -> tuple[str, ...]:
    """The names of the A actions in an environment of `spec`, in order.

    Raises NrmapError as `SeededVectorEnv` does.
    """
    return SeededVectorEnv(spec, 1).action_names
