"""Train a policy and print its file: `python -m train env=Freeway method=sa_ddqn seed=0`.

Trains the vanilla policy first if the method starts from it and it is missing. A repeated command
finds the finished policy or resumes from its checkpoint.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from conf.entry import entry_point
from nrmap.learning.settings import TrainSettings, train_settings
from nrmap.support.errors import check_fields, unknown_choice
from nrmap.support.identity import recorded
from nrmap.support.layout import Layout
from nrmap.support.mappings import build
from nrmap.support.runtime import choose_device, choose_precision, keep_freed_memory
from nrmap.support.tracking import Tracker, TrackingSpec, track
from train.run import RunOptions, ensure_trained

CUDA_MODES = ("graphs", "eager")


@dataclass(frozen=True)
class ComputeOptions:
    """Device, precision and bookkeeping of a training; enters no identity. `threads` 0 leaves their number to torch."""

    device: str
    cuda: str
    precision: str
    threads: int
    checkpoint_seconds: float
    greedy_every: int
    greedy_episodes: int

    def __post_init__(self) -> None:
        check_fields(self, 0, "threads", "checkpoint_seconds", "greedy_every")
        check_fields(self, 1, "greedy_episodes")
        if self.cuda not in CUDA_MODES:
            raise unknown_choice("cuda", self.cuda, CUDA_MODES)


def train(config: Mapping[str, Any]) -> None:
    """Train the policy of `config`, the nodes of conf/train.yaml, unless it exists."""
    settings = train_settings(config)
    compute = build(ComputeOptions, {field.name: config[field.name] for field in fields(ComputeOptions)}, "train")
    keep_freed_memory()
    if compute.threads:
        torch.set_num_threads(compute.threads)
    tracking = build(TrackingSpec, config["wandb"], "wandb")

    def open_tracker(settings: TrainSettings, identity: str, folder: Path) -> AbstractContextManager[Tracker]:
        return track(
            tracking,
            job_type="train",
            name=f"{settings.env.game}-{settings.method}-seed{settings.seed}",
            group=f"{settings.env.game}-{config['scale']['name']}",
            run_id=f"train-{identity}",
            config={"game": settings.env.game, **recorded(settings)},
            tags=(settings.env.game, settings.method),
            folder=folder,
        )

    device = choose_device(compute.device)
    options = RunOptions(
        layout=Layout(Path(config["outputs"])),
        device=device,
        precision=choose_precision(compute.precision, device),
        any_precision=compute.precision == "auto",
        graphs=compute.cuda == "graphs",
        checkpoint_seconds=compute.checkpoint_seconds,
        greedy_every=compute.greedy_every,
        greedy_episodes=compute.greedy_episodes,
        open_tracker=open_tracker,
        given=config["given"],
    )
    print(ensure_trained(settings, options))


if __name__ == "__main__":
    entry_point("train", train)
