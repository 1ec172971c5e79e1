"""File locks between processes and hosts: one process makes a result while the others wait."""

import errno
import fcntl
import functools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from nrmap.support.errors import NrmapError, check
from nrmap.support.files import read_json
from nrmap.support.schema import schema

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
SIGN_OF_LIFE_SECONDS = 60.0  # between two touches of a lock file by its holder
MOST_SILENT_SECONDS = 900.0  # then a holder on another host counts as dead
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ENOLCK)


@schema
class Holder:
    """The process that holds a lock, and since when (ISO 8601, UTC)."""

    host: str
    pid: int
    since: str

    @property
    def is_here(self) -> bool:
        """Whether the process runs on this host; then the system releases its locks when it dies."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Whether the process ran on this host and has ended; False for other hosts."""
        if self.is_here:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            except (OSError, OverflowError):
                pass
        return False


@contextmanager
def locked(lock: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file `lock` during the block, after waiting while another process holds it.

    If the process dies, the system releases the lock. The wait logs `waiting` once, with the holder and how to take the
    lock. On a file system without locks, the existence of the file LOCK.held is the lock: a waiting process removes the
    file of a holder that died on this host, but a user must remove that of another host.

    Raises NrmapError if the files cannot be written or `lock` is a symbolic link. Raises NrmapError if a holder that is
    not known to be on this host gives no sign of life for `MOST_SILENT_SECONDS`.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle, held = _acquired(lock, waiting)
    except (OSError, ValueError) as error:  # ValueError for NUL in the path
        what = getattr(error, "filename", None) or lock
        raise NrmapError(f"cannot write {what}: {getattr(error, 'strerror', None) or error}") from error
    ended = threading.Event()
    signs = threading.Thread(target=_give_signs_of_life, args=(handle, ended), daemon=True)
    signs.start()
    try:
        yield
    finally:
        ended.set()
        signs.join()
        if held != lock:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(held)):  # else removed meanwhile, and taken by another
                    held.unlink()
        os.close(handle)


def _give_signs_of_life(handle: int, ended: threading.Event) -> None:
    while not ended.wait(SIGN_OF_LIFE_SECONDS):
        with suppress(OSError):
            os.utime(handle)


def _acquired(lock: Path, waiting: str) -> tuple[int, Path]:
    """Wait until no other process holds the lock; return the open file that holds it now, and its path.

    Raises NrmapError as `locked` does.
    """
    touched, seen, logged = 0, time.monotonic(), False
    while True:
        found = _try(lock)
        if isinstance(found, tuple):
            return found
        holder, now = _holder(found)
        if now != touched:
            touched, seen = now, time.monotonic()
        elsewhere = holder is None or not holder.is_here
        by = "another process" if holder is None else f"process {holder.pid} on {holder.host} since {holder.since}"
        silent = time.monotonic() - seen
        if elsewhere and silent > MOST_SILENT_SECONDS:
            quiet = f"no sign of life for {MOST_SILENT_SECONDS / 60:.0f} minutes"
            raise NrmapError(f"{found} is held by {by}, {quiet}: if that process is gone, remove the file")
        if not logged and (holder is not None or silent > 5):
            minutes = f"{MOST_SILENT_SECONDS / 60:.0f} minutes"
            limit = f" (waiting until {minutes} without a sign of life)" if elsewhere else ""
            log.info("%s: held by %s%s; to take the lock remove %s", waiting, by, limit, found)
            logged = True
        time.sleep(POLL_SECONDS)


def _try(lock: Path) -> tuple[int, Path] | Path:
    """Try to take the lock; return the open lock file and its path, or only the path if another process holds the lock.

    Raises NrmapError for a symbolic link, because the file that it points to would be overwritten.
    """
    check(not lock.is_symlink(), f"cannot lock {lock}: it is a symbolic link, expected a lock file")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(lock)):  # removed meanwhile, to take the lock
            raise BlockingIOError
        _sign(handle)
        return handle, lock
    except OSError as error:
        os.close(handle)
        if error.errno in _NO_LOCKS:
            return _exclusive_file(lock.with_name(f"{lock.name}.held"))
        if isinstance(error, BlockingIOError | FileNotFoundError):
            return lock
        raise


def _exclusive_file(path: Path) -> tuple[int, Path] | Path:
    """Try to take the lock by creating `path`; return what `_try` does.

    Remove the file of a holder that has died on this host.
    """
    _say_that_there_are_no_locks(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        holder, _ = _holder(path)
        if holder is not None and holder.is_dead:
            path.unlink(missing_ok=True)
        return path
    _sign(handle)
    return handle, path


@functools.cache
def _say_that_there_are_no_locks(folder: Path) -> None:
    log.warning("%s: no locks on this file system; files that end in .held take their place", folder)


def _sign(handle: int) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(asdict(Holder(socket.gethostname(), os.getpid(), since))).encode(), 0)


def _holder(path: Path) -> tuple[Holder | None, int]:
    """Return a lock file's holder and modification time in ns; None and 0 if it is empty or cannot be read."""
    try:
        return read_json(path, Holder), path.stat().st_mtime_ns
    except (NrmapError, OSError):
        return None, 0
