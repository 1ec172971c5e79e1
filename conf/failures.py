"""Notes of failed jobs as files, because jobs may run on other machines than the command that waits for them."""

import os
from contextlib import suppress
from pathlib import Path

from nrmap.support.errors import LONGEST_ERROR, NrmapError
from nrmap.support.files import identity_of, regular_file, write_text

CLOCKS_DIFFER_BY = 2.0  # seconds, between this machine and the file server


class JobFailedError(NrmapError):
    """A job failed and left a note under `sweep_folder`, the folder of its sweep."""

    def __init__(self, message: str, sweep_folder: str = "") -> None:  # unpickling sets the folder afterwards
        super().__init__(message)
        self.sweep_folder = sweep_folder


def note_failure(folder: Path, job: str, line: str) -> None:
    """Write `line` about a failed `job` to a file in `folder`, its log folder; do nothing if that fails."""
    try:
        write_text(_marker(folder, job), line)
    except NrmapError:
        return


def forget_failure(folder: Path, job: str) -> None:
    """Remove notes about `job` from `folder` and its siblings: earlier sweeps may have numbered it differently."""
    marker = _marker(folder, job)
    for noted in folder.parent.glob(f"*/{marker.name}"):
        noted.unlink(missing_ok=True)


def failures_since(begun: float, sweep_folder: Path) -> list[str]:
    """Return the lines noted under `sweep_folder` since the time `begun`, in seconds since the epoch.

    Notes up to `CLOCKS_DIFFER_BY` seconds older count too. Notes that cannot be read are left out.
    """
    lines = []
    for path in sorted(sweep_folder.rglob("failed-*.txt")):
        with suppress(NrmapError, OSError), regular_file(path) as file:  # another sweep may remove it
            if os.fstat(file.fileno()).st_mtime > begun - CLOCKS_DIFFER_BY:
                lines.append(file.read(LONGEST_ERROR).decode(errors="replace"))
    return lines


def _marker(folder: Path, job: str) -> Path:
    return folder / f"failed-{identity_of({'job': job})}.txt"
