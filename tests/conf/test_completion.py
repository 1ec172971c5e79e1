"""Completion on the command line, asked of bash itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf.choices import group_options
from nrmap.atari.games import game_names

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed"),
    pytest.mark.timeout(600),
]

# What bash does when Tab is pressed behind the line "$1", given the characters "$2" that break words.
PRESS_TAB = r"""
source conf/completion.bash
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$2
_nrmap_complete
printf '%s\n' "${COMPREPLY[@]}"
"""


def completions(arguments: str, *, word_breaks: str = " \t\n", python: str = sys.executable) -> list[str]:
    """The replies to Tab behind `python arguments`."""
    command = ["bash", "--norc", "-c", PRESS_TAB, "bash", f"{python} {arguments}", word_breaks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr == ""
    return done.stdout.removesuffix("\n").split("\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-m train env=Fre", ["env=Freeway "]),
        ("-m analyze -m seed=0,1 env=Pong,S", [f"env=Pong,{game}" for game in game_names() if game.startswith("S")]),
        ("-m train scale.le", ["scale.learner."]),
        ("-m analyze temp", ["temperature="]),
        ("-m train method=", [f"method={name}" for name in group_options("method")]),
        ("-m train env=sa_ddqn", [""]),
        ("-m pytest env=Fre", [""]),
    ],
)
def test_tab(arguments: str, expected: list[str]) -> None:
    assert completions(arguments) == expected


def test_tab_where_the_equals_sign_breaks_words() -> None:
    """This is so by default."""
    assert completions("-m train env=Fre", word_breaks=" \t\n\"'><=;|&(:") == ["Freeway "]
    assert completions("-m train env=Pong,Fre", word_breaks="=") == ["Pong,Freeway "]


def test_every_key_and_group_is_offered() -> None:
    offered = completions("-m analyze ")
    assert {"env=", "method=", "scale=", "seed=", "temperature=", "scale.", "policy="} <= set(offered)


def test_bash_knows_when_to_ask() -> None:
    listed = subprocess.run(
        ["bash", "--norc", "-c", "source conf/completion.bash; complete -p python python3"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=dict(os.environ),
    ).stdout  # fmt: skip
    assert listed.count("-F _nrmap_complete") == 2
