"""Ablated Q-values on disk: computed once, read by every temperature and every job after."""

import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor

from nrmap.ablation.spec import AblatedChunk, Engine
from nrmap.errors import NrmapError
from nrmap.files import atomic_path, write_json

log = logging.getLogger(__name__)

READ_STATES = 16  # states of one chunk that is read back


def ablated_q_values(
    folder: Path, engine: Engine, states: Tensor, *, key: Mapping[str, Any], disk_budget: int
) -> Iterator[AblatedChunk]:
    """The ablated Q-values of `states` [N, C, H, W], from `folder` if they are there, else computed and kept.

    `key` says what they depend on (policy, states, ablation); `folder` belongs to it alone. Of
    several processes one computes, the others wait and read. Where all would take more than
    `disk_budget` bytes they are computed and not kept. Raises NrmapError when the folder holds
    those of another key, or cannot be written.
    """
    if _is_whole(folder, key):
        yield from _read(folder)
        return
    chunks = engine.ablate(states)
    first = next(chunks)
    size = 4 * len(states) * (first.q_values[0].numel() + first.clean_q_values[0].numel())
    if size > disk_budget:
        log.info("%.2f GB of ablated Q-values are over the budget of %.2f GB: not kept", size / 1e9, disk_budget / 1e9)
        yield first
        yield from chunks
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            if not _is_whole(folder, key):
                _write(folder, first, chunks, num_states=len(states))
                write_json(folder / "key.json", dict(key))
    except OSError as error:
        raise NrmapError(f"cannot write {folder}: {error.strerror or error}") from error
    yield from _read(folder)


def _is_whole(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether the Q-values are all there; the key is written last."""
    if not (folder / "key.json").is_file():
        return False
    found = json.loads((folder / "key.json").read_text())
    if found != dict(key):
        raise NrmapError(f"{folder} holds the ablated Q-values of {found}: expected {dict(key)}")
    return True


def _write(folder: Path, first: AblatedChunk, chunks: Iterator[AblatedChunk], *, num_states: int) -> None:
    with atomic_path(folder / "q_values.npy") as ablated, atomic_path(folder / "clean_q_values.npy") as clean:
        shapes = (num_states, *first.q_values.shape[1:]), (num_states, *first.clean_q_values.shape[1:])
        files = [
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            for path, shape in zip((ablated, clean), shapes, strict=True)
        ]
        for chunk in itertools.chain([first], chunks):
            rows = slice(chunk.start, chunk.start + len(chunk.q_values))
            files[0][rows] = chunk.q_values.numpy()
            files[1][rows] = chunk.clean_q_values.numpy()
        for file in files:
            file.flush()


def _read(folder: Path) -> Iterator[AblatedChunk]:
    ablated = np.load(folder / "q_values.npy", mmap_mode="r", allow_pickle=False)
    clean = np.load(folder / "clean_q_values.npy", allow_pickle=False)
    for start in range(0, len(ablated), READ_STATES):
        rows = slice(start, start + READ_STATES)
        yield AblatedChunk(start, torch.from_numpy(np.array(ablated[rows])), torch.from_numpy(clean[rows]))
