"""Atari games as seeded episodes that can be replayed from their seed and actions.

ale-py's vector environment hides the seeds of its own resets and cannot save an emulator. Here
each episode starts from a seed computed from (run seed, stream, environment, episode), so that a
finished episode can be replayed and a running one restored from its seed and actions.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from nrmap.atari.eyes import preset
from nrmap.atari.games import game_named, rom_id
from nrmap.support.errors import NrmapError, check
from nrmap.support.schema import expect, schema

# Streams separate training, evaluation and validation episodes of the same run seed.
TRAINING_STREAM, EVALUATION_STREAM, VALIDATION_STREAM = 0, 1, 2
# The emulator counts the frames of an episode in 32 bits.
_MOST_FRAMES = 2**31 - 1
EPISODE_SEEDS = 2**31  # seeds that the emulator takes, from 0

Side = Annotated[int, Field(ge=1, le=1024)]  # pixels; a native screen has 210 × 160


# Fields of EnvSpec that decide the pixels of a state, besides its shape.
PIXEL_FIELDS = (
    "pooling", "grey_after_resize", "interpolation", "pad_columns", "crop_top", "crop_bottom", "transposed",
    "newest_first", "stack_fill",
)  # fmt: skip


@schema
class EnvSpec:
    """A game and its preprocessing, i.e. the eyes of an agent; stored with every policy trained on it.

    One agent step repeats an action for `frame_skip` frames. Its screen is the pixel-wise maximum of the last two
    frames, in grey or (`pooling="rgb"`) in colour. The screen gets `pad_columns` black columns on either side, loses
    `crop_top` and `crop_bottom` rows, becomes grey, and is resized by `interpolation`; `grey_after_resize` swaps the
    last two. `transposed` then swaps its axes. A state is the stack of the last `frame_stack` screens of height ×
    width, uint8 in [0, 255], newest last unless `newest_first`. A new stack has one screen, and before it zeros or
    copies of that screen, as `stack_fill` says.

    An episode starts with n no-ops, `noop_min` ≤ n < `noop_max` (none if `noop_max` is 0), and is truncated after
    `max_agent_steps`. `fire_reset` presses FIRE in games that have it. `frame`: one frame before the no-ops.
    `step`: one agent step after them. `two_steps`: FIRE, then action 2, one agent step each, after the no-ops.
    `sticky_actions` is the probability that the emulator repeats the previous action in a frame.
    `full_action_space` uses all 18 actions. `first_actions` keeps only the first n actions; 0 keeps all. With
    `life_loss="restarts"` a lost life is followed by a no-op step, the agent steps of `fire_reset`, and a fresh
    stack, as in stable-baselines3's EpisodicLifeEnv; their rewards are added to that of the step.

    Raises NrmapError for unknown games and values out of range.
    """

    game: Annotated[str, AfterValidator(game_named)]
    height: Side
    width: Side
    frame_stack: Annotated[int, Field(ge=1, le=64)] = 1
    frame_skip: Annotated[int, Field(ge=1, le=1000)] = 4
    sticky_actions: Annotated[float, Field(ge=0, lt=1)] = 0.0
    noop_max: Annotated[int, Field(ge=0, le=1000)] = 30
    max_agent_steps: Annotated[int, Field(ge=1, le=_MOST_FRAMES)] = 27_000
    full_action_space: bool = False
    pooling: Literal["grey", "rgb"] = "grey"
    grey_after_resize: bool = False
    interpolation: Literal["area", "linear"] = "area"
    pad_columns: Annotated[int, Field(ge=0, le=1024)] = 0
    crop_top: Annotated[int, Field(ge=0, lt=210)] = 0
    crop_bottom: Annotated[int, Field(ge=0, lt=210)] = 0
    transposed: bool = False
    newest_first: bool = False
    stack_fill: Literal["zeros", "first_frame"] = "zeros"
    noop_min: Annotated[int, Field(ge=0, le=1000)] = 0
    fire_reset: Literal["none", "frame", "step", "two_steps"] = "frame"
    first_actions: Annotated[int, Field(ge=0, le=18)] = 0
    life_loss: Literal["plays_on", "restarts"] = "plays_on"

    def __post_init__(self) -> None:
        most = _MOST_FRAMES // self.frame_skip
        expect(self.max_agent_steps <= most, self, "max_agent_steps", f"at most {most:,} with this frame_skip")
        expect(self.noop_min < max(self.noop_max, 1), self, "noop_min", f"less than noop_max={self.noop_max}")
        colours = self.pooling == "rgb" or not self.grey_after_resize
        expect(colours, self, "grey_after_resize", f"false with pooling={self.pooling}")

    @property
    def in_vector_env(self) -> bool:
        """Whether ale-py's vector environment has this preprocessing; otherwise `Emulators` steps the game."""
        unlike_ours = [
            name for name in (*PIXEL_FIELDS, "noop_min", "life_loss") if getattr(self, name) != getattr(EnvSpec, name)
        ]
        return not unlike_ours and self.fire_reset in ("none", "frame")

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
    restarted: NDArray[np.bool_]  # [E], the stack began anew after a lost life, see EnvSpec

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Bool [E]: True if the episode is terminated or truncated."""
        return self.terminated | self.truncated


def env_with_eyes(game: str, eyes: str, **changes: Any) -> EnvSpec:
    """The EnvSpec of `game` with the preset `eyes`, a key of `EYES`, and `changes` to it; 84 × 84 unless changed."""
    return EnvSpec(game, **{"height": 84, "width": 84, **preset(eyes, game), **changes})


def episode_seed(run_seed: int, stream: int, env: int, episode: int) -> int:
    """The emulator seed of one episode of one environment, in [0, 2^31)."""
    words = np.random.SeedSequence([run_seed, stream, env, episode]).generate_state(1)
    return int(words[0] >> 1)


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

    First call `begin` for every environment, then alternate `send` and `recv`, or call `step`.
    After the end of an episode call `begin` for its environment before the next `send`.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, *, colour: bool = False) -> None:
        """`colour`: see `replay_rgb`."""
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
        self._begun = False
        self._running = np.zeros(num_envs, dtype=bool)
        self.no_op_frames: NDArray[np.int32] = np.zeros(num_envs, dtype=np.int32)  # [E], of the current episodes

    @property
    def num_actions(self) -> int:
        """A, the number of actions."""
        return len(self.action_names)

    def begin(self, mask: NDArray[np.bool_], seeds: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Start an episode in each environment where `mask` [E] is True; the others continue.

        `seeds` has a seed, or `ANY_SEED`, for each new episode, in order. Returns all states [E, C, H, W], lives [E].
        """
        seeds_array = np.asarray(seeds, dtype=np.int32)
        if not self._begun and not np.all(mask):
            # ale-py requires a full reset before a partial one.
            self._env.reset(seed=np.zeros(self.num_envs, dtype=np.int32), options={"reset_mask": mask | True})
        self._begun = True
        states, info = self._env.reset(seed=seeds_array, options={"reset_mask": np.asarray(mask, dtype=bool)})
        self._running |= mask
        self.no_op_frames[mask] = info["episode_frame_number"][mask]
        return states, info["lives"]

    def send(self, actions: NDArray[np.integer]) -> None:
        """Begin one agent step with `actions` [E] and return immediately; NrmapError for actions out of range."""
        assert self._running.all(), "an episode has ended: call begin before send"
        for wrong in actions[(actions < 0) | (actions >= self.num_actions)]:  # ale-py would wait for ever
            raise NrmapError(f"action {wrong}: {self.spec.game} has actions 0 to {self.num_actions - 1}")
        self._env.send(np.ascontiguousarray(actions, dtype=np.int64))

    def recv(self) -> Transition:
        """Wait for the step begun by `send`."""
        states, rewards, terminated, truncated, info = self._env.recv()
        self._running = ~(terminated | truncated)
        restarted = info.get("restarted", np.zeros(self.num_envs, dtype=bool))
        return Transition(states, rewards.astype(np.float32), terminated, truncated, info["lives"], restarted)

    def step(self, actions: NDArray[np.integer]) -> Transition:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()


@functools.cache
def action_names(spec: EnvSpec) -> tuple[str, ...]:
    """The names of the A actions in an environment of `spec`, in order."""
    return SeededVectorEnv(spec, 1).action_names
