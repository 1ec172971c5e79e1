"""Convert another program's policy file: `python -m analyze.import_policy policy=sb3:FILE.zip env=Pong`.

Plays 3 clean episodes with it, and prints the path of the converted file. docs/agents.md describes the formats.
`python -m analyze` with the same options converts and then analyses.
"""

from collections.abc import Mapping
from typing import Any

from analyze.agents import import_file
from conf.entry import entry_point
from nrmap.support.errors import check


def convert(config: Mapping[str, Any]) -> None:
    """Import the policy that `config` names and print the path of its file."""
    check(config["policy"] is not None, "no policy named: expected policy=FORMAT:FILE, as in policy=sb3:FILE.zip")
    print(import_file(config))


if __name__ == "__main__":
    entry_point("analyze", convert)
