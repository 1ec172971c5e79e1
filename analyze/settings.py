"""The settings of an analysis, frozen, read once from the configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nrmap.ablation import ENGINES, AblationSpec
from nrmap.learning.settings import build
from nrmap.play.evaluation import AttackRun, EvaluationSettings
from nrmap.support.errors import check, unknown_choice


@dataclass(frozen=True)
class StatesSettings:
    """A sample of N = `num_states` states from `episodes` greedy episodes of each policy.

    `states_from` is "own", "pool" or the path of a states file; `run_seed` seeds the episodes.
    """

    num_states: int
    episodes: int
    run_seed: int
    states_from: str

    def __post_init__(self) -> None:
        check(self.num_states >= 1, f"num_states={self.num_states}: expected at least 1")
        check(self.episodes >= 1, f"episodes={self.episodes}: expected at least 1")

    @property
    def from_file(self) -> Path | None:
        """The states file, None for own and pooled states."""
        return None if self.states_from in ("own", "pool") else Path(self.states_from)

    @property
    def label(self) -> str:
        """`own`, `pool` or the file's name."""
        return self.states_from if self.from_file is None else self.from_file.name

    @property
    def record_fields(self) -> dict[str, str]:
        """The fields of a Record that name the states."""
        if self.from_file is None:
            return {"states_from": self.states_from}
        return {"states_from": "file", "states_set": self.from_file.name}


@dataclass(frozen=True)
class MapSettings:
    """Temperatures T > 0, the ablation, and the numbers N of states at which maps are kept on the way."""

    temperatures: tuple[float, ...]
    ablation: AblationSpec
    prefix_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        check(len(self.temperatures) > 0, "no temperature given: expected at least one")
        for temperature in self.temperatures:
            check(0 < temperature < math.inf, f"temperature={temperature}: expected a finite number > 0")
        for size in self.prefix_sizes:
            check(size >= 1, f"prefix_sizes: {size}, expected numbers of states, at least 1")


@dataclass(frozen=True)
class AnalysisSettings:
    """Everything that the results of an analysis depend on, besides the policies."""

    states: StatesSettings
    evaluation: EvaluationSettings
    maps: MapSettings
    controls: int  # draws of each kind of null network

    def __post_init__(self) -> None:
        check(self.controls >= 0, f"controls={self.controls}: expected at least 0")


@dataclass(frozen=True)
class Resources:
    """Engine, disk space and threads; results depend on them by rounding alone.

    Ablated Q-values of one policy on one set of states are kept if they take at most `disk_budget_gb`.
    """

    engine: Literal["auto", "incremental", "dense"]
    disk_budget_gb: float
    threads: int = 0  # 0: OMP_NUM_THREADS, or every core that the process may use

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_choice("engine", self.engine, ENGINES)
        check(self.disk_budget_gb >= 0, f"disk_budget_gb={self.disk_budget_gb}: expected at least 0 (keep nothing)")
        check(self.threads >= 0, f"threads={self.threads}: expected at least 0 (every core that the process may use)")


def analysis_settings(config: Mapping[str, Any]) -> AnalysisSettings:
    """The settings in the nodes of conf/analyze.yaml; NrmapError for a value out of range."""
    sizes, run_seed = config["scale"]["analysis"], config["evaluation_seed"]
    temperature = config["temperature"]
    temperatures = temperature if isinstance(temperature, list) else [temperature]
    for value in temperatures:
        check(isinstance(value, int | float), f"temperature={value!r}: expected a number > 0")
    fits = type(run_seed) is int and run_seed >= 0
    check(fits, f"evaluation_seed={run_seed!r}: expected a whole number, at least 0")
    prefix_sizes = sizes["prefix_sizes"]
    fits = isinstance(prefix_sizes, list) and all(type(size) is int for size in prefix_sizes)
    check(fits, f"prefix_sizes={prefix_sizes!r}: expected a list of numbers of states")
    states = {
        "num_states": sizes["num_states"],
        "episodes": sizes["state_episodes"],
        "run_seed": run_seed,
        "states_from": config["states_from"],
    }
    return AnalysisSettings(
        states=build(StatesSettings, states, "scale.analysis"),
        evaluation=_evaluation_settings(config["evaluation"], run_seed=run_seed),
        maps=MapSettings(
            temperatures=tuple(sorted({float(value) for value in temperatures})),
            ablation=AblationSpec(value=config["ablated_value"], channels=config["channels"]),
            prefix_sizes=tuple(sorted({*prefix_sizes, sizes["num_states"]})),  # a pool has more states than N
        ),
        controls=_controls(config["controls"], states_from=config["states_from"], at_scale=sizes["controls"]),
    )


def _evaluation_settings(node: Mapping[str, Any], *, run_seed: int) -> EvaluationSettings:
    for radius in node["certify_epsilons"]:
        check(isinstance(radius, int | float), f"certify_epsilons: {radius!r}, expected a radius in [0, 1] units")
    lists = {
        "certify_epsilons": tuple(float(radius) for radius in node["certify_epsilons"]),
        "attack_runs": tuple(build(AttackRun, run, "evaluation.attack_runs") for run in node["attack_runs"]),
    }
    settings: EvaluationSettings = build(EvaluationSettings, {**node, **lists, "run_seed": run_seed}, "evaluation")
    return settings


def _controls(given: Any, *, states_from: str, at_scale: int) -> int:
    if given == "auto":
        return 0 if states_from == "own" else at_scale
    check(isinstance(given, int), f"controls={given!r}: expected a whole number, or auto")
    return given
