"""Each stage runs once for its settings and inputs, and again exactly when one of them changes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_policies import BREAKOUT, FREEWAY, toy_policy

from analyze import shards, study
from analyze.null_networks import ensure_null_networks
from analyze.settings import MapSettings, Resources, StatesSettings
from nrmap.ablation import AblationSpec
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks
from nrmap.maps.sparsity import sparsity
from nrmap.maps.sweep import sweep_maps
from nrmap.play import evaluation
from nrmap.play.evaluation import WORST_CASE, AttackRun, EvaluationSettings
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.errors import NrmapError
from nrmap.support.identity import VERSIONS
from nrmap.support.layout import Layout
from nrmap.support.records import Record, select

CPU = torch.device("cpu")
STATES = StatesSettings(num_states=6, episodes=2, run_seed=0, states_from="own")
MAPS = MapSettings(temperatures=(0.5, 1.0), ablation=AblationSpec(), prefix_sizes=(3,))
EVALUATION = EvaluationSettings(episodes=2, run_seed=0, attack_runs=(AttackRun("fgsm", 1 / 255, 1),))
RESOURCES = Resources(engine="auto", disk_budget_gb=0.1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage did its work."""
    counted: Counter[str] = Counter()

    def count(name: str) -> None:
        module = shards if name == "sweep_maps" else study
        work: Callable[..., Any] = getattr(module, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counted[name] += 1
            return work(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    for name in ("collect_states", "pool_states", "evaluate", "evaluate_baselines", "sweep_maps"):
        count(name)
    return counted


def saved(folder: Path, seed: int = 0) -> Policy:
    path = folder / f"policy{seed}.safetensors"
    save_policy(path, toy_policy(FREEWAY, seed))
    return load_policy(path)


def run_all(
    policy: Policy,
    layout: Layout,
    *,
    states: StatesSettings = STATES,
    maps: MapSettings = MAPS,
    evaluation: EvaluationSettings = EVALUATION,
) -> study.MapsResult:
    file = study.ensure_states([policy], states, layout=layout, device=CPU)
    study.ensure_evaluation(policy, evaluation, layout=layout, device=CPU)
    return study.ensure_maps(policy, file, maps, states_from=states.label, resources=RESOURCES, layout=layout)


def test_a_second_run_does_nothing_and_gives_the_same(tmp_path: Path, calls: Counter[str]) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    first = run_all(policy, layout)
    done = dict(calls)
    assert done == {"collect_states": 1, "evaluate": 1, "sweep_maps": 1}
    times = {path: path.stat().st_mtime_ns for path in layout.outputs.rglob("*.*") if path.suffix != ".lock"}
    second = run_all(policy, layout)
    assert dict(calls) == done
    assert second.records == first.records
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"states": replace(STATES, num_states=4)}, {"collect_states", "sweep_maps"}),
        ({"states": replace(STATES, run_seed=1)}, {"collect_states", "sweep_maps"}),
        ({"maps": replace(MAPS, temperatures=(2.0,))}, {"sweep_maps"}),
        ({"maps": replace(MAPS, ablation=AblationSpec(value=255))}, {"sweep_maps"}),
        ({"maps": replace(MAPS, prefix_sizes=(2,))}, {"sweep_maps"}),
        ({"evaluation": replace(EVALUATION, episodes=1)}, {"evaluate"}),
        ({"evaluation": replace(EVALUATION, attack_runs=())}, {"evaluate"}),
    ],
)
def test_a_changed_setting_runs_exactly_what_depends_on_it(
    tmp_path: Path, calls: Counter[str], changes: dict[str, Any], again: set[str]
) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    run_all(policy, layout)
    before = Counter(calls)
    run_all(policy, layout, **changes)
    assert set(calls - before) == again


def test_another_policy_runs_everything(tmp_path: Path, calls: Counter[str]) -> None:
    layout = Layout(tmp_path / "outputs")
    run_all(saved(tmp_path, 0), layout)
    run_all(saved(tmp_path, 1), layout)
    assert dict(calls) == {"collect_states": 2, "evaluate": 2, "sweep_maps": 2}


def test_a_pool_is_the_states_of_all_its_policies_and_is_shared(tmp_path: Path, calls: Counter[str]) -> None:
    layout = Layout(tmp_path / "outputs")
    policies = [saved(tmp_path, seed) for seed in (0, 1)]
    settings = replace(STATES, states_from="pool")
    own = [study.ensure_states([policy], settings, layout=layout, device=CPU) for policy in policies]
    pool = study.ensure_states(policies, settings, layout=layout, device=CPU)
    again = study.ensure_states(policies, settings, layout=layout, device=CPU)
    assert dict(calls) == {"collect_states": 2, "pool_states": 1}
    assert again.sha256 == pool.sha256
    np.testing.assert_array_equal(pool.states.states, np.concatenate([part.states.states for part in own]))


def test_a_pool_has_maps_at_the_same_n_as_a_policys_own_states(tmp_path: Path) -> None:
    layout, policies = Layout(tmp_path / "outputs"), [saved(tmp_path, seed) for seed in (0, 1)]
    pool = study.ensure_states(policies, STATES, layout=layout, device=CPU)
    sizes = replace(MAPS, prefix_sizes=(1, 6, 99))
    result = study.ensure_maps(policies[0], pool, sizes, states_from="pool", resources=RESOURCES, layout=layout)
    assert result.maps.num_states == 12
    prefixes = select(result.records, prefix=True, map_kind="kl", temperature=1.0)
    assert [(record.num_states, record.episodes) for record in prefixes] == [(1, 1), (6, 4)]
    assert result.maps.prefixes[6].states_per_episode.tolist() in ([2, 1, 2, 1], [2, 2, 1, 1])


def test_maps_are_not_made_of_another_games_states(tmp_path: Path) -> None:
    layout, policy = Layout(tmp_path / "outputs"), saved(tmp_path)
    states = study.ensure_states([policy], STATES, layout=layout, device=CPU)
    other = replace(states, states=replace(states.states, env=replace(FREEWAY, game="Breakout")))
    with pytest.raises(NrmapError, match="the states are of Breakout: expected Freeway"):
        study.ensure_maps(policy, other, MAPS, states_from="pool", resources=RESOURCES, layout=layout)


def test_a_new_version_of_a_stage_leaves_what_the_old_one_made(
    tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    run_all(policy, layout)
    before, files = Counter(calls), set(layout.outputs.rglob("metrics.json"))
    monkeypatch.setitem(VERSIONS, "evaluation", VERSIONS["evaluation"] + 1)
    run_all(policy, layout)
    assert set(calls - before) == {"evaluate"}
    assert files < set(layout.outputs.rglob("metrics.json"))


def test_states_of_another_game_are_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "outputs")
    file = study.ensure_states([saved(tmp_path)], STATES, layout=layout, device=CPU)
    save_policy(tmp_path / "breakout", toy_policy(BREAKOUT))
    other = load_policy(tmp_path / "breakout")
    settings = replace(STATES, states_from=str(file.path))
    with pytest.raises(NrmapError, match="states are of Freeway: expected Breakout"):
        study.ensure_states([other], settings, layout=layout, device=CPU)


def test_an_interrupted_stage_leaves_nothing_that_counts_as_done(
    tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "map_records", killed)
        with pytest.raises(KeyboardInterrupt):
            run_all(policy, layout)
    result = run_all(policy, layout)
    assert calls["sweep_maps"] == 2
    assert select(result.records, metric="sparsity", map_kind="kmap")


def test_the_evaluation_of_a_reference_policy_comes_with_it(tmp_path: Path, calls: Counter[str]) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    records = study.ensure_evaluation(policy, EVALUATION, layout=layout, device=CPU)
    (made,) = layout.evaluations(game="Freeway", method="toy", seed=0)
    reference = layout.reference(game="Freeway", method="toy", seed=0)
    reference.mkdir(parents=True)
    made.rename(reference / made.name)
    assert study.ensure_evaluation(policy, EVALUATION, layout=layout, device=CPU) == records
    assert calls["evaluate"] == 1
    # Neither other settings nor another policy of that name are those that it was made of.
    study.ensure_evaluation(policy, replace(EVALUATION, run_seed=5), layout=layout, device=CPU)
    assert calls["evaluate"] == 2
    other = saved(tmp_path, 1)
    other.card = policy.card
    study.ensure_evaluation(other, EVALUATION, layout=layout, device=CPU)
    assert calls["evaluate"] == 3


def test_the_baselines_of_a_reference_policy_come_with_it(tmp_path: Path, calls: Counter[str]) -> None:
    reference, trained = saved(tmp_path, 0), saved(tmp_path, 1)
    layout = Layout(tmp_path / "outputs")
    study.ensure_evaluation(reference, EVALUATION, layout=layout, device=CPU)
    records = study.ensure_baselines(reference, EVALUATION, layout=layout)
    (evaluated,) = layout.evaluations(game="Freeway", method="toy", seed=0)
    (made,) = layout.baselines(game="Freeway", identity="").glob("*/metrics.json")
    shared = layout.reference_baselines(game="Freeway", identity=made.parent.name)
    for source, folder in (
        (evaluated, layout.reference(game="Freeway", method="toy", seed=0)),
        (made, shared),
    ):
        folder.mkdir(parents=True)
        source.rename(folder / source.name)
    assert study.ensure_baselines(reference, EVALUATION, layout=layout) == records
    assert calls["evaluate_baselines"] == 1
    # A policy trained here is compared with players measured here, and other episodes are not those that came.
    assert study.ensure_baselines(trained, EVALUATION, layout=layout) == records
    assert calls["evaluate_baselines"] == 2
    study.ensure_baselines(reference, replace(EVALUATION, run_seed=5), layout=layout)
    assert calls["evaluate_baselines"] == 3


@pytest.mark.bitwise
def test_an_evaluation_that_was_cut_off_goes_on_after_its_last_whole_roll_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    settings = replace(EVALUATION, attack_runs=(AttackRun("noise", 0.1, 1), AttackRun("fgsm", 0.1, 1)))
    whole = study.ensure_evaluation(policy, settings, layout=Layout(tmp_path / "whole"), device=CPU)
    play, played = evaluation.play, Counter[str]()

    def play_unless_killed(player: Any, *args: Any, killed_at: str | None = None, **kwargs: Any) -> Any:
        attack = getattr(getattr(player, "_attack", None), "name", "clean")
        if attack == killed_at:
            raise KeyboardInterrupt
        played[attack] += 1
        return play(player, *args, **kwargs)

    monkeypatch.setattr(evaluation, "play", partial(play_unless_killed, killed_at="fgsm"))
    with pytest.raises(KeyboardInterrupt):
        study.ensure_evaluation(policy, settings, layout=layout, device=CPU)
    assert layout.evaluations(game="Freeway", method="toy", seed=0) == []
    monkeypatch.setattr(evaluation, "play", play_unless_killed)
    assert study.ensure_evaluation(policy, settings, layout=layout, device=CPU) == whole
    assert dict(played) == {"clean": 1, "noise": 1, "fgsm": 1}
    (made,) = layout.evaluations(game="Freeway", method="toy", seed=0)
    assert [path.name for path in made.parent.iterdir() if not path.name.startswith(".")] == [made.name]


def test_the_evaluation_proves_what_it_can_and_records_it(tmp_path: Path) -> None:
    """Radii at which some states of a toy policy are certified and some are not."""
    radius = 0.003 / 255
    runs = (AttackRun(WORST_CASE, radius, 1),)
    settings = EvaluationSettings(episodes=1, run_seed=1, attack_runs=runs, certify_epsilons=(radius, 0.5))
    records = study.ensure_evaluation(saved(tmp_path), settings, layout=Layout(tmp_path / "outputs"), device=CPU)
    rates = {record.attack_epsilon: record.value for record in select(records, metric="certified_rate")}
    assert rates[0.5] == 0
    assert 0 < rates[radius] < 1
    (worst,) = select(records, metric="return_mean", attack=WORST_CASE)
    assert (worst.attack_epsilon, worst.episodes) == (radius, 1)


def controls_of(policy: Policy, layout: Layout, draws: int = 2) -> list[Record]:
    file = study.ensure_states([policy], STATES, layout=layout, device=CPU)
    return ensure_null_networks(
        policy, file, MAPS, draws=draws, seed=0, states_from="own", resources=RESOURCES, layout=layout
    )


def test_controls_are_mapped_once_for_their_weights_and_states(tmp_path: Path, calls: Counter[str]) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    assert controls_of(policy, layout, draws=0) == []
    records = controls_of(policy, layout)
    maps_of_one = calls["sweep_maps"] / 4
    assert maps_of_one >= 1
    assert {(record.method, record.source_method, record.source_seed, record.draw) for record in records} == {
        *(("random_weights", None, None, draw) for draw in (0, 1)),
        *(("shuffled_weights", "toy", 0, draw) for draw in (0, 1)),
    }
    assert {record.num_states for record in select(records, prefix=False)} == {STATES.num_states}
    assert controls_of(policy, layout) == records
    assert calls["sweep_maps"] == 4 * maps_of_one
    controls_of(policy, layout, draws=3)
    assert calls["sweep_maps"] == 6 * maps_of_one, "longer lists begin with the draws of shorter ones"
    folders = {path.name for path in (layout.outputs / "maps" / "Freeway").iterdir()}
    assert folders == {"random_weights", "shuffled_weights-toy-seed-0"}


def test_the_maps_of_a_control_are_those_of_its_network(tmp_path: Path) -> None:
    policy, layout = saved(tmp_path), Layout(tmp_path / "outputs")
    file = study.ensure_states([policy], STATES, layout=layout, device=CPU)
    records = controls_of(policy, layout, draws=1)
    for kind in NULL_NETWORKS:
        (control,) = null_networks(policy, kind, 1, seed=0)
        by_hand = AblatedByHand(control, torch.from_numpy(file.states.states))
        maps = sweep_maps([by_hand], episode_ids=file.states.episode_ids, temperatures=(1.0,), rounding_floor=1e-6)
        (ours,) = select(records, method=kind, metric="sparsity", map_kind="margin_drop", prefix=False)
        assert ours.value == pytest.approx(sparsity(maps["margin_drop"].sum(axis=0)).value, rel=1e-3)
        (flat,) = select(records, method=kind, metric="sparsity", map_kind="kl", prefix=False, temperature=1.0)
        assert flat.value == pytest.approx(sparsity(maps["kl", 1.0].sum(axis=0)).value, rel=1e-3)


class AblatedByHand:
    """Every pixel of every state set to zero, a row of pixels at a time."""

    start = 0

    def __init__(self, policy: Policy, states: torch.Tensor) -> None:
        height, width = states.shape[-2:]
        self.clean_q_values = policy(states)
        rows = []
        for row in range(height):
            ablated = states[:, None].repeat(1, width, 1, 1, 1)  # [N, W, C, H, W]
            for column in range(width):
                ablated[:, column, :, row, column] = 0
            rows.append(policy(ablated.flatten(0, 1)).unflatten(0, (len(states), width)))
        self.q_values = torch.stack(rows, dim=1)  # [N, H, W, A]
