"""Convert another program's policy file: `python -m analyze.import_policy policy=sb3:FILE.zip env=Pong`.

Plays 3 clean episodes with it, and prints the path of the converted file. docs/agents.md describes the formats.
`python -m analyze` with the same options converts and then analyses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analyze.agents import import_file
from conf.entry import entry_point
from conf.schema import AnalyzeKeys
from nrmap.support.errors import check
from nrmap.support.schema import validated


def read(values: Mapping[str, Any], here: bool) -> AnalyzeKeys:
    """The keys of conf/analyze.yaml; an import uses `policy`, `env`, `seed`, `input_scale` and `expect`."""
    keys = validated(AnalyzeKeys, values)
    check(keys.policy is not None, "no policy named: expected policy=FORMAT:FILE, as in policy=sb3:FILE.zip")
    return keys


def convert(keys: AnalyzeKeys, given: Sequence[str]) -> None:
    """Import the policy that `keys` name and print the path of its file."""
    print(import_file(keys, given))


if __name__ == "__main__":
    entry_point("analyze", read, convert)
