"""Time the maps of a second temperature against the first, as in two jobs of one analysis."""

import logging
import time
from dataclasses import replace
from pathlib import Path

from analyze.maps import ensure_maps
from analyze.settings import AnalysisSettings, MapSettings, StatesSettings
from analyze.study import Study, ensure_states
from nrmap.ablation import AblationSpec
from nrmap.play.evaluation import EvaluationSettings
from nrmap.policies.policy import load_policy
from nrmap.support.layout import Layout

EPISODES = 16


def second_temperature(policy_file: Path, num_states: int, outputs: Path) -> dict[str, float]:
    """Measure the seconds of the maps stage at T = 1, which ablates, and at T = 0.1, which reuses the ablation.

    The roll-out is not included. `outputs` must be empty or missing. Sets the level of the root logger to WARNING.
    """
    logging.getLogger().setLevel(logging.WARNING)
    policy, episodes = load_policy(policy_file), min(EPISODES, num_states)
    settings = AnalysisSettings(
        StatesSettings(num_states=num_states, episodes=episodes, run_seed=0, states_from="own"),
        EvaluationSettings(episodes=1, run_seed=0),
        MapSettings(temperatures=(1.0,), ablation=AblationSpec(), prefix_sizes=()),
        controls=0,
    )
    study = Study(settings, Layout(outputs), disk_budget_gb=4.0)
    states = ensure_states(study, [policy])
    seconds = []
    for temperature in (1.0, 0.1):
        maps = replace(settings.maps, temperatures=(temperature,))
        begun = time.perf_counter()
        ensure_maps(replace(study, settings=replace(settings, maps=maps)), policy, states)
        seconds.append(time.perf_counter() - begun)
    first, second = seconds
    return {"states": num_states, "first_seconds": first, "second_seconds": second, "speedup": first / second}
