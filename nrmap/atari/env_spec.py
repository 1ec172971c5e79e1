"""A game with its preprocessing, as every policy and file of states names it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nrmap.atari.games import game_named
from nrmap.support.schema import expect, schema

# The emulator counts the frames of an episode in 32 bits.
_MOST_FRAMES = 2**31 - 1

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

    An episode starts with n no-op frames, `noop_min` ≤ n < max(`noop_max`, 1), and is truncated after
    `max_agent_steps`. `fire_reset` presses FIRE in games that have it. `frame`: one frame before the no-ops.
    `step`: one agent step after them. `two_steps`: FIRE, then action 2, one agent step each, after the no-ops.
    `sticky_actions` is the probability that the emulator repeats the previous action in a frame.
    `full_action_space` uses all 18 actions. `first_actions` keeps only the first n actions; 0 keeps all. With
    `life_loss="restarts"` a lost life is followed by a no-op step, the agent steps of `fire_reset`, and a fresh
    stack, as in stable-baselines3's EpisodicLifeEnv; their rewards are added to that of the step.

    Raises NrmapError for unknown games, values out of range, and settings that exclude each other.
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
