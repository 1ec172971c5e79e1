"""Arguments on their way to Hydra: games and folders by any name, everything else that is wrong in one line."""

import importlib.util
import re
from pathlib import Path

import pytest

from conf.command_line import CommandLine, register_games, results_folder
from nrmap.support.errors import NrmapError


def configurations(*arguments: str) -> list[dict]:
    register_games()
    return list(CommandLine(arguments).configurations("train"))


@pytest.mark.parametrize(
    ("name", "game"), [("freeway", "Freeway"), ("ALE/Pong-v5", "Pong"), ("PongNoFrameskip-v4", "Pong")]
)
def test_a_game_by_the_names_that_others_give_it(name: str, game: str) -> None:
    (config,) = configurations(f"env={name}")
    assert config["env"]["game"] == game


def test_every_job_of_a_sweep_has_a_configuration() -> None:
    jobs = configurations("-m", "env=pong,Freeway", "seed=range(2)")
    assert [(job["env"]["game"], job["seed"]) for job in jobs] == [
        ("Pong", 0), ("Pong", 1), ("Freeway", 0), ("Freeway", 1),
    ]  # fmt: skip
    games = [job["env"]["game"] for job in configurations("-m", "env=glob(Space*)")]
    assert games == ["SpaceInvaders", "SpaceWar"]


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (None, "{here}/outputs"),
        ("/x/it's", "/x/it's"),
        ("~/x", "{home}/x"),
        ("/x\\'y\\\\", "/x\\'y\\\\"),
        ("'a b'", "{here}/a b"),
        ("it's here, really (now)", "{here}/it's here, really (now)"),
        ("./5", "{here}/5"),
        ("${seed}x", "0x"),
    ],
)
def test_folders_of_results(folder: str | None, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (config,) = configurations("seed=0", *([] if folder is None else [f"outputs={folder}"]))
    assert config["outputs"] == path.format(here=tmp_path, home=Path.home())


def test_a_folder_that_is_there_has_any_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert results_folder("a,b") == tmp_path / "a,b"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a\nb", "outputs=outputs is {here}/outputs: expected a folder without control characters"),
        ("\udcff", "outputs=outputs is {here}/outputs: expected a folder with a name in UTF-8"),
        ("${x}", "outputs={here}/outputs: expected a path without ${{"),  # which Hydra would replace
        ("gone", "the working folder was removed: expected"),
    ],
)
def test_a_working_folder_that_cannot_hold_outputs_is_named(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    try:
        (here := tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    monkeypatch.chdir(here)
    if name == "gone":
        here.rmdir()
    with pytest.raises(NrmapError, match=re.escape(line.format(here=ascii(str(here))[1:-1]))):
        configurations("seed=0")
    if name != "gone":
        (config,) = configurations("outputs=/elsewhere")
        assert config["outputs"] == "/elsewhere"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--seed", "1"], "unrecognized arguments: --seed; options are written KEY=VALUE"),
        (["freeway"], "freeway: expected KEY=VALUE, as in env=Freeway"),
        (["env=Freeway,Pong"], "env=Freeway,Pong: several values need -m"),
        (["env=Freeway,Pongg"], "unknown game 'Pongg': did you mean Pong"),
        (["method=sa_dqn"], "unknown method 'sa_dqn': did you mean sa_ddqn"),
        ([f"seed={'1' * 10_000}"], f"seed={'1' * 55}…: 10,005 characters, expected at most 10,000"),
        (["-m", "wandb=off,auto"], "unknown wandb mode 'off': did you mean"),
        (["hydra=null"], "Config group override must be a string or a list"),
        (["-m", "seed=range(0,0)"], "no job has these options"),
        (["--experimental-rerun", "x.pickle"], "--experimental-rerun: not possible, a pickle can run code"),
        (["seed=" + 300 * "[" + "1" + 300 * "]"], f"seed={55 * '['}…: nested too deeply, expected at most a"),
        (["outputs=x", "scale.name=日本"], "scale.name=日本: not understood; special characters need quotes"),
        (["-m", "seed=0,1", "scale.step=3"], "unknown key of scale 'step': did you mean steps"),
        (["method.regulariser.kappa=1"], "method.regulariser.kappa: this method has no regulariser; use method=sa_"),
        (["seed=[1"], "seed=[1: no viable alternative at input '[1'; special characters need quotes"),
        (["-m", "seed=range(0,1000000000)"], "more than 10,000 jobs: expected fewer in one sweep"),
        (["-m", "seed=shuffle(range(0,200))", "scale.steps=range(0,200)"], "more than 10,000 jobs"),
        (["seed=${oc.decode:'3x'}"], "mismatched input ''3x''"),
        (["outputs="], 'outputs="": expected a folder'),
        (["outputs=5"], 'outputs="5": expected a folder'),
        (["outputs=${x}"], "outputs: Interpolation key 'x' not found"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str) -> None:
    with pytest.raises(NrmapError) as caught:
        configurations(*arguments)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_that_run_nothing_are_left_to_hydra() -> None:
    for flags in (["--cfg", "job"], ["--info", "config"], ["--hydra-help"]):
        assert not CommandLine(flags).is_run


def test_a_launcher_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NrmapError, match=r"^hydra/launcher=slurm needs hydra-submitit-launcher: .*'\.\[slurm\]'$"):
        configurations("hydra/launcher=slurm")
