"""The differences in S between methods: the pairs that are compared, and their values and intervals."""

import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from example_outputs import Example, edited, write_example

from analyze.report.load import find
from analyze.report.pairing import with_differences
from analyze.report.results import Found
from analyze.report.summary import glance
from analyze.report.tables import map_table
from nrmap.maps.episode_maps import load_maps, save_maps
from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import sparsity
from nrmap.play.states import load_states, save_states
from nrmap.support.files import read_json, sha256_of_file
from nrmap.support.records import Record, select

THREE_SEEDS = Example(seeds=(0, 1, 2), temperatures=(1.0,), prefix_sizes=(), without_flips=(("sa_ddqn", 1),))


@pytest.fixture(scope="module")
def tree(tmp_path_factory, tiny_settings):
    folder = tmp_path_factory.mktemp("compared") / "outputs"
    write_example(folder, tiny_settings(), THREE_SEEDS)
    return folder


@pytest.fixture(scope="module")
def found(tree) -> Found:
    return with_differences(find(tree))


@pytest.fixture
def other(tree, tmp_path):
    """A copy of `tree` for a test to change."""
    return shutil.copytree(tree, tmp_path / "outputs")


def s_of_files(tree, method: str, seed: int, kind: str) -> float | None:
    """S on the pool by the files of maps alone."""
    for path in (tree / "maps" / "Freeway" / method / f"seed{seed}").rglob("metrics.json"):
        if read_json(path)["records"][0]["states_from"] == "pool":
            total = load_maps(path.with_name("maps.npz"))[0].total()
            return sparsity(np.squeeze(total.arrays[kind])).value
    raise AssertionError(f"no maps of {method}, seed {seed}")


def test_methods_are_compared_seed_by_seed_on_the_same_states_only(tree, found):
    paired = [record for record in found.differences if record.seed is not None]
    shared = {(r.method, r.compared_with, r.states_from, r.num_states, r.episodes) for r in paired}
    assert (shared, len(paired)) == ({("sa_ddqn", "ddqn", "pool", 16, 16)}, 3 * len(KINDS))
    for record in paired:
        ours, theirs = (s_of_files(tree, method, record.seed, record.map_kind) for method in ("sa_ddqn", "ddqn"))
        if ours is None:
            assert (record.value, record.seed, record.map_kind in ("kmap", "flip_map")) == (None, 1, True)
        else:
            assert record.value == pytest.approx(ours - theirs, rel=1e-12)
            assert record.low < record.value < record.high


def test_means_over_seeds_are_compared_on_every_kind_of_states(tree, found):
    over_seeds = [record for record in found.differences if record.seed is None]
    compared = {(r.method, r.compared_with, r.states_from) for r in over_seeds}
    assert compared == {("sa_ddqn", "ddqn", states) for states in ("own", "pool")}
    (kl,) = select(over_seeds, map_kind="kl", states_from="pool", temperature=1.0)
    means = [np.mean([s_of_files(tree, m, seed, "kl") for seed in range(3)]) for m in ("sa_ddqn", "ddqn")]
    assert kl.value == pytest.approx(means[0] - means[1], rel=1e-12)
    (kmap,) = select(over_seeds, map_kind="kmap", states_from="pool")
    assert (kmap.value, kmap.note) == (None, "S is undefined in 1 of 3 pairs of policies")


def test_controls_are_compared_with_nothing(tmp_path):
    make = partial(Record, "Freeway", metric="sparsity", map_kind="kmap", states_from="own", num_states=16)
    records = [make(method, seed, value=10.0 + seed) for method in ("ddqn", "ddqn_continued") for seed in range(3)]
    records += [make("random_weights", None, value=10.0 + draw, draw=draw) for draw in range(3)]
    (difference,) = with_differences(Found(tmp_path, (), (), records=tuple(records))).differences
    assert (difference.method, difference.compared_with) == ("ddqn_continued", "ddqn")


def test_differences_stand_in_tables_beside_those_of_the_paper(found):
    table = map_table("differences", found.differences)
    at = {column.key: index for index, column in enumerate(table.columns)}
    assert [row[at["seed"]].value for row in table.rows] == [0, 1, 2, "3 seeds"]
    assert table.rows[0][at["kmap_sparsity_difference paper"]].value == "-33.2631"
    (record,) = select(found.differences, map_kind="hmap", seed=2)
    cell = table.rows[2][at["hmap_sparsity_difference"]]
    assert (cell.value, cell.low, cell.high) == (record.value, record.low, record.high)
    over_seeds = map_table("seed-differences", found.differences)
    assert [row[at["seed"]].value for row in over_seeds.rows] == ["all", "all"]


def test_a_damaged_file_of_maps_is_named_once_and_the_other_seeds_are_compared(other):
    for path in (other / "maps" / "Freeway" / "ddqn" / "seed0").rglob("maps.npz"):
        path.write_bytes(path.read_bytes()[:-100])
    found = with_differences(find(other))
    assert {record.seed for record in found.differences} == {None, 1, 2}
    (problem,) = found.problems
    assert re.match("maps/Freeway/ddqn/seed0/.* is not a readable maps file", problem)


def test_the_players_of_a_pool_are_those_of_its_states(other):
    path = other / "states" / "Freeway" / "pool.npz"
    states = load_states(path)
    origins = np.repeat([0, 1], len(states.episodes) // 2)
    save_states(path, replace(states, origins=states.origins * 2, episode_origins=origins))
    paired = [record for record in with_differences(find(other)).differences if record.low and record.seed is not None]
    (interval,) = {record.interval for record in paired}
    assert interval == "jackknife over 16 episodes of 2 policies, for these two policies"
    path.write_bytes(path.read_bytes()[:-100])
    found = with_differences(find(other))
    assert {record.seed for record in found.differences} == {None}
    (problem,) = found.problems
    assert problem.startswith("states/Freeway/pool.npz is not a readable states file")


def save_measured(path, maps, metadata):
    save_maps(path, maps, metadata)
    with edited(path.with_name("metrics.json")) as content:
        content["inputs"]["maps_sha256"] = sha256_of_file(path)


def test_maps_of_other_episodes_are_not_compared(other):
    for path in (other / "maps" / "Freeway" / "ddqn" / "seed0").rglob("maps.npz"):
        maps, metadata = load_maps(path)
        save_measured(path, replace(maps, episode_ids=maps.episode_ids + 1), metadata)
    of_both = "no difference between SA-DDQN seed 0 and DDQN seed 0: the maps are"
    found = with_differences(find(other))
    assert found.problems == (f"{of_both} not of the same episodes and pixels",)
    for path in (other / "maps" / "Freeway").glob("*/seed0/*/maps.npz"):
        maps, metadata = load_maps(path)
        save_measured(path, replace(maps, episode_ids=np.arange(len(maps.episode_ids)) - 100), metadata)
    (problem,) = with_differences(find(other)).problems
    assert problem.startswith(f"{of_both} of episodes that the ")


def test_another_ablation_is_not_compared(other):
    for path in (other / "maps" / "Freeway" / "ddqn" / "seed0").rglob("metrics.json"):
        with edited(path) as content:
            content["settings"]["ablation"]["value"] = 128
    assert {record.seed for record in with_differences(find(other)).differences} == {None, 1, 2}


def test_the_glance_says_how_far_methods_lie_apart(found):
    on_pool = {"metric": "sparsity_difference", "compared_with": "ddqn", "states_from": "pool", "num_states": 16}
    difference = partial(Record, "Freeway", "sa_ddqn", map_kind="kmap", **on_pool)
    records = [
        difference(1, value=-30.0, note="few episodes"),
        difference(0, value=-31.25, low=-33.5, high=-29.0),
        difference(2, value=-1.25, low=-3.5, high=0.5),
        difference(None, value=-30.5, low=-40.0, high=7.875),
    ]
    own, text, *_ = glance(found.parts()[0].records, records)
    assert "interval" not in own
    assert "over episodes is below 0 in 1 of 2 seeds. The interval over seeds, -40 to 7.88, contains 0." in text
