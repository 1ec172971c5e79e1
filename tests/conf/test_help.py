"""`--help` explains options that exist, with the defaults that they have."""

import contextlib
import re
import runpy
import sys

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from conf.choices import group_options
from conf.command_line import register_games
from conf.help import command_help
from nrmap.atari.games import game_names

COMMANDS = ("train", "analyze")


def described(command):
    """Keys (as users type them) and defaults (None without one) in the help."""
    text = command_help(command, command, "", width=10_000)
    for keys, meaning in re.findall(r"^  ([a-z_., ]*[a-z_]) *\n? {2,}(.*)$", text, re.MULTILINE):
        first, *others = keys.split(", ")
        folder = first.rpartition(".")[0]
        names = [first, *(f"{folder}.{other}" if folder else other for other in others)]
        default = re.search(r"Default: (.*)$", meaning)
        yield from zip(names, default[1].split(", ") if default else [None] * len(names), strict=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_composes_and_has_its_default(command):
    register_games()
    options = {key: default for key, default in described(command) if key not in group_options("method")}
    assert len(options) >= 20
    named = [*game_names(), *group_options("scale"), *group_options("method")]
    assert all(name in command_help(command, command, "", width=100) for name in named)
    spelled = {"none": "null", "that of scale": "quick"}
    with initialize_config_module("conf", version_base="1.3"):
        for changes, of_method in (([], False), (["method=sa_ddqn"], True)):
            composed = compose(command, changes)
            keys = [key for key in options if key.startswith("method.") == of_method]
            values = {key: spelled.get(options[key], options[key]) or OmegaConf.select(composed, key) for key in keys}
            assert None not in values.values()
            assert compose(command, [*changes, *(f"{key}={value}" for key, value in values.items())]) == composed


@pytest.mark.parametrize(
    "module",
    [*COMMANDS, *(f"analyze.{name}" for name in ("import_policy", "report", "publish", "workspace")), "bench.train"],
)
def test_every_command_has_help(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert f"python -m {module} [" in capsys.readouterr().out
