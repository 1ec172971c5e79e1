"""Which jobs of a sweep failed, as files: the jobs may run on other machines than the command that waits for them."""

import os
from pathlib import Path

from nrmap.support.errors import NrmapError
from nrmap.support.files import identity_of, write_text

CLOCKS_DIFFER_BY = 2.0  # seconds, between this machine and the file server


class JobFailedError(NrmapError):
    """A job of the sweep whose folder is `sweep_folder` failed, and has noted so."""

    def __init__(self, message: str, sweep_folder: str) -> None:
        super().__init__(message, sweep_folder)  # both, so that a pickled error comes back whole
        self.sweep_folder = sweep_folder

    def __str__(self) -> str:
        return str(self.args[0])


def note_failure(folder: Path, job: str, line: str) -> None:
    """Leave `line` about `job` in its log `folder`; where that cannot be written there is only the log."""
    try:
        write_text(_marker(folder, job), line)
    except NrmapError:
        return


def forget_failure(folder: Path, job: str) -> None:
    """Remove what earlier sweeps noted about the same `job`, whose place in them, and so folder, may have differed."""
    marker = _marker(folder, job)
    for noted in folder.parent.glob(f"*/{marker.name}"):
        noted.unlink(missing_ok=True)


def failures_since(begun: float, sweep_folder: Path) -> list[str]:
    """The lines of the jobs that failed under `sweep_folder` after the time `begun`."""
    paths = sorted(sweep_folder.rglob("failed-*.txt"))
    return [path.read_text() for path in paths if os.stat(path).st_mtime > begun - CLOCKS_DIFFER_BY]


def _marker(folder: Path, job: str) -> Path:
    return folder / f"failed-{identity_of({'job': job})}.txt"
