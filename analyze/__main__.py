"""Evaluate and map a policy, and print the folder of its maps: `python -m analyze env=Freeway method=sa_ddqn`.

Rolls out states, plays with and without attacks, maps every pixel, and measures the maps. A
repeated command does only what is missing.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from analyze.agents import named_agent
from analyze.maps import MapsResult, ensure_figures, ensure_maps, ensure_shard, requested_shard
from analyze.null_networks import ensure_null_networks, null_network_summary
from analyze.report.tables import print_records
from analyze.settings import Resources, analysis_settings
from analyze.study import Study, ensure_attacks, ensure_baselines, ensure_evaluation, ensure_states
from conf.choices import read_option
from conf.entry import entry_point
from nrmap.learning.lookup import reference_policy, trained_policy
from nrmap.learning.settings import build, train_settings
from nrmap.policies.agent import NO_GAME, Agent
from nrmap.policies.policy import load_policy
from nrmap.support.errors import check, unknown_choice
from nrmap.support.files import identity_of, write_text
from nrmap.support.layout import MAPS_FILE, METRICS_FILE, Layout
from nrmap.support.records import RANDOM_POLICY, Record
from nrmap.support.runtime import choose_device, keep_freed_memory
from nrmap.support.tracking import TrackingSpec, decide_mode, summary_name, track

log = logging.getLogger(__name__)


def analyze(config: Mapping[str, Any]) -> None:
    """Run the stages of the analysis that `config`, the nodes of conf/analyze.yaml, describes, or one shard of it."""
    resources = build(Resources, {field.name: config[field.name] for field in fields(Resources)}, "analyze")
    layout, device = Layout(Path(config["outputs"])), choose_device(config["device"])
    study = Study(analysis_settings(config), layout, device, resources)
    shard = requested_shard(config["shards"], config["shard"])
    tracking = build(TrackingSpec, config["wandb"], "wandb")
    decide_mode(tracking, os.environ)  # a mistake in it should not wait for the maps
    keep_freed_memory()
    if resources.threads:
        torch.set_num_threads(resources.threads)

    policy: Agent = named_agent(config, device) if config["policy"] else load_policy(_look_up(config, layout), device)
    game, found = config["env"]["game"], policy.game
    check(
        found in (game, NO_GAME) or f"env={game}" not in config["given"],
        f"env={game}: the policy {config['policy']} is of {found}; leave env out or say env={found}",
    )
    pooled = study.settings.states.states_from == "pool"
    states = ensure_states(study, _pool(config, policy, layout, device) if pooled else [policy])
    if shard is not None:
        print(ensure_shard(study, policy, states, shard))
        return
    if policy.env is None:
        log.info("%s plays no game: neither returns nor baselines, but attacks on the states", policy.label)
        evaluation = ensure_attacks(study, policy, states)
    else:
        evaluation = [*ensure_baselines(study, policy), *ensure_evaluation(study, policy)]
    maps = ensure_maps(study, policy, states)
    figures = ensure_figures(policy, states, maps)
    null_networks = ensure_null_networks(study, policy, states)
    records = [*evaluation, *maps.records]
    print_records([*records, *null_networks])
    _track(study, tracking, config["scale"]["name"], policy, maps, records, null_networks, figures)
    print(maps.folder)


def _pool(config: Mapping[str, Any], policy: Agent, layout: Layout, device: torch.device) -> list[Agent]:
    """The policies whose states are pooled; they are looked up by the game, seed and scale of this run."""
    entries, game = config["pool"], config["env"]["game"]
    named = isinstance(entries, list) and len(entries) > 0 and all(isinstance(entry, str) for entry in entries)
    check(named, f"pool={entries!r}: expected a list of methods or policy files, as in pool=[ddqn,sa_ddqn]")
    check(policy.game == game, f"the policy is of {policy.game}, the pool of {game}: add env={policy.game}")
    return [load_policy(_pooled_path(config, entry, layout), device) for entry in entries]


def _pooled_path(config: Mapping[str, Any], entry: str, layout: Layout) -> Path:
    """The policy file of one entry of `pool`: a file itself, or a method with the settings of this run."""
    if entry.endswith(".safetensors"):
        return Path(entry)
    method = config["method"] if entry == config["method"]["name"] else read_option("method", entry, config)
    return _look_up({**config, "method": method}, layout)


def _look_up(config: Mapping[str, Any], layout: Layout) -> Path:
    place, settings = config["policies_from"], train_settings(config)
    if place == "reference":
        return reference_policy(settings, layout, scale=config["scale"]["name"])
    if place != "trained":
        raise unknown_choice("policies_from", place, ("trained", "reference"))
    return trained_policy(settings, layout)


def _track(
    study: Study,
    spec: TrackingSpec,
    scale: str,
    policy: Agent,
    maps: MapsResult,
    records: list[Record],
    null_networks: list[Record],
    figures: Mapping[str, Path],
) -> None:
    """Send the results to W&B, once: a repeated analysis with the same results is the same run."""
    settings = study.settings
    mode = decide_mode(spec, os.environ)
    rows = [asdict(record) for record in (*records, *null_networks)]
    identity = identity_of({"records": rows})
    sent = maps.folder / f"tracked-{mode}-{identity}"
    if mode == "disabled" or sent.exists():
        return
    temperatures = "-".join(f"{temperature:g}" for temperature in settings.maps.temperatures)
    with track(
        spec,
        job_type="analyze",
        name=f"{policy.label.replace('/', '-')}-{settings.states.label}-T{temperatures}",
        group=f"{policy.game}-{scale}",
        run_id=f"analyze-{identity}",
        config={"game": policy.game, "method": policy.method, "seed": policy.seed, **asdict(settings)},
        tags=(policy.game, policy.method, settings.states.label),
        folder=maps.folder,
    ) as tracker:
        tracker.table("records", list(rows[0]), [list(row.values()) for row in rows])
        headline = [record for record in records if not record.is_part and record.value is not None]
        tracker.summary({_summary_name(record): record.value for record in headline})
        tracker.summary(null_network_summary(null_networks))
        for name, path in figures.items():
            tracker.image(name, path)
        tracker.artifact(f"maps-{maps.folder.name}", "maps", [maps.folder / MAPS_FILE, maps.folder / METRICS_FILE])
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
    entry_point("analyze", analyze)
