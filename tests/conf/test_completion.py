"""Completion on the command line, asked of bash itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf.choices import group_options
from conf.completion import completions
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
complete -p python python3 >&2
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("train env=Fre", ["env=Freeway"]),
        ("analyze -m seed=0,1 env=Pong,S", [f"env=Pong,{game}" for game in game_names() if game.startswith("S")]),
        ("train scale.le", ["scale.learner."]),
        ("analyze temp", ["temperature="]),
        ("train method=", [f"method={name}" for name in group_options("method")]),
        ("train env=sa_ddqn", []),
    ],
)
def test_words_are_completed(arguments: str, expected: list[str]) -> None:
    name, *words = arguments.split()
    assert completions(name, words) == expected


@pytest.mark.parametrize(
    ("word_breaks", "arguments", "expected"),
    [
        (" \t\n", "-m train env=Fre", ["env=Freeway "]),
        (" \t\n\"'><=;|&(:", "-m train env=Pong,Fre", ["Pong,Freeway "]),  # as by default
        (" \t\n", "-m pytest env=Fre", [""]),
    ],
)
def test_bash_asks_and_adds_spaces(word_breaks: str, arguments: str, expected: list[str]) -> None:
    command = ["bash", "--norc", "-c", PRESS_TAB, "bash", f"{sys.executable} {arguments}", word_breaks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr.count("-F _nrmap_complete") == 2, done.stderr
    assert done.stdout.removesuffix("\n").split("\n") == expected
