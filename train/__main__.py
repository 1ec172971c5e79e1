"""Train a policy and print the path of its file: `python -m train env=Freeway method=sa_ddqn seed=0`.

If the method starts from the vanilla policy and that is missing, trains the vanilla policy first.
A repeated command finds the finished policy, or resumes the training from its checkpoint.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from conf.entry import entry_point
from conf.machine import check_file, check_machine, check_memory
from conf.schema import TrainKeys
from conf.train_settings import train_settings
from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.support.clock import Clock
from nrmap.support.layout import Layout
from nrmap.support.runtime import choose_device, keep_freed_memory
from nrmap.support.schema import validated
from train.run import RunOptions, ensure_trained, missing_trainings, training_part


def read(values: Mapping[str, Any], here: bool) -> tuple[TrainKeys, TrainSettings]:
    """Check `values` of the keys of conf/train.yaml; return the keys and the settings of the training.

    With `here`, also check that this machine has the device, threads, memory and files that the keys ask for. Raises
    NrmapError for a wrong value.
    """
    keys = validated(TrainKeys, values)
    settings = train_settings(keys)
    if here:
        check_machine(keys)
        if isinstance(settings.parent, PolicyFile):
            check_file("method.start_from", settings.parent.path)
        check_memory(settings)
    return keys, settings


def train(command: tuple[TrainKeys, TrainSettings], given: Sequence[str]) -> None:
    """Train the policy of `command`, the result of `read`, unless its file exists; print the path of the file.

    `given` are the options on the command line. Raises NrmapError as `ensure_trained` does.
    """
    keys, settings = command
    keep_freed_memory()
    if keys.threads:
        torch.set_num_threads(keys.threads)

    layout = Layout(Path(keys.outputs))
    options = RunOptions(keys, choose_device(keys.device), layout, Clock(layout.durations), given)
    options.clock.plan(settings.label, map(training_part, missing_trainings(settings, layout)))
    print(ensure_trained(settings, options))


if __name__ == "__main__":
    entry_point("train", read, train)
