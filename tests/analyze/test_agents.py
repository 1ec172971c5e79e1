"""Agents from elsewhere through the commands: another program's file, and a Python function without a game."""

import json
import os
import re

import numpy as np
import pytest
import torch
from commands import commands_in, complaint_of, result_of
from foreign_files import FOREIGN

import nrmap
from nrmap.maps.episode_maps import load_maps
from nrmap.policies.policy import load_policy
from nrmap.support.records import read_records, select

QUICK = ("scale=smoke", "wandb=disabled", "device=cpu", "threads=1")
MODULE = """
import torch
from torch import nn
import nrmap

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 18, 3))

def logits():
    weights = torch.randn(3 * 32 * 40, 4, generator=torch.Generator().manual_seed(1))
    return nrmap.Agent(lambda states: states.flatten(1).float() @ weights, (3, 32, 40), "logits", input_scale=None)

def broken():
    raise ValueError("no weights here")
"""


@pytest.fixture
def commands(tmp_path):
    with commands_in(tmp_path) as found:
        yield found


@pytest.fixture
def an_agent(tmp_path, monkeypatch):
    """A module with functions, states for them with 2 episodes, and the environment of a process that finds it."""
    (tmp_path / "an_agent.py").write_text(MODULE)
    states = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 40), dtype=np.uint8)
    np.savez(tmp_path / "states.npz", states=states, episode_ids=[7, 7, 7, 9, 9, 9])
    np.save(tmp_path / "states.npy", states)
    monkeypatch.syspath_prepend(tmp_path)
    return states, {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def test_a_file_is_converted_once_and_played(commands, tmp_path):
    path, outputs = tmp_path / "agent.cleanrl_model", f"outputs={tmp_path}/outputs"
    FOREIGN["cleanrl_c51"]().save(path)
    short = result_of(commands.start("analyze.import_policy", f"policy=cleanrl:{path}", outputs, *QUICK))
    assert load_policy(short).env.max_agent_steps == 300  # as scale=smoke has it
    options = (f"policy=cleanrl:{path}", outputs, "env.max_agent_steps=3000", *QUICK)
    first = commands.start("analyze.import_policy", *options)
    converted = result_of(first)
    made = converted.stat().st_mtime_ns
    again = commands.start("analyze.import_policy", *options, "expect=15")
    assert result_of(again) == converted
    assert converted.stat().st_mtime_ns == made
    policy = load_policy(converted)
    assert policy.label == "Pong/cleanrl_c51/seed3"  # as the file says
    assert policy.env.pooling == "rgb"
    assert policy.card.source.format == "cleanrl"
    assert len(policy.card.results["clean_returns"]) == 3
    assert "not 15: check the scaling of its states" in again.err
    assert "check the scaling" not in first.err

    few = ("evaluation.attack_runs=[]", "scale.analysis.num_states=2")
    folder = result_of(commands.start("analyze", f"policy=cleanrl:{path}", outputs, *few, *QUICK))
    _, metadata = load_maps(folder / "maps.npz")
    assert metadata["policy_sha256"] == load_policy(short).sha256
    (evaluation,) = (tmp_path / "outputs/evaluation/Pong/cleanrl_c51/seed3").glob("*/metrics.json")
    records = read_records(evaluation)
    assert select(records, metric="return_mean")
    assert not select(records, metric="certified_rate")  # softmax over atoms has no bounds

    FOREIGN["sa_dqn"]().save(path)
    line = complaint_of(commands.start("analyze.import_policy", f"policy=sa_dqn:{path}", outputs, *QUICK))
    assert line.endswith("the file does not name its game: add env=GAME, as in env=Pong")
    line = complaint_of(commands.start("analyze.import_policy", outputs, *QUICK))
    assert "expected policy=FORMAT:FILE" in line


@pytest.mark.parametrize(("factory", "file"), [("network", "states.npz"), ("logits", "states.npy")])
def test_functions_without_a_game_are_mapped_and_attacked_on_given_states(factory, file, commands, tmp_path, an_agent):
    seen, environment = an_agent
    options = (f"policy=py:an_agent:{factory}", f"states_from={tmp_path / file}", f"outputs={tmp_path}/outputs", *QUICK)
    folder = result_of(commands.start("analyze", *options, environment=environment))
    import an_agent as module

    made = getattr(module, factory)()
    agent = made if isinstance(made, nrmap.Agent) else nrmap.Agent(made, (3, 32, 40))
    expected = nrmap.compute_maps(agent, seen, progress=False)
    np.testing.assert_allclose(load_maps(folder / "maps.npz")[0].total()["kmap"], expected["kmap"], atol=1e-4)
    assert list(json.loads((folder / "figures.json").read_text())) == ["heatmaps"]
    first = read_records(folder / "metrics.json")[0]
    assert (first.game, first.method, first.outputs) == ("no_game", factory, "logits" if factory == "logits" else None)
    attacks = list((tmp_path / f"outputs/evaluation/no_game/{factory}").glob("*/*/metrics.json"))
    if factory == "logits":  # of uint8 states, which have no gradient
        assert not attacks
        return
    (record,) = select(read_records(*attacks), metric="flip_rate", attack="pgd")
    with torch.no_grad():
        flips = nrmap.attack(agent, seen, record.attack_name, record.attack_epsilon).flipped
    assert record.value == pytest.approx(float(flips.double().mean()))
    assert record.episodes == 2


@pytest.mark.parametrize(
    ("policy", "states_from", "why"),
    [
        ("py:an_agent:broken", "states.npy", "ValueError: no weights here"),
        ("py:an_agent:missing", "states.npy", "AttributeError"),
        ("py:no_such_module:make", "states.npy", "No module named 'no_such_module'"),
        ("py:an_agent", "states.npy", "expected py:MODULE:FACTORY"),
        ("py:an_agent:network", "own", "add states_from=FILE.npy"),
        ("py:an_agent:logits", "own", "plays no game: add states_from=FILE.npy"),
        ("py:an_agent:network", "broken.npy", "broken.npy is not a readable states file"),
        ("py:an_agent:logits", "float.npz", "states is float64 with 4 dimensions: expected uint8"),
        ("py:an_agent:logits", "names.npz", "has the arrays other, none named states"),
    ],
)
def test_what_is_missing_is_one_line(policy, states_from, why, commands, tmp_path, an_agent):
    seen, environment = an_agent
    (tmp_path / "broken.npy").write_bytes((tmp_path / "states.npy").read_bytes()[:-1000])
    np.savez(tmp_path / "float.npz", states=seen / 255)
    np.savez(tmp_path / "names.npz", other=seen)
    file = states_from if states_from == "own" else tmp_path / states_from
    options = (f"policy={policy}", f"states_from={file}", f"outputs={tmp_path}/outputs", *QUICK)
    line = complaint_of(commands.start("analyze", *options, environment=environment))
    assert re.search(why, line), line
