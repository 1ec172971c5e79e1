"""Preprocessing: presets of other libraries, and the function from a screen to a frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.atari.env_spec import EnvSpec
from nrmap.support.errors import unknown_choice

Screen = NDArray[np.uint8]  # [h, w] grey or [h, w, 3] RGB

# The wrappers of OpenAI's baselines, from which most libraries have theirs.
_BASELINES = {"pooling": "rgb", "noop_min": 1, "noop_max": 31, "fire_reset": "two_steps"}
_STACKED = {**_BASELINES, "frame_stack": 4, "stack_fill": "first_frame"}
# Fields of EnvSpec by library, as it evaluates its agents; the fields left out keep their defaults.
EYES: Mapping[str, Mapping[str, Any]] = {
    "nrmap": {},
    # AtariWrapper, VecFrameStack(4), VecTransposeImage.
    "sb3": {**_STACKED, "stack_fill": "zeros", "life_loss": "restarts"},
    # cleanrl/dqn_atari.py, with the ResizeObservation, GrayScaleObservation and FrameStack of gym.
    "cleanrl": {**_STACKED, "grey_after_resize": True, "life_loss": "restarts"},
    # common/wrappers.py, with defaults.json and the settings of test.py.
    "sa_dqn": {**_BASELINES, "pad_columns": 4, "crop_top": 21, "crop_bottom": 21, "transposed": True},
    # dopamine/discrete_domains/atari_lib.py.
    "dopamine": {"frame_stack": 4, "noop_max": 0, "fire_reset": "none", "sticky_actions": 0.25},
    # pfrl/wrappers/atari_wrappers.py, for testing.
    "pfrl": {**_STACKED, "fire_reset": "none"},
    # examples/atari/atari_wrapper.py, for testing.
    "tianshou": {**_STACKED, "fire_reset": "step"},
}
# config/*.json of SA_DQN: `crop_shift` moves the crop down, `restrict_actions` keeps the first actions.
_SA_DQN_GAMES: Mapping[str, Mapping[str, int]] = {
    "Pong": {"crop_top": 31, "crop_bottom": 11, "first_actions": 4},
    "RoadRunner": {"crop_top": 41, "crop_bottom": 1, "first_actions": 6},
    "BankHeist": {"first_actions": 6},
}


def preset(eyes: str, game: str) -> dict[str, Any]:
    """Return the fields of EnvSpec that the preset `eyes` sets for `game`, a name as `game_named` returns it.

    Raises NrmapError for an unknown preset.
    """
    if eyes not in EYES:
        raise unknown_choice("eyes", eyes, EYES)
    of_game = _SA_DQN_GAMES.get(game, {}) if eyes == "sa_dqn" else {}
    return {**EYES[eyes], **of_game}


def env_with_eyes(game: str, eyes: str, **changes: Any) -> EnvSpec:
    """Return the EnvSpec of `game` with the preset `eyes`, a key of `EYES`, and `changes` to it.

    `game` is a name as `game_named` returns it: another spelling misses what "sa_dqn" sets for the game. Frames are
    84 × 84 unless changed. Raises NrmapError for an unknown preset, and for a game or changes that EnvSpec refuses.
    """
    return EnvSpec(game, **{"height": 84, "width": 84, **preset(eyes, game), **changes})


def frame_of(screen: Screen, spec: EnvSpec) -> NDArray[np.uint8]:
    """Preprocess a screen, grey [h, w] or RGB [h, w, 3], to a grey frame [height, width] as `spec` says."""
    import cv2  # imported here, because the preset "nrmap" does not need it

    def grey(colours: Any) -> Any:
        return cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY) if colours.ndim == 3 else colours

    part = visible_part(screen if spec.grey_after_resize else grey(screen), spec)
    interpolation = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}[spec.interpolation]
    size = (spec.height, spec.width) if spec.transposed else (spec.width, spec.height)
    frame: NDArray[np.uint8] = grey(cv2.resize(part, size, interpolation=interpolation))
    return frame.T if spec.transposed else frame


def visible_part(screen: Screen, spec: EnvSpec) -> Screen:
    """Return the screen with black columns added on both sides and rows cut off, as `spec` says."""
    columns = [(0, 0), (spec.pad_columns, spec.pad_columns), (0, 0)][: screen.ndim]
    padded: Screen = np.pad(screen, columns)
    return padded[spec.crop_top : len(screen) - spec.crop_bottom]
