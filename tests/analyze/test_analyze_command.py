"""`python -m analyze` by every way to say which policy, which states and which share: each ends in the right maps."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import TINY, TINY_ANALYSIS, Command, Commands, commands_in, complaint_of, result_of
from composed import analyzed
from swept_maps import identical
from toy_policies import FREEWAY, toy_policy

import analyze.__main__
from conf.entry import entry_point
from nrmap.maps.episode_maps import EpisodeMaps, load_maps
from nrmap.play.states import load_states
from nrmap.policies.policy import load_policy, save_policy
from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json
from nrmap.support.records import read_records

# A busy machine may take several times as long as an idle one.
pytestmark = pytest.mark.timeout(900)

# The screen of the toy policies, whose actions single pixels flip; a training of a second has learned none.
SCREEN = ("env.height=42", "env.width=42", "env.max_agent_steps=40")
STATES, EPISODES = 6, 3


@dataclass(frozen=True)
class Study:
    """A trained policy that options name, one in a file that no training made, and the latter's own maps."""

    commands: Commands
    outputs: Path
    trained: Path
    given: Path
    folder: Path

    def analyze(self, *arguments: str, outputs: Path | None = None, **options: Any) -> Command:
        flags = [argument for argument in arguments if argument.startswith("-")]  # before all keys, as Hydra wants them
        keys = [argument for argument in arguments if argument not in flags]
        where = f"outputs={outputs or self.outputs}"
        return self.commands.start("analyze", *flags, *TINY_ANALYSIS, *SCREEN, where, *keys, **options)

    def states_path(self, folder: Path) -> Path:
        return self.outputs / metrics_of(folder)["inputs"]["states_path"]


def metrics_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "metrics.json")


def maps_of(folder: Path) -> EpisodeMaps:
    return load_maps(folder / "maps.npz")[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    place = tmp_path_factory.mktemp("study")
    given, outputs = place / "given.safetensors", place / "outputs"
    save_policy(given, toy_policy(FREEWAY))
    with commands_in(place) as commands:
        trained = result_of(commands.start("train", *TINY, *SCREEN, f"outputs={outputs}"))
        without_maps = Study(commands, outputs, trained, given, place)
        yield Study(commands, outputs, trained, given, result_of(without_maps.analyze(f"policy={given}")))


def test_a_policy_file_is_mapped_on_its_own_states(tmp_path: Path) -> None:
    given, outputs = tmp_path / "given.safetensors", tmp_path / "outputs"
    save_policy(given, toy_policy(FREEWAY))
    folder = analyzed(*TINY_ANALYSIS, *SCREEN, policy=str(given), outputs=str(outputs))
    states = load_states(outputs / metrics_of(folder)["inputs"]["states_path"])
    assert [origin.policy_sha256 for origin in states.origins] == [load_policy(given).sha256]
    maps = maps_of(folder)
    assert (maps.num_states, len(maps.episode_ids)) == (STATES, EPISODES)
    assert (maps["kmap"].sum(axis=0) > 0).sum() > 10
    assert {record.states_from for record in read_records(folder / "metrics.json")} == {"own"}
    # By default a policy's own states have no null networks.
    assert [path.name for path in (outputs / "maps/Freeway").iterdir()] == ["toy"]


def test_a_policy_of_another_game_method_or_seed_than_asked_for_is_refused(tmp_path: Path) -> None:
    other, outputs = tmp_path / "pong.safetensors", tmp_path / "outputs"
    save_policy(other, toy_policy(replace(FREEWAY, game="Pong")))
    with pytest.raises(NrmapError, match=f"^env=Freeway: the policy {other} is of Pong; leave env out or say env=Pong"):
        analyzed(*TINY_ANALYSIS, *SCREEN, "env=Freeway", policy=str(other), outputs=str(outputs))
    for option, own in (("method=sa_ddqn", "method=toy"), ("seed=4", "seed=0")):
        with pytest.raises(NrmapError, match=f"^{option}: the policy {other} has {own}; leave "):
            analyzed(*TINY_ANALYSIS, *SCREEN, option, policy=str(other), outputs=str(outputs))
    assert not list(outputs.rglob("*.json"))


def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable
) -> None:
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("PYTHONPATH", "")  # which a command changes
    monkeypatch.delenv("WANDB_MODE", raising=False)
    command = partial(entry_point, "analyze", analyze.__main__.read, analyze.__main__.analyze)
    status, out, err = ended(command, "scale=smoke", f"outputs={outputs}", "temperature=0")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: temperature=0: expected a number from 1e-30 to 1e9, or a list")
    with pytest.raises(NrmapError, match=r"^no trained policy Freeway/ddqn/seed7 with these settings"):
        analyzed("scale=smoke", seed=7, outputs=str(outputs))
    assert not list(outputs.rglob("*.*"))


@pytest.mark.slow
def test_a_reference_policy_is_found_by_game_method_and_seed(study: Study, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for seed in (0, 5):
        reference = outputs / f"reference/smoke/Freeway/ddqn/seed{seed}"
        reference.mkdir(parents=True)
        shutil.copy(study.trained, reference / "policy.safetensors")
    folder = result_of(study.analyze("policies_from=reference", outputs=outputs))  # none is under outputs/train
    assert metrics_of(folder)["inputs"]["policy_sha256"] == load_policy(study.trained).sha256
    line = complaint_of(study.analyze("policies_from=reference", "seed=5", outputs=outputs))
    assert line == f"error: {reference}/policy.safetensors is of Freeway/ddqn/seed0: expected Freeway/ddqn/seed5"


@pytest.mark.slow
def test_a_pool_of_a_method_and_a_file(study: Study) -> None:
    folder = result_of(study.analyze(f"policy={study.given}", "states_from=pool", f"pool=[ddqn,{study.given}]"))
    pool, own = (load_states(study.states_path(maps)) for maps in (folder, study.folder))
    hashes = [load_policy(path).sha256 for path in (study.trained, study.given)]
    assert [origin.policy_sha256 for origin in pool.origins] == hashes
    parts = [load_states(path) for path in (study.outputs / "states/Freeway").glob("*.npz")]
    (of_trained,) = [part for part in parts if [origin.policy_sha256 for origin in part.origins] == hashes[:1]]
    assert np.array_equal(pool.states, [*of_trained.states, *own.states])
    maps = maps_of(folder)  # those of an episode are independent of the rest of the pool
    for kind, temperature, map_ in maps_of(study.folder).each():
        assert np.array_equal(maps[kind.name, temperature][EPISODES:], map_)


@pytest.mark.slow
def test_a_states_file_is_what_its_states_are(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "shared.npz"
    shutil.copy(study.states_path(study.folder), file)
    folder = result_of(study.analyze(f"policy={study.given}", f"states_from={file}"))
    assert folder != study.folder
    assert identical(maps_of(folder), maps_of(study.folder))
    found, own = metrics_of(folder), metrics_of(study.folder)
    assert found["inputs"] == own["inputs"] | {"states_path": str(file)}
    assert found["records"] == [each | {"states_from": "file", "states_set": "shared.npz"} for each in own["records"]]
    # States that policies share have controls beside them.
    contents = [metrics_of(path.parent) for path in (study.outputs / "maps").rglob("metrics.json")]
    beside = [each["records"][0]["method"] for each in contents if each["inputs"]["states_path"] == str(file)]
    assert sorted(beside) == ["random_weights", "shuffled_weights", "toy"]


@pytest.mark.slow
def test_shards_are_merged_into_the_maps_of_one_job(study: Study, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    sweep = study.analyze("-m", f"policy={study.given}", "shards=2", "shard=0,1", outputs=outputs)
    assert result_of(sweep).name == "1-of-2.npz"
    (folder,) = outputs.glob("maps/Freeway/toy/seed0/*")
    shards = [load_maps(folder / "shards" / f"{index}-of-2.npz")[0].episode_ids.tolist() for index in range(2)]
    assert shards == [[0, 2], [1]]
    assert not (folder / "metrics.json").exists()
    merged = study.analyze(f"policy={study.given}", "shards=2", outputs=outputs)
    assert result_of(merged) == folder
    assert "2 shards found, of all but 0 episodes" in merged.err
    assert folder.name == study.folder.name
    assert identical(maps_of(folder), maps_of(study.folder))
    assert metrics_of(folder)["records"] == metrics_of(study.folder)["records"]
    assert not (folder / "shards").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_next_command_does_the_rest(study: Study, tmp_path: Path) -> None:
    full = tmp_path / "outputs"
    (baselines,) = study.outputs.glob("evaluation/Freeway/baseline/*/metrics.json")
    inputs = {name: metrics_of(study.folder)["inputs"][name] for name in ("policy_sha256", "states_sha256")}
    keys = {path: read_json(path.with_name("key.json"))["key"] for path in study.outputs.glob("ablated/**/*.npy")}
    q_values = next(path for path, key in keys.items() if key.items() >= inputs.items())
    # Each limit lets one stage more through: the ablated Q-values, the maps or their figures. Evaluations are smaller.
    largest = [q_values, max(study.folder.iterdir(), key=lambda path: path.stat().st_size), baselines]
    for path, stage in zip(largest, ("ablated", "maps", "evaluation"), strict=True):
        if stage == "evaluation":
            shutil.copytree(study.outputs / "maps", full / "maps", dirs_exist_ok=True)
        line = complaint_of(study.analyze(f"policy={study.given}", outputs=full, largest_file=path.stat().st_size - 1))
        assert line.startswith(f"error: cannot write {full}/{stage}/Freeway/")
        assert line.endswith(": File too large")
        assert stage == "evaluation" or not list(full.glob("maps/**/figures.json"))
        left = [path for path in full.rglob(".*") if path.is_file() and not path.name.endswith("lock")]
        assert left == [], "what was half written lies about"
    shutil.rmtree(full / "maps")  # the copies
    folder = result_of(study.analyze(f"policy={study.given}", outputs=full))
    for whole in study.folder.iterdir():
        assert whole.suffix not in (".png", ".pdf", ".npz") or (folder / whole.name).read_bytes() == whole.read_bytes()
