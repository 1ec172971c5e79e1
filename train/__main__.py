"""`python -m train env=Freeway method=sa_ddqn seed=0 scale=quick`: a trained policy file."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from conf.entry import entry_point
from nrmap.layout import Layout
from nrmap.learning.settings import TrainSettings, build, train_settings
from nrmap.runtime import choose_device, keep_freed_memory
from nrmap.tracking import Tracker, TrackingSpec, track
from train.run import RunOptions, ensure_trained


def train(config: Mapping[str, Any]) -> None:
    """Train the policy that `config` describes, unless it is there already."""
    settings = train_settings(config)
    keep_freed_memory()
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    tracking = build(TrackingSpec, config["wandb"], "wandb")

    def open_tracker(settings: TrainSettings, identity: str, folder: Path) -> AbstractContextManager[Tracker]:
        return track(
            tracking,
            job_type="train",
            name=f"{settings.env.game}-{settings.method}-seed{settings.seed}",
            group=f"{settings.env.game}-{config['scale']['name']}",
            run_id=f"train-{identity}",
            config=asdict(settings),
            tags=(settings.env.game, settings.method),
            folder=folder,
        )

    options = RunOptions(
        layout=Layout(Path(config["outputs"])),
        device=choose_device(config["device"]),
        checkpoint_seconds=config["checkpoint_seconds"],
        open_tracker=open_tracker,
    )
    print(ensure_trained(settings, options))


if __name__ == "__main__":
    entry_point("train", train)
