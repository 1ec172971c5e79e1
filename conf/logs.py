"""Where the logs of a command go if the folder of results cannot be written: finished results are found there too."""

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf


def with_writable_logs(arguments: Sequence[str]) -> list[str]:
    """`arguments` with a log folder of their own if the last `outputs='FOLDER'` among them cannot be written."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("outputs=")]
    folder = Path(given[-1].strip("'").replace("\\'", "'")) if given else Path("outputs")
    own = any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments)
    if own or not folder.is_dir() or os.access(folder, os.W_OK):
        return list(arguments)
    logs = tempfile.mkdtemp(prefix="nrmap-logs-")
    return [*arguments, f"hydra.run.dir='{logs}'", f"hydra.sweep.dir='{logs}'"]


def _name_of_logs(policy: str | None, trained: str) -> str:
    """The folder of an analysis' logs: `trained`, or a name made of the path of a `policy` file."""
    if policy is None:
        return trained
    path = re.sub(r"[^\w.=+-]+", "-", "/".join(Path(str(policy)).with_suffix("").parts[-5:]))
    return f"policies/{path.strip('-.')[-100:]}"


OmegaConf.register_new_resolver("name_of_logs", _name_of_logs, replace=True)
