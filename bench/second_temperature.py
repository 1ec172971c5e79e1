"""Time the maps of a second temperature against the first, as in two jobs of one analysis."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

from analyze.settings import MapSettings, Resources, StatesSettings
from analyze.study import ensure_maps, ensure_states
from nrmap.ablation import AblationSpec
from nrmap.policies.policy import load_policy
from nrmap.support.layout import Layout

EPISODES = 16


def second_temperature(policy_file: Path, num_states: int, outputs: Path) -> dict[str, float]:
    """Seconds of the maps stage at T = 1, which ablates, and at T = 0.1, which reuses the ablation.

    The roll-out is not included. `outputs` must be an empty folder.
    """
    logging.getLogger().setLevel(logging.WARNING)
    policy, layout = load_policy(policy_file), Layout(outputs)
    episodes = min(EPISODES, num_states)
    wanted = StatesSettings(num_states=num_states, episodes=episodes, run_seed=0, states_from="own")
    states = ensure_states([policy], wanted, layout=layout, device=torch.device("cpu"))
    settings = MapSettings(temperatures=(1.0,), ablation=AblationSpec(), prefix_sizes=())
    resources = Resources(engine="auto", disk_budget_gb=4.0)
    seconds = []
    for temperature in (1.0, 0.1):
        begun = time.perf_counter()
        ensure_maps(
            policy, states, replace(settings, temperatures=(temperature,)),
            states_from="own", resources=resources, layout=layout,
        )  # fmt: skip
        seconds.append(time.perf_counter() - begun)
    first, second = seconds
    return {"states": num_states, "first_seconds": first, "second_seconds": second, "speedup": first / second}
