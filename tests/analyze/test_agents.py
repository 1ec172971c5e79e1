"""Agents from elsewhere through the commands: another program's file, and a Python function without a game."""

import importlib
import json
import linecache
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from composed import analyzed, composed, printed_last
from foreign_files import FOREIGN

import nrmap
from analyze import import_policy
from analyze.agents import python_agent
from analyze.report.build import ensure_report
from nrmap.maps.episode_maps import load_maps
from nrmap.play import imports
from nrmap.play.rollout import Episode
from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError
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

def random():
    made = network()
    return nrmap.Agent(lambda states: made(states) + 1e-9 * torch.rand(1), (3, 32, 40))

def closing():
    raise GeneratorExit

def sparse():
    module = nn.Flatten()
    module.register_buffer("mask", torch.eye(3).to_sparse())
    return module

def broken():
    raise ValueError("no weights here")
"""


@pytest.fixture
def result(tmp_path):
    """`result("policy=…")`: the path that `python -m analyze`, or the import, would print last."""

    def run(*options: str, only_import: bool = False) -> Path:
        options = (*options, f"outputs={tmp_path}/outputs", *QUICK)
        if not only_import:
            return analyzed(*options)
        keys = import_policy.read(composed("analyze", *options), True)
        return printed_last(lambda: import_policy.convert(keys, options))

    return run


@pytest.fixture
def given(tmp_path, monkeypatch):
    """States of 2 episodes, which lie in states.npz and .npy, for the functions of the module an_agent."""
    (tmp_path / "an_agent.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "an_agent", raising=False)
    states = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 40), dtype=np.uint8)
    np.savez(tmp_path / "states.npz", states=states, episode_ids=[7, 7, 7, 9, 9, 9])
    np.save(tmp_path / "states.npy", states)
    return states


@pytest.mark.slow
def test_a_file_is_converted_once_and_played(result, tmp_path, monkeypatch, caplog):
    path = tmp_path / "agent.cleanrl_model"
    FOREIGN["cleanrl_c51"]().save(path)
    option = f"policy=cleanrl:{path}"
    with monkeypatch.context() as patched:
        for longest, ended, warns in (("300", False, False), ("3000", True, True)):
            lost = Episode(0, np.zeros(3, np.uint8), np.full(3, -7, np.float32), terminated=ended, truncated=not ended)
            patched.setattr(imports, "play", lambda *_, lost=lost, **__: [lost] * 3)
            length = () if longest == "300" else (f"env.max_agent_steps={longest}",)  # scale=smoke has 300
            converted = result(option, *length, only_import=True)
            assert load_policy(converted).env.max_agent_steps == int(longest)
            assert "check the scaling" not in caplog.text
            made = converted.stat().st_mtime_ns
            assert result(option, *length, "expect=15", only_import=True) == converted
            assert converted.stat().st_mtime_ns == made
            assert ("not 15: check the scaling of its states" in caplog.text) == warns
    policy = load_policy(converted)
    assert policy.label == "Pong/cleanrl_c51/seed3"  # as the file says
    assert (policy.env.pooling, policy.card.source.format) == ("rgb", "cleanrl")
    assert policy.card.results["clean_returns"] == [-21] * 3

    other = converted.read_bytes()
    few = ("env.max_agent_steps=20", "evaluation.attack_runs=[]", "scale.analysis.num_states=2")
    imported, folder = load_policy(result(option, *few, only_import=True)), result(option, *few)
    assert load_maps(folder / "maps.npz")[1]["policy_sha256"] == imported.sha256
    assert len(imported.card.results["clean_returns"]) == 3
    path = result(option, *few, only_import=True)
    mine = path.read_bytes()
    path.write_bytes(other)
    with pytest.raises(NrmapError, match=f"{path} holds another policy, .*: remove it to import anew"):
        result(option, *few, only_import=True)
    path.write_bytes(mine)
    (evaluation,) = (tmp_path / "outputs/evaluation/Pong/cleanrl_c51/seed3").glob("*/metrics.json")
    records = read_records(evaluation)
    assert select(records, metric="return_mean")
    assert not select(records, metric="certified_rate")  # softmax over atoms has no bounds

    FOREIGN["sa_dqn"]().save(path)
    with pytest.raises(NrmapError, match=r"the file does not name its game: add env=GAME, as in env=Pong$"):
        result(f"policy=sa_dqn:{path}", only_import=True)
    with pytest.raises(NrmapError, match="expected policy=FORMAT:FILE"):
        result(only_import=True)


@pytest.mark.parametrize(("factory", "file"), [("network", "states.npz"), ("logits", "states.npy")])
def test_functions_without_a_game_are_mapped_and_attacked_on_given_states(
    factory, file, result, tmp_path, given, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = result(f"policy=py:an_agent:{factory}", f"states_from={file}")
    monkeypatch.chdir("/")
    import an_agent as module

    made = getattr(module, factory)()
    agent = made if isinstance(made, nrmap.Agent) else nrmap.Agent(made, (3, 32, 40))
    expected = nrmap.compute_maps(agent, given, progress=False)
    np.testing.assert_allclose(load_maps(folder / "maps.npz")[0].total()["kmap"], expected["kmap"], atol=1e-4)
    assert list(json.loads((folder / "figures.json").read_text())) == ["heatmaps"]
    (folder / "heatmaps.png").unlink()
    assert result(f"policy=py:an_agent:{factory}", f"states_from={tmp_path / file}") == folder
    assert (folder / "heatmaps.png").is_file()
    first = read_records(folder / "metrics.json")[0]
    assert (first.game, first.method, first.outputs) == ("no_game", factory, "logits" if factory == "logits" else None)
    attacks = list((tmp_path / f"outputs/evaluation/no_game/{factory}").glob("*/*/metrics.json"))
    if factory == "logits":  # of uint8 states, which have no gradient
        assert not attacks
        return
    assert not ensure_report(tmp_path / "outputs").problems
    (record,) = select(read_records(*attacks), metric="flip_rate", attack="pgd")
    with torch.no_grad():
        flips = nrmap.attack(agent, given, record.attack_name, record.attack_epsilon).flipped
    assert record.value == pytest.approx(float(flips.double().mean()))
    assert record.episodes == 2
    # The greedy worst case attacks episodes, which these states are not.
    nothing = ("evaluation.attack_runs=[{attack: greedy_worst_case, attack_epsilon: 0.01, episodes: 1}]",)
    nothing += ("evaluation.certify_epsilons=[]",)
    result(f"policy=py:an_agent:{factory}", f"states_from={tmp_path / file}", *nothing)
    assert list((tmp_path / f"outputs/evaluation/no_game/{factory}").glob("*/*/metrics.json")) == attacks


def test_layers_of_another_module_belong_to_the_agent(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made.py").write_text(
        "import nrmap, layers\nmake = lambda: nrmap.Agent(layers.Net().eval(), (1, 8, 8))\n"
    )
    hashes = []
    for body in ("x.flatten(1)", "-x.flatten(1)", "x.flatten(1)"):
        text = f"from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return {body}\n"
        (tmp_path / "layers.py").write_text(text)
        for name in ("made", "layers"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        linecache.checkcache()
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        hashes.append(python_agent("py:made:make", "own", 0, torch.device("cpu")).sha256)
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize(
    ("policy", "states_from", "why"),
    [
        ("py:an_agent:random", "states.npy", "is no fixed function of the state: .* draws random numbers"),
        ("py:an_agent:broken", "states.npy", "ValueError: no weights here"),
        ("py:an_agent:closing", "states.npy", "GeneratorExit"),
        ("py:an_agent:sparse", "states.npy", "weight function.mask is sparse"),
        ("py:no_such_module:make", "states.npy", "No module named 'no_such_module'"),
        ("py:./an_agent.py:make", "states.npy", "expected py:MODULE:FACTORY, the names of a module, not its path"),
        ("py:an_agent:network", "own", "add states_from=FILE.npy"),
        ("py:an_agent:logits", "own", "plays no game: add states_from=FILE.npy"),
        ("py:an_agent:logits", "float.npz", "states is float64 with 4 dimensions: expected uint8"),
        ("py:an_agent:logits", "names.npz", "has the arrays other, none named states"),
    ],
)
def test_a_mistake_is_one_line(policy, states_from, why, tmp_path, given):
    np.savez(tmp_path / "float.npz", states=given / 255)
    np.savez(tmp_path / "names.npz", other=given)
    file = states_from if states_from == "own" else str(tmp_path / states_from)
    with pytest.raises(NrmapError, match=why) as raised:
        analyzed(*QUICK, policy=policy, states_from=file, outputs=str(tmp_path / "outputs"))
    assert "\n" not in str(raised.value)
    assert not [*tmp_path.glob("outputs/**/metrics.json")]
