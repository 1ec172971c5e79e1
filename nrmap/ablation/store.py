"""Store ablated Q-values on disk, so that later maps need no second ablation.

A folder has one subfolder per engine with `key.json` (the inputs) and `q_values.npy`, a float32
array [N, 1 + ablations, A] whose row 0 holds a state's clean Q-values. An unfinished file is named
`q_values.npy.partial`. `progress.json` counts the states safely written, and has a digest of the key
and of the Q-values of these states; an interrupted job continues with the next state.
"""

import hashlib
import json
import logging
import math
import os
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor

from nrmap.ablation.spec import AblatedChunk, Engine
from nrmap.support.errors import NrmapError, check, first_line, named, refused
from nrmap.support.files import read_json, regular_file, write_json
from nrmap.support.locks import locked
from nrmap.support.schema import Sha256, schema

log = logging.getLogger(__name__)
T = TypeVar("T")

DTYPE = np.dtype("<f4")
READ_BYTES = 32 * 2**20


def ablated_q_values(
    folder: Path,
    engine: Engine,
    states: Tensor,
    *,
    key: Mapping[str, Any],
    disk_budget: int,
    episode_ids: ArrayLike | None = None,
) -> Iterator[AblatedChunk]:
    """Yield the chunks of `engine.ablate(states, episode_ids)`: read from `folder`, or computed and stored there.

    `key` holds everything that determines the result, as JSON values: hashes of policy and states, ablated value and
    channel mode. If several processes need the same folder, one ablates and the others wait. States that a killed
    process has finished are read, not ablated again. The result takes 4·N·(1 + ablations of a state)·A bytes. If that
    is above `disk_budget`, the result is not stored and a line is logged.

    While iterating, raises NrmapError as `engine.ablate` and `locked` do. Also raises NrmapError if the folder belongs
    to other inputs, holds a file that is damaged or comes from another folder, or cannot be written.
    """
    ids = np.zeros(len(states)) if episode_ids is None else np.asarray(episode_ids)
    entry = _Entry(folder / engine.name, {**key, "engine": engine.name, "states_shape": list(states.shape)})
    if not entry.whole:
        (sample,) = engine.ablate(states[:1])
        size = len(states) * _rows(sample).nbytes
        if size > disk_budget:
            log.info("ablated Q-values take %s bytes, disk budget %s: not stored", f"{size:,}", f"{disk_budget:,}")
            yield from engine.ablate(states, ids)
            return
        waiting = f"{folder / engine.name}: waiting for another process to ablate the same states"
        with locked(folder / engine.name / ".lock", waiting):
            if not entry.whole:  # another process may have finished it while this one waited
                entry.begin(sample, len(states))
                yield from entry.read()
                yield from entry.extend(engine, states, ids)
                return
    yield from entry.read()


@schema
class _Key:
    """The content of key.json: all that determines the Q-values, and the shape of a state's ablations, [(C,) H, W]."""

    key: dict[str, Any]
    ablations: Annotated[tuple[Annotated[int, Field(ge=1, le=2**20)], ...], Field(max_length=3)]


@schema
class _Progress:
    """The content of progress.json: the number of states written, and the digest of key.json and their Q-values."""

    states: Annotated[int, Field(ge=0, le=2**40)]
    sha256: Sha256


class _Entry:
    """The stored Q-values of one engine for one key: an .npy file that grows chunk by chunk."""

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self._folder = folder
        self._key = key
        self._data = folder / "q_values.npy"
        self._partial = folder / "q_values.npy.partial"
        self._progress = folder / "progress.json"
        self._key_file = folder / "key.json"
        self._digest = hashlib.sha256()
        if self._key_file.exists():
            found = self._kept(self._key_file, _Key).key
            check(found == key, f"{folder} has ablated Q-values for {found}: expected {key}")

    @property
    def whole(self) -> bool:
        """Whether the Q-values of all states, and their digest, are stored."""
        return self._data.exists() and self._progress.exists()

    def begin(self, sample: AblatedChunk, num_states: int) -> None:
        """Create an empty file for `num_states` states shaped like `sample`, unless an unfinished file exists.

        Raises NrmapError if the folder cannot be written.
        """
        if self._progress.exists() and self._partial.exists():
            return
        with refused(f"cannot write {self._folder}"):
            for old in (self._progress, self._data, self._partial):
                old.unlink(missing_ok=True)
            header = {"descr": DTYPE.str, "fortran_order": False, "shape": (num_states, *_rows(sample).shape[1:])}
            with open(self._partial, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
        key = _Key(self._key, tuple(sample.q_values.shape[1:-1]))
        write_json(self._key_file, asdict(key))
        write_json(self._progress, {"states": 0, "sha256": _digest_of(key).hexdigest()})

    def read(self) -> Iterator[AblatedChunk]:
        """Yield the stored Q-values in chunks, also those of an unfinished file.

        Raises NrmapError if a file is missing or damaged, or if the Q-values do not fit their digest.
        """
        key, progress = self._kept(self._key_file, _Key), self._kept(self._progress, _Progress)
        ablations, self._digest = key.ablations, _digest_of(key)
        path = self._data if self.whole else self._partial
        offset, shape = self._layout(path)
        fits = len(shape) == 3 and shape[1] == 1 + math.prod(ablations) and shape[2] > 0
        check(fits, f"{path} is damaged (it has shape {shape}): remove {self._folder}")
        states = shape[0] if self.whole else progress.states
        if states == 0:
            return
        try:
            rows = np.memmap(path, DTYPE, mode="r", offset=offset, shape=(states, *shape[1:]))
        except (OSError, ValueError) as error:
            raise NrmapError(f"{path} is damaged (too short for {states} states): remove {self._folder}") from error
        step = max(1, READ_BYTES // rows[0].nbytes)
        for start in range(0, states, step):
            self._digest.update(rows[start : start + step].data)
        same = self._digest.hexdigest() == progress.sha256
        check(same, f"{path} has changed since it was written, or is of other inputs: remove {self._folder}")
        for start in range(0, states, step):
            q_values = torch.from_numpy(np.array(rows[start : start + step]))  # [n, 1 + ablations, A]
            yield AblatedChunk(start, q_values[:, 1:].unflatten(1, ablations), q_values[:, 0])

    def extend(self, engine: Engine, states: Tensor, episode_ids: NDArray[Any]) -> Iterator[AblatedChunk]:
        """Ablate the states that are not stored yet, and yield each chunk after writing it.

        Raises NrmapError as `engine.ablate` does, and if the folder cannot be written.
        """
        done = self._kept(self._progress, _Progress).states
        offset, shape = self._layout(self._partial)
        for chunk in engine.ablate(states[done:], episode_ids[done:]) if done < len(states) else ():
            chunk = replace(chunk, start=done + chunk.start)
            end = chunk.start + len(chunk.q_values)
            data = _rows(chunk).numpy().astype(DTYPE).tobytes()
            with refused(f"cannot write {self._folder}"), open(self._partial, "r+b") as file:
                file.seek(offset + chunk.start * math.prod(shape[1:]) * DTYPE.itemsize)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._digest.update(data)
            write_json(self._progress, {"states": end, "sha256": self._digest.hexdigest()})
            if end == len(states):
                self._finish()
            yield chunk
        if not self.whole:
            self._finish()

    def _finish(self) -> None:
        with refused(f"cannot write {self._folder}"):
            self._partial.replace(self._data)

    def _kept(self, path: Path, form: type[T]) -> T:
        with named(after=f": remove {self._folder}"):
            return read_json(path, form)

    def _layout(self, path: Path) -> tuple[int, tuple[int, ...]]:
        """Return the offset of the data in an .npy file, in bytes, and the array's shape [states, …].

        Raises NrmapError if the file is missing, damaged, not float32 or for another number of states.
        """
        try:
            with regular_file(path) as file:
                np.lib.format.read_magic(file)
                shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
                check(dtype == DTYPE and not in_columns, f"it has {dtype}")
                check(shape[:1] == tuple(self._key["states_shape"][:1]), f"it has shape {shape}")
                return file.tell(), shape
        except (NrmapError, ValueError, SyntaxError, tokenize.TokenError) as error:  # of damaged bytes
            raise NrmapError(f"{path} is damaged ({first_line(error)}): remove {self._folder}") from error


def _digest_of(key: _Key) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode())


def _rows(chunk: AblatedChunk) -> Tensor:
    """Concatenate the clean and ablated Q-values of `chunk`, [n, 1 + ablations, A]."""
    return torch.cat([chunk.clean_q_values[:, None], chunk.q_values.flatten(1, -2)], dim=1)
