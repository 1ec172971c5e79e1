"""The settings of an analysis, frozen, read once from the configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from conf.schema import AnalyzeKeys, Temperature
from nrmap.ablation.spec import AblationSpec
from nrmap.play.evaluation import EvaluationSettings
from nrmap.support.schema import Seed, SettingError, schema


@schema
class StatesSettings:
    """The states to map: `num_states` from `episodes` greedy episodes of each policy, or all states of a file.

    `states_from` is "own" (of the mapped policy), "pool" (of several policies) or the path of a states file.
    `run_seed` seeds the episodes.
    """

    num_states: int
    episodes: int
    run_seed: Seed
    states_from: str

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


@schema
class MapSettings:
    """Temperatures T > 0, the ablation, and sizes n: for each n, S is also measured on the n states of lowest rank.

    For ranks see `prefix_ranks`.
    """

    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)]
    ablation: AblationSpec
    prefix_sizes: tuple[int, ...]


@schema
class AnalysisSettings:
    """Everything that the results of an analysis depend on, besides the policies."""

    states: StatesSettings
    evaluation: EvaluationSettings
    maps: MapSettings
    controls: int  # draws of each kind of null network


def analysis_settings(keys: AnalyzeKeys) -> AnalysisSettings:
    """Build the settings of the analysis of `keys`. Raises NrmapError for keys that contradict each other."""
    sizes, run_seed = keys.scale["analysis"], keys.evaluation_seed
    num_states, episodes = sizes["num_states"], sizes["state_episodes"]
    if keys.shard is not None and keys.shard >= keys.shards:
        raise SettingError("shard", f"={keys.shard}: expected 0 to {keys.shards - 1} with shards={keys.shards}")
    if keys.states_from in ("own", "pool"):
        most = episodes * keys.env["max_agent_steps"]
        if not episodes <= num_states <= most:
            expected = f"expected {episodes:,} to {most:,}, the states of {episodes:,} episodes"
            raise SettingError("scale.analysis.num_states", f"={num_states}: {expected}")
        all_episodes = episodes * (len(keys.pool) if keys.states_from == "pool" else 1)
        if keys.shards > all_episodes:
            raise SettingError("shards", f"={keys.shards}: expected at most {all_episodes}, the episodes of the states")
    at_scale = 0 if keys.states_from == "own" else sizes["controls"]
    return AnalysisSettings(
        states=StatesSettings(num_states, episodes, run_seed, keys.states_from),
        evaluation=EvaluationSettings(**keys.evaluation, run_seed=run_seed),
        maps=MapSettings(
            temperatures=tuple(sorted({*keys.temperature})),
            ablation=AblationSpec(value=keys.ablated_value, channels=keys.channels),
            prefix_sizes=tuple(sorted({*sizes["prefix_sizes"], num_states})),  # a pool has more states than N
        ),
        controls=at_scale if keys.controls == "auto" else keys.controls,
    )
