"""Evaluate and map a policy; print tables, and last the folder of its maps: `python -m analyze env=Freeway`.

Rolls out states, plays with and without attacks, maps every pixel, measures and draws the maps, and maps
null networks if `controls` asks for them. With `shard=K` only makes part K of the maps and prints its file.
A repeated command does only what is missing.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from analyze.agents import named_agent
from analyze.maps import Shard, ensure_figures, ensure_maps, ensure_null_networks, ensure_shard, null_network_summary
from analyze.plan import planned_parts, roll_outs
from analyze.report.tables import print_records
from analyze.settings import AnalysisSettings, analysis_settings
from analyze.study import Study, ensure_attacks, ensure_baselines, ensure_evaluation, ensure_states
from conf.choices import read_option
from conf.entry import entry_point
from conf.machine import check_file, check_machine
from conf.schema import AnalyzeKeys
from conf.train_settings import env_spec, train_settings
from nrmap.learning.lookup import reference_policy, trained_policy
from nrmap.policies.agent import NO_GAME, Agent
from nrmap.policies.policy import load_policy
from nrmap.support.clock import Clock
from nrmap.support.errors import check
from nrmap.support.files import identity_of, write_text
from nrmap.support.layout import MAPS_FILE, METRICS_FILE, Layout
from nrmap.support.records import RANDOM_POLICY, Record, select
from nrmap.support.runtime import choose_device, keep_freed_memory
from nrmap.support.schema import validated
from nrmap.support.tracking import decide_mode, summary_name, track

log = logging.getLogger(__name__)


def read(values: Mapping[str, Any], here: bool) -> tuple[AnalyzeKeys, AnalysisSettings]:
    """Check `values` of the keys of conf/analyze.yaml; return the keys and the settings of the analysis.

    With `here`, also check that this machine has the device, the threads, the file of `states_from` and that of
    `policy`, unless it is of another program. Raises NrmapError for a wrong value.
    """
    keys = validated(AnalyzeKeys, values)
    settings = analysis_settings(keys)
    train_settings(keys)
    if here:
        check_machine(keys)
        if keys.policy is not None and not re.match(r"\w+:", keys.policy):
            check_file("policy", keys.policy)
        if settings.states.from_file is not None:
            check_file("states_from", str(settings.states.from_file))
    return keys, settings


def analyze(command: tuple[AnalyzeKeys, AnalysisSettings], given: Sequence[str]) -> None:
    """Run the analysis `command`, the result of `read`; print its tables and the folder of the maps.

    With the key `shard` only make that shard of the maps and print its file. `given` are the options on the command
    line. Sends the results to W&B if the key `wandb` asks for that. Raises NrmapError as the stages do, for a wrong
    W&B setting, and for a policy that is missing or of another game than `given` says.
    """
    keys, settings = command
    layout, device = Layout(Path(keys.outputs)), choose_device(keys.device)
    study = Study(settings, layout, keys.engine, keys.disk_budget_gb, Clock(layout.durations))
    decide_mode(keys.wandb, os.environ)  # reports a wrong W&B setting before the maps are made
    keep_freed_memory()
    if keys.threads:
        torch.set_num_threads(keys.threads)

    policy: Agent = named_agent(keys, given, device) if keys.policy else load_policy(_look_up(keys, layout), device)
    game, found = env_spec(keys).game, policy.game
    check(
        found in (game, NO_GAME) or f"env={game}" not in given,
        f"env={game}: the policy {keys.policy} is of {found}; leave env out or say env={found}",
    )
    its_own = {"method": f"method={policy.method}", "seed": f"seed={policy.seed}"} if keys.policy else {}
    for name, expected in its_own.items():
        stated = next((option for option in given if option.startswith(f"{name}=")), expected)
        check(stated == expected, f"{stated}: the policy {keys.policy} has {expected}; leave {name} out")
    pooled = study.settings.states.states_from == "pool"
    sources = _pool(keys, policy, layout, device) if pooled else [policy]
    states = None if [*roll_outs(study, sources)] else ensure_states(study, sources)
    if keys.shard is None:
        study.clock.plan(policy.label, planned_parts(study, policy, sources, states))
    states = states or ensure_states(study, sources)
    if keys.shard is not None:
        print(ensure_shard(study, policy, states, Shard(keys.shard, keys.shards)))
        return
    maps = ensure_maps(study, policy, states)  # before play: an agent that cannot be mapped leaves no evaluation
    figures = ensure_figures(policy, states, maps)
    null_networks = ensure_null_networks(study, policy, states)
    if policy.env is None:
        log.info("%s plays no game: neither returns nor baselines, but attacks on the states", policy.label)
        evaluation = ensure_attacks(study, policy, states)
    else:
        evaluation = [*ensure_baselines(study, policy), *ensure_evaluation(study, policy)]
    records = [*evaluation, *maps.records, *null_networks]
    print_records(records)
    _track(study, keys, policy, maps.folder, records, figures)
    print(maps.folder)


def _pool(keys: AnalyzeKeys, policy: Agent, layout: Layout, device: torch.device) -> list[Agent]:
    """Load the policies whose states are pooled. Raises NrmapError if one is missing or `policy` is of another game."""
    game = env_spec(keys).game
    check(policy.game == game, f"the policy is of {policy.game}, the pool of {game}: add env={policy.game}")
    return [load_policy(_pooled_path(keys, entry, layout), device) for entry in keys.pool]


def _pooled_path(keys: AnalyzeKeys, entry: str, layout: Layout) -> Path:
    """Return the policy file of one `pool` entry: a file, or a method with the game, seed and scale of `keys`."""
    if entry.endswith(".safetensors"):
        return Path(entry)
    method = keys.method if entry == keys.method["name"] else read_option("method", entry, {"scale": keys.scale})
    return _look_up(replace(keys, method=method), layout)


def _look_up(keys: AnalyzeKeys, layout: Layout) -> Path:
    settings = train_settings(keys)
    if keys.policies_from == "reference":
        return reference_policy(settings, layout, scale=keys.scale["name"])
    return trained_policy(settings, layout)


def _track(
    study: Study, keys: AnalyzeKeys, policy: Agent, folder: Path, records: list[Record], figures: Mapping[str, Path]
) -> None:
    """Send the results to W&B as one run, unless these results were sent before."""
    settings = study.settings
    mode = decide_mode(keys.wandb, os.environ)
    rows = [asdict(record) for record in records]
    identity = identity_of({"records": rows})
    sent = folder / f"tracked-{mode}-{identity}"
    if mode == "disabled" or sent.exists():
        return
    temperatures = "-".join(f"{temperature:g}" for temperature in settings.maps.temperatures)
    with track(
        keys.wandb,
        job_type="analyze",
        name=f"{policy.label.replace('/', '-')}-{settings.states.label}-T{temperatures}",
        group=f"{policy.game}-{keys.scale['name']}",
        run_id=f"analyze-{identity}",
        config={"game": policy.game, "method": policy.method, "seed": policy.seed, **asdict(settings)},
        tags=(policy.game, policy.method, settings.states.label),
        folder=folder,
    ) as tracker:
        tracker.table("records", list(rows[0]), [list(row.values()) for row in rows])
        headline = [r for r in records if not (r.is_part or r.is_null_network) and r.value is not None]
        tracker.summary({_summary_name(record): record.value for record in headline})
        tracker.summary(null_network_summary(select(records, is_null_network=True)))
        for name, path in figures.items():
            tracker.image(name, path)
        tracker.artifact(f"maps-{folder.name}", "maps", [folder / MAPS_FILE, folder / METRICS_FILE])
    if tracker.is_active:  # otherwise the next analysis tries again
        write_text(sent, "")


def _summary_name(record: Record) -> str:
    attack = record.attack_name
    if record.is_baseline:
        attack = RANDOM_POLICY if record.variant is None else f"constant_{record.variant}"
    return summary_name(
        record.metric_key, attack=attack, attack_epsilon=record.attack_epsilon, temperature=record.temperature
    )


if __name__ == "__main__":
    entry_point("analyze", read, analyze)
