"""Atomic file writes, reads with clear errors, locks, and identities that decide whether a result can be reused."""

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from nrmap.support.errors import NrmapError, check

log = logging.getLogger(__name__)

IDENTITY_LENGTH = 12
# Names of unfinished files; unlike the dotfiles of network file systems and other programs.
TEMPORARY_PREFIX = ".unfinished-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error.

    On any error the temporary file is removed and `path` stays as it was. Permissions follow the
    umask. Raises NrmapError if the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = os.fstat(handle).st_mode & 0o777
        os.close(handle)
    except OSError as error:
        raise NrmapError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # some writers replace the file, and its mode
        temporary.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors raises its own for a full disk
        raise NrmapError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(lock: Path, waiting: str) -> Iterator[None]:
    """Hold the file lock `lock` during the block; the system releases it if the process dies.

    While another process holds it, waits, and logs the line `waiting`. Raises NrmapError if the
    folder cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(lock)
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            log.info("%s", waiting)
            held.acquire()
    except OSError as error:
        raise NrmapError(f"cannot write {lock.parent}: {error.strerror or error}") from error
    try:
        yield
    finally:
        held.release()


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of killed processes. No process may be writing to `folder`."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; NrmapError if it is missing, unreadable or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise NrmapError(f"no file {path}") from error
    except OSError as error:
        raise NrmapError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NrmapError(f"{path} is not a JSON file ({error})") from error


def write_npz(path: Path, header_key: str, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write `arrays` to `path` as npz, atomically, with `header` as JSON under `header_key`.

    Equal content gives equal bytes. ValueError for NaN and infinity in the header.
    """
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{header_key: text, **arrays})


def read_npz(path: Path, header_key: str, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays in a file by `write_npz`; `kind` is a noun for errors ("states").

    Raises NrmapError if the file is missing, damaged, or has no such header.
    """
    check(path.is_file(), f"no {kind} file {path}")
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {name: loaded[name] for name in loaded.files}
        has_header = header_key in arrays
        header = json.loads(str(arrays.pop(header_key))) if has_header else {}
    except Exception as error:  # numpy, zipfile and tokenize have many for damaged bytes
        raise NrmapError(f"{path} is not a readable {kind} file: {error}") from error
    check(has_header, f"{path} is an npz file but not a {kind} file: it has no {header_key!r} entry")
    check(isinstance(header, dict), f"{path} is damaged: its header is unreadable")
    return header, arrays


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; NrmapError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NrmapError(f"cannot read {path}: {error.strerror or error}") from error


def identity_of(settings: Mapping[str, Any]) -> str:
    """A short hash of `settings`, which names a result.

    `settings` has everything that the result depends on, including the hashes of input files, and
    nothing else: no paths, no device, no W&B.
    """
    canonical = json.dumps(settings, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:IDENTITY_LENGTH]
