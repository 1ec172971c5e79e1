"""Every key of conf/, with its type and range."""

import re
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator, Field

from nrmap.atari.env_spec import PIXEL_FIELDS, EnvSpec
from nrmap.atari.eyes import EYES
from nrmap.learning.settings import TrainSettings
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.maps.sweep import HIGHEST_TEMPERATURE
from nrmap.play.evaluation import EvaluationSettings
from nrmap.support.schema import Keys, NotNegative, Positive, Seed, SomeSteps, Steps, Word, schema
from nrmap.support.tracking import TrackingSpec


def _quotient(value: Any) -> Any:
    """Return the number that a text such as "1/255" means; any other value is returned unchanged."""
    match = re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", value) if isinstance(value, str) else None
    return int(match[1]) / int(match[2]) if match else value


Method = Literal["ddqn", "ddqn_continued", "sa_ddqn", "sa_ddqn_ibp"]
_PolicyFile = Annotated[str, Field(pattern=r"^[^\x00]+\.safetensors$", description="a policy file FILE.safetensors")]
_StatesFile = Annotated[str, Field(pattern=r"^[^\x00]+\.np[yz]$", description="a file of states, .npz or .npy")]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Draws = Annotated[int, Field(ge=0, le=1000)]
# Softmax of Q / T must not overflow.
Temperature = Annotated[float, Field(ge=1e-30, le=HIGHEST_TEMPERATURE)]

_LITERATURE = Keys(
    kappa=NotNegative, vanilla_exploration_steps=SomeSteps, optional=["kappa", "vanilla_exploration_steps"]
)
# Keys that may be null: then `eyes` gives the value.
_EYES = (
    *PIXEL_FIELDS, "frame_stack", "sticky_actions", "noop_min", "noop_max", "fire_reset", "first_actions", "life_loss",
)  # fmt: skip
_BY_EYES = {name: get_type_hints(EnvSpec, include_extras=True)[name] | None for name in _EYES}
_ENV = Keys(
    EnvSpec, without=_EYES, eyes=Literal[tuple(EYES)], literature=_LITERATURE, optional=["literature"], **_BY_EYES
)
_NOT_OF_SCALE = ("env", "method", "seed", "regulariser", "parent")
_RAMP_KEYS: dict[str, Any] = {"ramp_begin": Steps, "ramp_steps": SomeSteps}
_CHANGES: dict[str, Any] = {
    "without": _NOT_OF_SCALE, "partial": True, "optional": ["robust_ramp"],
    "robust_ramp": Keys(**_RAMP_KEYS, optional=_RAMP_KEYS),
}  # fmt: skip
_OF_PGD = ("pgd_steps", "pgd_step_fraction", "inner_attack", "rollback_every", "rollback_ratio", "rollback_slack")
_SCALE = Keys(
    TrainSettings,
    without=_NOT_OF_SCALE,
    optional=["max_agent_steps"],
    name=Word,
    max_agent_steps=SomeSteps,
    robust_ramp=Keys(**_RAMP_KEYS),
    robust_loss=Keys(
        pgd=Keys(RegulariserSpec, without=[*_RAMP_KEYS, "solver"]),
        ibp=Keys(RegulariserSpec, without=[*_RAMP_KEYS, "solver", *_OF_PGD]),
    ),
    fine_tune=Keys(
        TrainSettings,
        **_CHANGES,
        by_solver=Keys(pgd=Keys(TrainSettings, **_CHANGES), ibp=Keys(TrainSettings, **_CHANGES)),
    ),
    robust_from_scratch=Keys(TrainSettings, **_CHANGES),
    analysis=Keys(
        num_states=Annotated[int, Field(ge=1, le=10**8)],
        state_episodes=_Count,
        prefix_sizes=tuple[Annotated[int, Field(ge=1, le=10**8)], ...],
        controls=_Draws,
    ),
)
_METHOD = Keys(
    name=Method,
    start_from=Literal["vanilla", "scratch"] | _PolicyFile,
    regulariser=Annotated[dict[str, Any], Keys(RegulariserSpec, without=_RAMP_KEYS, optional=_OF_PGD)] | None,
)


@schema
class CommandKeys:
    """The keys that train and analyze share. The first four determine a trained policy."""

    env: Annotated[dict[str, Any], _ENV]
    scale: Annotated[dict[str, Any], _SCALE]
    method: Annotated[dict[str, Any], _METHOD]
    seed: Seed
    wandb: TrackingSpec
    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Field(ge=0, le=4096)]
    outputs: Annotated[str, Field(min_length=1, description="a folder")]


@schema
class TrainKeys(CommandKeys):
    """The keys of conf/train.yaml."""

    cuda: Literal["graphs", "eager"]
    precision: Literal["auto", "float32", "bfloat16"]
    checkpoint_seconds: NotNegative
    greedy_every: Steps
    greedy_episodes: Annotated[int, Field(ge=1, le=1000)]


@schema
class AnalyzeKeys(CommandKeys):
    """The keys of conf/analyze.yaml. `temperature` is one number or a list."""

    evaluation: Annotated[dict[str, Any], Keys(EvaluationSettings, without=["run_seed", "stream"])]
    policy: Annotated[str, Field(min_length=1, description="a policy file")] | None
    input_scale: Annotated[Positive, BeforeValidator(_quotient), Field(description="a number above 0 or 1/255")] | None
    expect: Annotated[float, Field(ge=-1e30, le=1e30)] | None
    policies_from: Literal["trained", "reference"]
    temperature: Annotated[
        tuple[Temperature, ...],
        Field(min_length=1, description="a number from 1e-30 to 1e9, or a list such as [0.1,1]"),
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list | tuple) else (value,)),
    ]
    states_from: Literal["own", "pool"] | _StatesFile
    pool: Annotated[tuple[Method | _PolicyFile, ...], Field(min_length=1)]
    evaluation_seed: Seed
    controls: Literal["auto"] | _Draws
    ablated_value: Annotated[int, Field(ge=0, le=255)]
    channels: Literal["all", "each"]
    engine: Literal["auto", "incremental", "dense"]
    shards: _Count
    shard: Annotated[int, Field(ge=0)] | None
    disk_budget_gb: NotNegative
