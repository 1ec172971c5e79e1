"""`python -m analyze policy=FILE`: states, evaluation, maps, and what was measured on them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from analyze.figures import map_figures
from analyze.settings import AnalysisSettings, Resources, analysis_settings
from analyze.stages import MapsResult, StatesFile, ensure_baselines, ensure_evaluation, ensure_maps, ensure_states
from analyze.tables import print_records
from conf.choices import read_option
from conf.entry import entry_point
from nrmap.layout import Layout
from nrmap.learning.lookup import trained_policy
from nrmap.learning.settings import build, train_settings
from nrmap.policy import Policy, load_policy
from nrmap.records import Record
from nrmap.runtime import choose_device, keep_freed_memory
from nrmap.tracking import Tracker, TrackingSpec, track


def analyze(config: Mapping[str, Any]) -> None:
    """Do what `config`, the nodes of conf/analyze.yaml, asks for; finished stages are not done again."""
    settings = analysis_settings(config)
    device = choose_device(config["device"])
    layout = Layout(Path(config["outputs"]))
    resources = Resources(engine=config["engine"], disk_budget=int(config["disk_budget_gb"] * 1e9))
    keep_freed_memory()
    if config["threads"]:
        torch.set_num_threads(config["threads"])

    policy = load_policy(_policy_path(config, layout), device)
    sources = [policy]
    if settings.states.states_from == "pool":
        sources = [load_policy(_pooled_path(config, entry, layout), device) for entry in config["pool"]]
    states = ensure_states(sources, settings.states, layout=layout, device=device)
    evaluation = ensure_baselines(policy.env, settings.evaluation, layout=layout)
    evaluation += ensure_evaluation(policy, settings.evaluation, layout=layout, device=device)
    maps = ensure_maps(
        policy, states, settings.maps, states_from=settings.states.label, resources=resources, layout=layout
    )
    print_records([*evaluation, *maps.records])
    with _tracker(config, policy, settings, maps) as tracker:
        _track(tracker, policy, states, evaluation, maps)
    print(maps.folder)


def _policy_path(config: Mapping[str, Any], layout: Layout) -> Path:
    if config["policy"] is not None:
        return Path(config["policy"])
    return trained_policy(train_settings(config), layout)


def _pooled_path(config: Mapping[str, Any], entry: str, layout: Layout) -> Path:
    """The policy file of one entry of `pool`: a file itself, or a method with the settings of this run."""
    if entry.endswith(".safetensors"):
        return Path(entry)
    method = config["method"] if entry == config["method"]["name"] else read_option("method", entry)
    return trained_policy(train_settings({**config, "method": method}), layout)


def _tracker(config: Mapping[str, Any], policy: Policy, settings: AnalysisSettings, maps: MapsResult) -> Any:
    card = policy.card
    temperatures = "-".join(f"{temperature:g}" for temperature in settings.maps.temperatures)
    return track(
        build(TrackingSpec, config["wandb"], "wandb"),
        job_type="analyze",
        name=f"{policy.label.replace('/', '-')}-{settings.states.label}-T{temperatures}",
        group=f"{policy.env.game}-{config['scale']['name']}",
        run_id=f"analyze-{maps.folder.name}",
        config={"game": policy.env.game, "method": card.method, "seed": card.seed, **asdict(settings)},
        tags=(policy.env.game, card.method, settings.states.label),
        folder=maps.folder,
    )


def _track(tracker: Tracker, policy: Policy, states: StatesFile, evaluation: list[Record], maps: MapsResult) -> None:
    records = [*evaluation, *maps.records]
    columns = list(asdict(records[0]))
    tracker.table("records", columns, [list(asdict(record).values()) for record in records])
    shown = [record for record in records if record.item is None and record.value is not None]
    tracker.summary({_summary_name(record): record.value for record in shown})
    for name, path in map_figures(maps.maps, policy=policy, states=states.states, folder=maps.folder).items():
        tracker.image(name, path)
    tracker.artifact(f"maps-{maps.folder.name}", "maps", sorted(maps.folder.glob("*.*")))


def _summary_name(record: Record) -> str:
    parts = [record.metric, record.attack, record.attack_epsilon, record.temperature]
    return "/".join(f"{part:.3g}" if isinstance(part, float) else str(part) for part in parts if part is not None)


if __name__ == "__main__":
    entry_point("analyze", analyze)
