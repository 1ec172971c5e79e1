"""Convert another program's policy file: `python -m analyze.import_policy policy=sb3:FILE.zip env=Pong`.

The first import plays 3 clean episodes. Prints the path of the policy file. docs/agents.md describes the formats.
Of the options below it uses policy, env, env.eyes, seed, scale, input_scale, expect and outputs. `python -m analyze`
with the same options converts and then analyses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analyze.agents import import_file
from conf.entry import entry_point
from conf.schema import AnalyzeKeys
from nrmap.support.errors import check
from nrmap.support.schema import validated


def read(values: Mapping[str, Any], here: bool) -> AnalyzeKeys:
    """Validate the keys of conf/analyze.yaml. Raises NrmapError for a wrong value, and without `policy`.

    An import uses `policy`, `env`, `seed`, `scale`, `input_scale`, `expect` and `outputs`. `here` is unused:
    `entry_point` requires it.
    """
    keys = validated(AnalyzeKeys, values)
    check(keys.policy is not None, "no policy named: expected policy=FORMAT:FILE, as in policy=sb3:FILE.zip")
    return keys


def convert(keys: AnalyzeKeys, given: Sequence[str]) -> None:
    """Convert the policy file of `keys` and print the path of the new file. Raises NrmapError as `import_file` does."""
    print(import_file(keys, given))


if __name__ == "__main__":
    entry_point("analyze", read, convert)
