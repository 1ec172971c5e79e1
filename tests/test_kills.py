"""Commands killed at random moments, alone and in pairs, end in the results of commands that ran through.

`make test-kills` runs 200 kills; NRMAP_KILLS sets their number.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from commands import TINY_ANALYSIS, Command, Commands, commands_in

from nrmap.policies.policy import load_policy

KILLS = int(os.environ.get("NRMAP_KILLS", "8"))
SEED = int(os.environ.get("NRMAP_KILLS_SEED", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

# Seven states of three episodes: no multiple of four, and not the same number in each episode.
ANALYSIS = (*TINY_ANALYSIS, "scale.analysis.num_states=7", "temperature=[0.001,0.1,1]", "controls=1")
ATTACKED = (
    *ANALYSIS, "evaluation.episodes=2", "evaluation.certify_epsilons=[0.004]",
    "evaluation.attack_runs=[{attack: fgsm, attack_epsilon: 0.004, episodes: 2}]",
)  # fmt: skip
STAGES = (
    ("train", (*TINY_ANALYSIS, "method=sa_ddqn", "checkpoint_seconds=0")),
    ("analyze", (*ANALYSIS, "method=sa_ddqn", "shards=2", "shard=0")),
    ("analyze", (*ANALYSIS, "method=sa_ddqn", "shards=2", "shard=1")),
    ("analyze", (*ATTACKED, "method=sa_ddqn")),
)


@pytest.fixture
def commands(tmp_path: Path) -> Any:
    with commands_in(tmp_path) as commands:
        yield commands


def started(commands: Commands, stage: int, outputs: Path) -> Command:
    module, options = STAGES[stage]
    if module == "train":
        options = tuple(option for option in options if not option.startswith(("evaluation.", "scale.analysis.")))
    return commands.start(module, *options, f"outputs={outputs}")


def results(outputs: Path) -> dict[str, Any]:
    """The content of every result under `outputs`, without the seconds that it took."""
    found: dict[str, Any] = {}
    for part in ("train", "states", "evaluation", "maps", "ablated"):
        for path in (outputs / part).rglob("*"):
            name = str(path.relative_to(outputs))
            if path.name == "policy.safetensors":
                found[name] = load_policy(path).sha256
            elif path.name == "curves.json":
                content = json.loads(path.read_text())
                rows = [{k: v for k, v in row.items() if "second" not in k} for row in content["rows"]]
                found[name] = content["episodes"], rows
            elif path.suffix in (".npz", ".json", ".npy", ".png", ".pdf"):
                found[name] = path.read_bytes()
    return {name: content for name, content in found.items() if ".unfinished-" not in name}


def test_killed_commands_end_in_the_same_results(commands: Commands, tmp_path: Path) -> None:
    seconds = []
    for stage in range(len(STAGES)):
        begun = time.monotonic()
        command = started(commands, stage, tmp_path / "whole")
        assert command.wait() == 0, command.err
        seconds.append(time.monotonic() - begun)
    whole = results(tmp_path / "whole")
    assert sum(name.startswith("maps/") and name.endswith("maps.npz") for name in whole) == 3

    draw, kills, rounds = random.Random(SEED), 0, 0
    while kills < KILLS:
        rounds += 1
        outputs = tmp_path / f"round{rounds}"
        for stage in range(len(STAGES)):
            while kills < KILLS and draw.random() < 0.8:
                pair = [started(commands, stage, outputs) for _ in range(draw.choice((1, 1, 2)))]
                deadline = time.monotonic() + draw.random() * 1.2 * len(pair) * seconds[stage]
                victim = draw.choice(pair)
                victim.process.join(timeout=max(deadline - time.monotonic(), 0))
                kills += victim.process.exitcode is None
                victim.process.kill()
                victim.process.join()
                for other in pair:
                    assert other is victim or other.wait() == 0, other.err
            command = started(commands, stage, outputs)
            begun = time.monotonic()
            assert command.wait() == 0, command.err
            if kills == 0:
                seconds[stage] = time.monotonic() - begun
        found = results(outputs)
        assert found.keys() == whole.keys()
        different = [name for name in whole if found[name] != whole[name]]
        assert not different, f"after {kills} kills: {different}"
        print(f"round {rounds}: {kills} kills, {len(found)} equal results", flush=True)
