"""Atomic file writes, and identities that decide whether a result can be reused."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nrmap.support.errors import NrmapError

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
