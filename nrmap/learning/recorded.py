"""Schemas of the files that a training writes beside its policy: settings, learning curve and options."""

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from nrmap.support.schema import Name, Number, Steps, Word

_OPEN = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
Count = Annotated[int, Field(ge=0)]
# The options of the command that started a training.
GivenOptions = list[Word]


@with_config(_OPEN)
class RecordedEnv(TypedDict):
    """The environment of a training; fields besides `game` are not checked."""

    game: Name


@with_config(_OPEN)
class ForeignSettings(TypedDict):
    """The settings of a policy from another program: any keys, unchecked except `parent`.

    `parent` may be missing, None or the settings of a training.
    """

    parent: NotRequired["RecordedSettings | None"]


@with_config(_OPEN)
class RecordedSettings(ForeignSettings):
    """The settings of a training. Only `env`, `method`, `seed`, `steps` and `parent` are checked.

    `parent` may be missing, None or the settings that trained the parent policy.
    """

    env: RecordedEnv
    method: Name
    seed: Count
    steps: Steps


def _with_step(row: dict[str, int | float]) -> dict[str, int | float]:
    if "agent_step" not in row:
        raise ValueError("a row with an agent_step")
    return row


@with_config(_OPEN)
class RecordedEpisode(TypedDict):
    """A training episode that ended at `agent_step`."""

    agent_step: Steps
    undiscounted_return: Number


@with_config(_OPEN)
class RecordedCurves(TypedDict):
    """A learning curve: the episodes, rows of averages by agent step, and a report of each roll-back, if any."""

    episodes: list[RecordedEpisode]
    rows: list[Annotated[dict[str, int | Number], AfterValidator(_with_step)]]
    rollbacks: NotRequired[list[dict[str, Any]]]
