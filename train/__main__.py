"""Train a policy and print its file: `python -m train env=Freeway method=sa_ddqn seed=0`.

Trains the vanilla policy first if the method starts from it and it is missing. A repeated command
finds the finished policy or resumes from its checkpoint.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from conf.entry import entry_point
from conf.schema import TrainKeys
from conf.training import check_file, check_machine, check_memory, train_settings
from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.support.clock import Clock
from nrmap.support.identity import recorded
from nrmap.support.layout import Layout
from nrmap.support.runtime import choose_device, choose_precision, keep_freed_memory
from nrmap.support.schema import validated
from nrmap.support.tracking import Tracker, track
from train.run import RunOptions, ensure_trained, missing_trainings, training_part


def read(values: Mapping[str, Any], here: bool) -> tuple[TrainKeys, TrainSettings]:
    """The keys of conf/train.yaml and the settings of the training; with `here` this machine must have room for it."""
    keys = validated(TrainKeys, values)
    settings = train_settings(keys)
    if here:
        check_machine(keys)
        if isinstance(settings.parent, PolicyFile):
            check_file("method.start_from", settings.parent.path)
        check_memory(settings)
    return keys, settings


def train(command: tuple[TrainKeys, TrainSettings], given: Sequence[str]) -> None:
    """Train the policy of `command`, unless it exists; `given` are the options on the command line."""
    keys, settings = command
    keep_freed_memory()
    if keys.threads:
        torch.set_num_threads(keys.threads)

    def open_tracker(settings: TrainSettings, identity: str, folder: Path) -> AbstractContextManager[Tracker]:
        return track(
            keys.wandb,
            job_type="train",
            name=f"{settings.env.game}-{settings.method}-seed{settings.seed}",
            group=f"{settings.env.game}-{keys.scale['name']}",
            run_id=f"train-{identity}",
            config={"game": settings.env.game, **recorded(settings)},
            tags=(settings.env.game, settings.method),
            folder=folder,
        )

    device, layout = choose_device(keys.device), Layout(Path(keys.outputs))
    options = RunOptions(
        layout=layout,
        device=device,
        precision=choose_precision(keys.precision, device),
        any_precision=keys.precision == "auto",
        graphs=keys.cuda == "graphs",
        checkpoint_seconds=keys.checkpoint_seconds,
        greedy_every=keys.greedy_every,
        greedy_episodes=keys.greedy_episodes,
        open_tracker=open_tracker,
        given=given,
        clock=Clock(layout.durations),
    )
    options.clock.plan(settings.label, map(training_part, missing_trainings(settings, layout)))
    print(ensure_trained(settings, options))


if __name__ == "__main__":
    entry_point("train", read, train)
