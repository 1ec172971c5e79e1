"""Several jobs make the same maps as one job, bit for bit."""

import functools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from toy_policies import SMALL_FREEWAY, toy_policy

from analyze import maps
from analyze.maps import MapsResult, Shard, ensure_maps, ensure_shard
from analyze.settings import AnalysisSettings, MapSettings, StatesSettings
from analyze.study import Study, ensure_states
from nrmap.ablation import AblationSpec
from nrmap.play.evaluation import EvaluationSettings
from nrmap.play.states import collect_states
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.errors import NrmapError
from nrmap.support.files import atomic_path
from nrmap.support.layout import Layout

EPISODES = 4
# More states in each episode than the engine takes at a time in these tests, and not the same number.
STATES = StatesSettings(num_states=17, episodes=EPISODES, run_seed=0, states_from="own")
UNEVEN = StatesSettings(num_states=21, episodes=3, run_seed=0, states_from="own")
MAPS = MapSettings(temperatures=(0.5, 2.0), ablation=AblationSpec(), prefix_sizes=(2, 11))
# The engine and the disk space in GB.
RESOURCES: dict[str, tuple[Any, float]] = {"kept": ("auto", 1.0), "streamed": ("auto", 0.0), "dense": ("dense", 1.0)}


@pytest.fixture(autouse=True, scope="module")
def _three_states_at_a_time_of_one_roll_out() -> Iterator[None]:
    once = functools.cache(lambda policy, **sample: collect_states(policy, **sample, num_envs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nrmap.ablation.incremental.MOST_STATES", {"cpu": 3, "cuda": 3})
        patch.setattr("analyze.study.collect_states", lambda policy, num_envs, progress, **it: once(policy, **it))
        yield


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    save_policy(path, toy_policy(SMALL_FREEWAY, seed=1))
    return load_policy(path)


def run(policy: Policy, outputs: Path, *jobs: Shard | None, resources="kept", sample=STATES, settings=MAPS) -> Any:
    """The result of the last of `jobs`; None is the job that merges."""
    everything = AnalysisSettings(sample, EvaluationSettings(episodes=1, run_seed=0), settings, controls=0)
    study = Study(everything, Layout(outputs), *RESOURCES[resources])
    states = ensure_states(study, [policy])
    for job in jobs:
        last = ensure_shard(study, policy, states, job) if job else ensure_maps(study, policy, states)
    return last


@pytest.fixture(scope="module")
def whole(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> MapsResult:
    """The maps of one job that keeps its Q-values."""
    return run(policy, tmp_path_factory.mktemp("one") / "whole", None)


@pytest.mark.bitwise
@pytest.mark.parametrize(("count", "resources"), [(2, "kept"), (EPISODES, "streamed"), (2, "dense")])
def test_merged_shards_are_the_unsharded_maps(policy, whole, tmp_path, count, resources):
    if resources != "kept":
        whole = run(policy, tmp_path / "whole", None, resources=resources)
    jobs = [Shard(index, count) for index in reversed(range(count))]
    merged = run(policy, tmp_path / "sharded", *jobs, None, resources=resources)
    # The files hold every array and nothing else, so equal bytes are equal maps.
    assert (merged.folder / "maps.npz").read_bytes() == (whole.folder / "maps.npz").read_bytes()
    assert merged.records == whole.records
    assert merged.folder.parts[-5:] == whole.folder.parts[-5:] == ("maps", "Freeway", "toy", "seed1", whole.folder.name)
    assert not maps.shards_folder(merged.folder).exists()
    assert whole.maps["kmap"].any()
    assert len(set(whole.maps.states_per_episode)) > 1


@pytest.mark.bitwise
def test_only_the_episodes_of_missing_shards_are_ablated(policy, whole, tmp_path, monkeypatch):
    shard = run(policy, tmp_path / "sharded", Shard(0, 3), Shard(2, 3))
    with atomic_path(shard.with_name("1-of-3.npz")) as unfinished:
        unfinished.write_bytes(b"PK")
    shard.with_name("1-of-3.npz").rename(unfinished)  # as a job that is killed while writing leaves it
    monkeypatch.setattr(maps, "episode_maps", made := Mock(side_effect=maps.episode_maps))
    merged = run(policy, tmp_path / "sharded", Shard(0, 3), None)
    assert (merged.folder / "maps.npz").read_bytes() == (whole.folder / "maps.npz").read_bytes()
    # There is nothing left to do for a shard that comes too late, nor for one of another count.
    assert run(policy, tmp_path / "sharded", Shard(1, 2)) == merged.folder / "maps.npz"
    assert [[*call.args[3]] for call in made.call_args_list] == [[1]]


@pytest.mark.bitwise
def test_shards_of_two_counts_are_not_counted_twice(policy: Policy, whole: MapsResult, tmp_path: Path) -> None:
    merged = run(policy, tmp_path / "sharded", Shard(0, 2), Shard(0, 3), Shard(1, 4), None)
    assert (merged.folder / "maps.npz").read_bytes() == (whole.folder / "maps.npz").read_bytes()


def test_a_damaged_shard_is_named(policy: Policy, tmp_path: Path) -> None:
    path = run(policy, tmp_path, Shard(1, 2))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(NrmapError, match=f"{path} .*; remove {path} to make it anew"):
        run(policy, tmp_path, None)
    assert not (path.parent.parent / "metrics.json").exists()


def test_a_shard_of_another_ablation_or_other_episodes_is_refused(policy: Policy, tmp_path: Path) -> None:
    white = replace(MAPS, ablation=AblationSpec(value=255))
    paths = [run(policy, tmp_path, Shard(0, 2), settings=settings) for settings in (MAPS, white)]
    paths[0].write_bytes(paths[1].read_bytes())
    for job in (Shard(0, 2), None):
        with pytest.raises(NrmapError, match="holds other maps: its value is 255, expected 0; remove"):
            run(policy, tmp_path, job)
    shutil.copy(paths[1], paths[1].with_name("1-of-2.npz"))
    with pytest.raises(NrmapError, match=r"holds the episodes \[0, 2\]: expected \[1, 3\]"):
        run(policy, tmp_path, Shard(1, 2), settings=white)


@pytest.mark.bitwise
@pytest.mark.parametrize("job", [Shard(0, 2), None])
def test_a_job_that_was_killed_goes_on_where_it_was(policy, tmp_path, monkeypatch, job):
    # Seven states an episode, of which three, three and one are ablated together and then read back as one chunk.
    options = {"sample": UNEVEN, "settings": replace(MAPS, temperatures=(0.001, 0.01, 0.1))}
    run(policy, tmp_path / "whole", job, **options)

    ablated_q_values = maps.ablated_q_values

    def killed(*arguments: Any, **named: Any) -> Any:
        for number, chunk in enumerate(ablated_q_values(*arguments, **named)):
            if number == 4:  # in the middle of an episode
                raise KeyboardInterrupt
            yield chunk

    with monkeypatch.context() as patched:
        patched.setattr(maps, "ablated_q_values", killed)
        with pytest.raises(KeyboardInterrupt):
            run(policy, tmp_path / "killed", job, **options)
    run(policy, tmp_path / "killed", job, **options)
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.npz")]
    assert len(files) == 2, "a file of states and one of maps"
    for file in files:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.bitwise
def test_one_more_temperature_changes_nothing_else(policy: Policy, tmp_path: Path) -> None:
    few = run(policy, tmp_path, None)
    # The second run reads the ablated Q-values that the first one kept, in other chunks.
    many = run(policy, tmp_path, None, settings=replace(MAPS, temperatures=(0.5, 1.0, 2.0)))
    for kind, temperature, map_ in few.maps.each():
        assert np.array_equal(many.maps[kind.name, temperature], map_)
    assert [record for record in many.records if record.temperature != 1.0] == few.records


def test_the_episodes_are_shared_out_once() -> None:
    ids = np.repeat([4, 7, 8, 11, 20], [3, 1, 4, 1, 5])
    shares = [Shard(index, 3).episodes(ids) for index in range(3)]
    assert shares == [[4, 11], [7, 20], [8]]


def test_more_shards_than_episodes(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(NrmapError, match="shards=5: the states are of 4 episodes only"):
        run(policy, tmp_path, Shard(0, 5))
