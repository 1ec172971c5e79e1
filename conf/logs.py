"""Choose log folders: named after the policy file of an analysis, temporary where the results are read-only."""

import errno
import logging
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nrmap.support.errors import check


class LogFile(logging.FileHandler):
    """A log file that must be a regular file, because to open a pipe would block. Raises OSError for another kind."""

    def _open(self) -> Any:
        if os.path.exists(self.baseFilename) and not stat.S_ISREG(os.stat(self.baseFilename).st_mode):
            raise OSError(errno.EEXIST, "it is there and no regular file", self.baseFilename)
        self.encoding, self.errors = "utf-8", "backslashreplace"
        return super()._open()


def with_writable_logs(arguments: Sequence[str], outputs: Path | None) -> list[str]:
    """Return a copy of `arguments`, with a new temporary log folder if `outputs` exists but is read-only.

    No folder is added if `arguments` set one already, or if `outputs` is None. Raises NrmapError if
    `outputs`/logs/*/multirun.yaml, Hydra's list of a sweep's jobs, exists but is no regular file: a pipe would block.
    """
    for written in (outputs / "logs").glob("*/multirun.yaml") if outputs else ():
        check(written.is_file(), f"cannot write {written}: it is there and no regular file")
    own = any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments)
    if own or outputs is None or not os.path.isdir(outputs) or os.access(outputs, os.W_OK):
        return list(arguments)
    logs = tempfile.mkdtemp(prefix="nrmap-logs-")
    return [*arguments, f"hydra.run.dir='{logs}'", f"hydra.sweep.dir='{logs}'"]


def _name_of_logs(policy: str | None, trained: str) -> str:
    """Return the log folder of an analysis: a name made of the path of the file `policy`, or `trained` if None."""
    if policy is None:
        return trained
    path = re.sub(r"[^\w.=+-]+", "-", "/".join(Path(str(policy)).with_suffix("").parts[-5:]))
    # File systems count bytes.
    return f"policies/{path.strip('-.').encode()[-100:].decode(errors='ignore')}"


OmegaConf.register_new_resolver("name_of_logs", _name_of_logs, replace=True)
