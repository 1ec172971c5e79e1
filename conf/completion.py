"""`python -m conf.completion train method=sa env=Fre`: print completions of the last word, one per line.

Used by conf/completion.bash, because Hydra's own completion does not recognise `python -m`.
"""

import sys
from collections.abc import Sequence

from hydra import initialize_config_module
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra

from conf.command_line import register_games


def completions(config_name: str, words: Sequence[str]) -> list[str]:
    """Return the completions of the last of `words`, the arguments (at least one) of the command `config_name`.

    In a sweep such as `env=Freeway,Po`, only the last value is completed. Raises Hydra's own errors.
    """
    register_games()
    *before, word = words
    key, equals, values = word.partition("=")
    first_values, comma, last_value = values.rpartition(",")
    with initialize_config_module("conf", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        plugin = BashCompletion(hydra.config_loader)
        # Hydra cannot compose a sweep in an earlier word; each of its values has the same keys.
        line = " ".join([*(_first_value(earlier) for earlier in before), f"{key}{equals}{last_value}"])
        found = plugin._query(config_name=config_name, line=line)
    found = [choice for choice in found if choice.partition("=")[2] != "base"]  # only other files include it
    if comma:
        found = [choice.replace("=", f"={first_values},", 1) for choice in found]
    return found


def _first_value(word: str) -> str:
    key, equals, values = word.partition("=")
    return word if values[:1] in ("[", "{", "'", '"') else f"{key}{equals}{values.partition(',')[0]}"


if __name__ == "__main__":
    print("\n".join(completions(sys.argv[1], sys.argv[2:])))
