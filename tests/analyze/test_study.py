"""Each stage runs once for its settings and inputs, and again exactly when one of them changes."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from composed import analysis
from random_networks import ablated_one_by_one
from swept_maps import sweep
from toy_policies import SMALL_FREEWAY, toy_policy

from analyze import maps as mapping
from analyze import study as playing
from analyze.maps import MapsResult, Shard, ensure_maps, ensure_null_networks
from analyze.plan import planned_parts
from analyze.report.load import find
from analyze.settings import AnalysisSettings, MapSettings, StatesSettings
from analyze.study import Study, ensure_baselines, ensure_evaluation, ensure_states
from nrmap.ablation import AblationSpec
from nrmap.maps.episode_maps import load_maps, save_maps
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks
from nrmap.maps.sparsity import sparsity
from nrmap.play import evaluation
from nrmap.play.evaluation import AttackRun, EvaluationSettings
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.clock import Clock
from nrmap.support.errors import NrmapError
from nrmap.support.identity import VERSIONS
from nrmap.support.layout import Layout
from nrmap.support.records import Record, select

STATES = StatesSettings(num_states=6, episodes=2, run_seed=0, states_from="own")
MAPS = MapSettings(temperatures=(0.5, 1.0), ablation=AblationSpec(), prefix_sizes=(3,))
EVALUATION = EvaluationSettings(episodes=1, run_seed=0, attack_runs=(AttackRun("fgsm", 1 / 255, 1),))
REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"
SETTINGS = AnalysisSettings(STATES, EVALUATION, MAPS, controls=2)


def study_in(folder: Path, **settings: Any) -> Study:
    """A study under `folder`/outputs with some settings changed."""
    return Study(replace(SETTINGS, **settings), Layout(folder / "outputs"), disk_budget_gb=0.1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the runs of each stage."""
    counted: Counter[str] = Counter()

    def counting(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        counted[work.__name__] += 1
        return work(*arguments, **options)

    for name in ("collect_states", "pool_states", "evaluate", "evaluate_baselines", "sweep_maps"):
        module = mapping if name == "sweep_maps" else playing
        monkeypatch.setattr(module, name, partial(counting, getattr(module, name)))
    return counted


def saved(folder: Path, seed: int = 0) -> Policy:
    path = folder / f"policy{seed}.safetensors"
    save_policy(path, toy_policy(SMALL_FREEWAY, seed))
    return load_policy(path)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return saved(tmp_path_factory.mktemp("policy"))


def run_all(policy: Policy, study: Study) -> MapsResult:
    maps = ensure_maps(study, policy, ensure_states(study, [policy]))
    ensure_baselines(study, policy)
    ensure_evaluation(study, policy)
    return maps


@pytest.fixture(scope="module")
def made(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A study whose every stage but the null networks ran once; the parts that were planned and those that came."""
    study, came = study_in(tmp_path_factory.mktemp("made")), list[str]()
    planned = [part.name for part in planned_parts(study, policy, [policy], None)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "at", lambda self, name, done, **initial: came.append(name))
        states = ensure_states(study, [policy])
        with_states = [part.name for part in planned_parts(study, policy, [policy], states)]
        maps = run_all(policy, study)
    return SimpleNamespace(study=study, maps=maps, planned=planned, planned_with_states=with_states, came=came)


@pytest.fixture
def finished(made: SimpleNamespace, tmp_path: Path) -> Study:
    """A copy of that study."""
    study = study_in(tmp_path)
    shutil.copytree(made.study.layout.outputs, study.layout.outputs)
    return study


def test_a_second_run_does_nothing_and_gives_the_same(policy, made, calls):
    study, first = made.study, made.maps
    times = {path: path.stat().st_mtime_ns for path in study.layout.outputs.rglob("*.*") if path.suffix != ".lock"}
    assert run_all(policy, study).records == first.records
    assert not calls
    assert {path: path.stat().st_mtime_ns for path in times} == times
    found, methods = find(study.layout.outputs), {"constant_action", "random_policy", "toy"}
    assert ({record.method for record in found.records}, found.problems) == (methods, ()), "the report finds all"


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"states": replace(STATES, num_states=4)}, {"collect_states", "sweep_maps"}),
        ({"states": replace(STATES, run_seed=1)}, {"collect_states", "sweep_maps"}),
        ({"maps": replace(MAPS, temperatures=(2.0,))}, {"sweep_maps"}),
        ({"maps": replace(MAPS, ablation=AblationSpec(value=255))}, {"sweep_maps"}),
        ({"maps": replace(MAPS, prefix_sizes=(2,))}, {"sweep_maps"}),
        ({"evaluation": replace(EVALUATION, episodes=2)}, {"evaluate", "evaluate_baselines"}),
        ({"evaluation": replace(EVALUATION, attack_runs=())}, {"evaluate"}),
    ],
)
def test_a_changed_setting_runs_exactly_what_depends_on_it(finished, policy, calls, changes, again):
    run_all(policy, replace(finished, settings=replace(SETTINGS, **changes)))
    assert dict(calls) == dict.fromkeys(again, 1)


def test_another_policy_runs_everything_and_another_version_of_a_stage_that_stage(
    finished, policy, tmp_path, calls, monkeypatch
):
    files = set(finished.layout.outputs.rglob("metrics.json"))
    monkeypatch.setitem(VERSIONS, "evaluation", VERSIONS["evaluation"] + 1)
    run_all(policy, finished)
    assert dict(calls) == {"evaluate": 1}
    assert files < set(finished.layout.outputs.rglob("metrics.json")), "what the old one made is left"
    run_all(saved(tmp_path, 1), finished)
    assert dict(calls) == {"evaluate": 2, "collect_states": 1, "sweep_maps": 1}


def test_a_pool_is_the_states_of_all_its_policies_and_has_maps_at_the_same_n_as_those_of_one(tmp_path, calls):
    policies = [saved(tmp_path, seed) for seed in (0, 1)]
    study = study_in(tmp_path, states=replace(STATES, states_from="pool"), maps=replace(MAPS, prefix_sizes=(1, 6, 99)))
    own = [ensure_states(study, [policy]) for policy in policies]
    pool, again = ensure_states(study, policies), ensure_states(study, policies)
    assert dict(calls) == {"collect_states": 2, "pool_states": 1}
    assert again.sha256 == pool.sha256
    np.testing.assert_array_equal(pool.states.states, np.concatenate([part.states.states for part in own]))
    result = ensure_maps(study, policies[0], pool)
    assert result.maps.num_states == 12
    prefixes = select(result.records, prefix=True, map_kind="kl", temperature=1.0)
    assert [(record.num_states, record.episodes) for record in prefixes] == [(1, 1), (6, 4)]
    assert result.maps.prefixes[6].states_per_episode.tolist() == [2, 1, 2, 1]


def test_states_of_another_game_are_refused(finished: Study, policy: Policy, tmp_path: Path) -> None:
    states, breakout = ensure_states(finished, [policy]), replace(SMALL_FREEWAY, game="Breakout")
    with pytest.raises(NrmapError, match="the states are of Breakout: expected Freeway"):
        ensure_maps(finished, policy, replace(states, states=replace(states.states, env=breakout)))
    save_policy(tmp_path / "breakout", toy_policy(breakout))
    study = study_in(tmp_path, states=replace(STATES, states_from=str(states.path)))
    with pytest.raises(NrmapError, match="states are of Freeway: expected Breakout"):
        ensure_states(study, [load_policy(tmp_path / "breakout")])


def test_a_file_of_another_policy_sample_or_stage_is_refused(finished: Study, policy: Policy, tmp_path: Path) -> None:
    """Each of two that were swapped is named, and nothing is made of it."""
    outputs, other, ours = finished.layout.outputs, saved(tmp_path, 1), run_all(policy, finished)
    theirs = run_all(other, finished)
    resampled = replace(finished, settings=replace(SETTINGS, states=replace(STATES, run_seed=1)))
    maps, states = ours.folder / "maps.npz", ensure_states(finished, [policy]).path
    played = {seed: next((outputs / f"evaluation/Freeway/toy/seed{seed}").glob("*/metrics.json")) for seed in (0, 1)}
    cut, metadata = load_maps(maps)
    smaller = {name: array[..., :20, :20] for name, array in cut.arrays.items()}
    save_maps(tmp_path / "cut.npz", replace(cut, arrays=smaller, prefixes={}), metadata)
    for path, source, line in (
        (maps, theirs.folder / "maps.npz", "holds other maps: its policy_sha256 is"),
        (maps, tmp_path / "cut.npz", "holds other maps: its maps_sha256 is"),
        (ours.folder / "metrics.json", theirs.folder / "metrics.json", "holds other results: its policy_sha256 is"),
        (ours.folder / "metrics.json", played[0], "holds other results: its states_sha256 is None"),
        (played[0], played[1], "holds other results: its policy_sha256 is"),
        (played[0], ours.folder / "metrics.json", "holds other results: its version is"),
        (states, ensure_states(finished, [other]).path, "holds states that other policies played"),
        (states, ensure_states(resampled, [policy]).path, "holds another sample"),
    ):
        whole = path.read_bytes()
        shutil.copy(source, path)
        with pytest.raises(NrmapError, match=f"^{path} {line}.*; remove "):
            run_all(policy, finished)
        path.write_bytes(whole)
    shard = Shard(0, 1).path(ours.folder)
    shard.parent.mkdir()
    shutil.copy(tmp_path / "cut.npz", shard)
    (ours.folder / "metrics.json").unlink()
    with pytest.raises(NrmapError, match=rf"^{shard} holds maps of \(20, 20\) pixels: expected \(28, 28\)"):
        run_all(policy, finished)


def test_an_interrupted_stage_leaves_nothing_that_counts_as_done(finished, policy, calls, monkeypatch):
    study = replace(finished, settings=replace(SETTINGS, maps=replace(MAPS, prefix_sizes=())))
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "map_records", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_all(policy, study)
    result = run_all(policy, study)
    assert calls["sweep_maps"] == 2
    assert select(result.records, metric="sparsity", map_kind="kmap")


@pytest.mark.slow
def test_the_evaluation_and_baselines_of_a_reference_policy_come_with_it(finished, policy, tmp_path, calls):
    records = [ensure_baselines(finished, policy), ensure_evaluation(finished, policy)]
    layout = finished.layout
    (evaluated,) = layout.evaluations(game="Freeway", method="toy", seed=0)
    (measured,) = (layout.outputs / "evaluation/Freeway/baseline").glob("*/metrics.json")
    for source, folder in (
        (evaluated, layout.reference(scale="quick", game="Freeway", method="toy", seed=0)),
        (measured, layout.reference_baselines(scale="quick", game="Freeway", identity=measured.parent.name)),
    ):
        folder.mkdir(parents=True)
        source.rename(folder / source.name)
    assert [ensure_baselines(finished, policy), ensure_evaluation(finished, policy)] == records
    assert not calls
    # Another policy of that name, and other settings, are not what was published.
    trained = saved(tmp_path, 1)
    trained.card = policy.card
    other = replace(finished, settings=replace(SETTINGS, evaluation=replace(EVALUATION, run_seed=5)))
    for number, (study, player) in enumerate([(finished, trained), (other, policy)], start=1):
        ensure_baselines(study, player)
        ensure_evaluation(study, player)
        assert (calls["evaluate_baselines"], calls["evaluate"]) == (number, number)


@pytest.mark.parametrize(("scale", "protocol", "conditions"), [("quick", "paper", 11), ("standard", "standard", 9)])
def test_published_evaluations_are_those_of_their_scale_and_are_not_repeated(calls, scale, protocol, conditions):
    study = Study(analysis(f"evaluation={protocol}"), Layout(REFERENCE.parent), disk_budget_gb=0.1)
    policies = [
        load_policy(path.with_name("policy.safetensors")) for path in (REFERENCE / scale).glob("*/*/seed*/metrics.json")
    ]
    assert len(policies) >= 4
    for policy in policies:
        assert len(select(ensure_evaluation(study, policy), metric="return_mean")) == conditions
        assert select(ensure_baselines(study, policy), method="random_policy")
    assert not calls


def test_an_evaluation_that_was_cut_off_goes_on_after_its_last_whole_roll_out(tmp_path, policy, made, monkeypatch):
    study, whole = study_in(tmp_path), ensure_evaluation(made.study, policy)
    layout = study.layout
    play, played = evaluation.play, Counter[str]()

    def play_unless_killed(player: Any, *args: Any, killed_at: str | None = None, **kwargs: Any) -> Any:
        attack = kwargs["progress"].keywords["part"].split()[0]
        if attack == killed_at:
            raise KeyboardInterrupt
        played[attack] += 1
        return play(player, *args, **kwargs)

    monkeypatch.setattr(evaluation, "play", partial(play_unless_killed, killed_at="fgsm"))
    with pytest.raises(KeyboardInterrupt):
        ensure_evaluation(study, policy)
    assert layout.evaluations(game="Freeway", method="toy", seed=0) == []
    monkeypatch.setattr(evaluation, "play", play_unless_killed)
    assert ensure_evaluation(study, policy) == whole
    assert dict(played) == {"clean": 1, "fgsm": 1}
    (written,) = layout.evaluations(game="Freeway", method="toy", seed=0)
    assert [path.name for path in written.parent.iterdir() if not path.name.startswith(".")] == [written.name]


def null_networks_of(policy: Policy, study: Study, draws: int = 2) -> list[Record]:
    changed = replace(study, settings=replace(SETTINGS, controls=draws))
    return ensure_null_networks(changed, policy, ensure_states(changed, [policy]))


def test_null_networks_are_mapped_once_for_their_weights_and_states(finished, policy, calls):
    assert null_networks_of(policy, finished, draws=0) == []
    records = null_networks_of(policy, finished)
    assert calls["sweep_maps"] == 4
    assert {(record.method, record.source_method, record.source_seed, record.draw) for record in records} == {
        *(("random_weights", None, None, draw) for draw in (0, 1)),
        *(("shuffled_weights", "toy", 0, draw) for draw in (0, 1)),
    }
    assert {record.num_states for record in select(records, prefix=False)} == {STATES.num_states}
    assert null_networks_of(policy, finished) == records
    assert calls["sweep_maps"] == 4
    null_networks_of(policy, finished, draws=3)
    assert calls["sweep_maps"] == 6, "longer lists begin with the draws of shorter ones"
    folders = {path.name for path in (finished.layout.outputs / "maps" / "Freeway").iterdir()}
    assert folders == {"random_weights", "shuffled_weights-toy-seed-0", "toy"}

    states = ensure_states(finished, [policy]).states
    for kind in NULL_NETWORKS:
        (network,), tensor = null_networks(policy, kind, 1, seed=0), torch.from_numpy(states.states)
        q_values = ablated_one_by_one(network, tensor, AblationSpec())
        maps = sweep(q_values, network(tensor), states.episode_ids, floor=1e-6)
        for key in ("margin_drop", ("kl", 1.0)):
            name, temperature = (key, None) if isinstance(key, str) else key
            fields = {"metric": "sparsity", "map_kind": name, "temperature": temperature, "prefix": False}
            (ours,) = select(records, method=kind, draw=0, **fields)
            assert ours.value == pytest.approx(sparsity(maps[key].sum(axis=0)).value, rel=1e-3)


def test_a_plan_has_the_parts_of_the_work_in_order_and_only_missing_ones(made, finished, policy, monkeypatch):
    came, states = list(made.came), ensure_states(finished, [policy])
    assert made.planned_with_states == made.planned[1:]
    assert [part.kind.rpartition("/")[2] for part in planned_parts(finished, policy, [policy], states)] == 4 * ["maps"]
    monkeypatch.setattr(Clock, "at", lambda self, name, done, **initial: came.append(name))
    ensure_null_networks(finished, policy, states)
    assert sorted({*came}) == sorted(made.planned)
    assert list(dict.fromkeys(made.came)) == [name for name in made.planned if name in made.came]
    assert planned_parts(finished, policy, [policy], states) == []
