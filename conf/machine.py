"""Check that the machine has what the keys of conf/ ask for: a device, threads, files, memory."""

import os

from conf.schema import CommandKeys
from nrmap.learning.settings import TrainSettings
from nrmap.support.runtime import choose_device, memory_bytes
from nrmap.support.schema import SettingError, as_typed

# Torch survives this many threads on any machine.
_SAFE_THREADS = 64
# Bytes of a replay slot besides its frame, and bytes for each pixel of a batch: activations and gradients.
_BYTES_PER_SLOT, _BYTES_PER_PIXEL = 40, 60


def check_machine(keys: CommandKeys) -> None:
    """Raise NrmapError for a device that is not here, and for more threads than both 64 and the number of cores."""
    choose_device(keys.device)
    most = max(os.cpu_count() or 1, _SAFE_THREADS)
    if keys.threads > most:
        raise SettingError("threads", f"={keys.threads}: expected at most {most} on this machine")


def check_file(key: str, path: str) -> None:
    """Raise NrmapError, which names the setting `key`, unless `path` is a file."""
    if not os.path.isfile(path):
        there = "this is none" if os.path.exists(path) else "there is none of this name"
        raise SettingError(key, f"={as_typed(path)}: expected a file, {there}")


def check_memory(settings: TrainSettings) -> None:
    """Raise NrmapError if the replay or a batch alone needs, by an estimate, more memory than this process may use."""
    memory, (channels, height, width) = memory_bytes(), settings.env.state_shape
    slot, state = height * width + _BYTES_PER_SLOT, channels * height * width * _BYTES_PER_PIXEL
    for key, number, size in (
        ("scale.replay.capacity", settings.replay.capacity, slot),
        ("scale.learner.batch_size", settings.learner.batch_size, state),
    ):
        if number * size > memory:
            needed = f"it takes {number * size / 1e9:,.0f} GB of memory, this machine has {memory / 1e9:,.0f}"
            raise SettingError(key, f"={number}: expected at most {memory // size:,}, as {needed}")
