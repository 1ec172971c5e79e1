"""What the report finds under the outputs folder, what it calls it, and what it says is missing."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from example_outputs import SMALL, made_up_states, write_maps, write_training
from html_page import Page

from analyze.play_tables import returns_table
from analyze.report import build
from analyze.report.drawings import game_sources, map_sets
from analyze.report.found import find
from analyze.report.labels import differences
from analyze.report.missing import inventory, missing
from nrmap.controls import control_policies
from nrmap.episode_maps import load_maps, save_maps
from nrmap.files import read_json, write_json
from nrmap.layout import Layout
from nrmap.policy import load_policy
from nrmap.records import select
from nrmap.states_file import save_states


def test_a_training_that_is_not_finished_is_shown_as_such(tmp_path, tiny_settings):
    path = write_training(Layout(tmp_path), tiny_settings(seed=4))
    path.unlink()
    found = find(tmp_path)
    (training,) = found.trainings
    assert (training.game, training.method, training.seed, training.card) == ("Freeway", "ddqn", 4, None)
    text = " ".join(missing(found, inventory(found)))
    assert "training is not finished" in text
    assert "python -m train env=Freeway method=ddqn seed=4" in text
    assert "python -m train env=Freeway method=sa_ddqn seed=4" in text


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path, tiny_settings):
    write_training(Layout(tmp_path / "outputs"), tiny_settings(seed=0))
    found = find(tmp_path / "outputs")
    (entry,) = inventory(found)
    assert (entry.evaluation, entry.own, entry.pool, entry.curves) == (False, False, False, True)
    texts = missing(found, [entry])
    assert any("no returns and maps on its own states" in text and "policy=outputs/train/" in text for text in texts)
    assert any("states_from=pool" in text for text in texts)


def test_files_that_cannot_be_read_are_named_and_the_rest_is_shown(tmp_path, outputs):
    broken = tmp_path / "outputs"
    shutil.copytree(outputs, broken, ignore=shutil.ignore_patterns("report"))
    policy, *_ = sorted(broken.rglob("policy.safetensors"))
    policy.write_bytes(policy.read_bytes()[:100])
    metrics, *_ = sorted((broken / "evaluation").rglob("metrics.json"))
    content = read_json(metrics)
    write_json(metrics, content | {"schema": 99})
    maps, *_ = sorted((broken / "maps").rglob("maps.npz"))
    maps.write_bytes(b"not a zip file")
    (broken / "evaluation" / "metrics.json").mkdir()
    found = find(broken)
    assert len(found.problems) == 3
    assert any("evaluation/metrics.json: IsADirectoryError" in problem for problem in found.problems)
    assert "policy.safetensors is not a readable safetensors file" in found.problems[1] + found.problems[0]
    assert any("metrics schema 99" in problem for problem in found.problems)
    _, problems = map_sets(game_sources(found)[0], broken)
    assert len(problems) == 1
    assert "maps.npz" in problems[0]
    assert not any(str(tmp_path) in problem for problem in (*found.problems, *problems))


@pytest.mark.parametrize(
    "curves",
    [
        {"rows": []},
        {"episodes": [{"agent_step": 1}], "rows": []},
        {"episodes": [], "rows": [{"agent_step": 1, "loss": "x"}]},
        [1],
    ],
)
def test_curves_of_another_form_are_named(tmp_path, tiny_settings, curves):
    path = write_training(Layout(tmp_path), tiny_settings(seed=4)).with_name("curves.json")
    write_json(path, curves)
    found = find(tmp_path)
    assert found.trainings == ()
    (problem,) = found.problems
    assert str(path.parent.relative_to(tmp_path)) in problem


def test_a_damaged_file_of_maps_or_states_is_left_out_and_the_page_says_which(tmp_path, outputs, monkeypatch):
    broken = tmp_path / "outputs"
    shutil.copytree(outputs, broken, ignore=shutil.ignore_patterns("report"))
    damaged = [
        *(broken / "maps" / "Freeway" / "ddqn").rglob("maps.npz"),
        broken / "states" / "Freeway" / "sa_ddqn0.npz",
    ]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(build, "save_sheet", lambda sheet, folder: folder / f"{sheet.name}.png")
    page, _, _ = build.ensure_report(broken)
    text = page.read_text()
    assert Page(text).mistakes == []
    told = [line for line in text.splitlines() if line.startswith("<li>") and "is not a readable" in line]
    assert [str(path.relative_to(broken)) in line for path, line in zip(damaged, told, strict=True)] == [True, True]


def test_maps_that_are_not_finite_are_left_out(tmp_path, outputs):
    tree = tmp_path / "outputs"
    shutil.copytree(outputs, tree, ignore=shutil.ignore_patterns("report"))
    path, *_ = (tree / "maps" / "Freeway" / "ddqn").rglob("maps.npz")
    maps, metadata = load_maps(path)
    save_maps(path, replace(maps, kmap=np.full_like(maps.kmap, np.inf)), metadata)
    sets, (problem,) = map_sets(game_sources(find(tree))[0], tree)
    assert [one.method for one in sets] == ["sa_ddqn"]
    assert problem == f"{path.relative_to(tree)}: NaN or infinite values in maps"


def test_reference_policies_have_rows_and_a_section_of_their_own(tmp_path, outputs, tiny_settings):
    tree = tmp_path / "outputs"
    shutil.copytree(outputs, tree, ignore=shutil.ignore_patterns("report"))
    (tree / "reference").mkdir()
    shutil.move(tree / "train" / "Freeway", tree / "reference" / "Freeway")
    layout = Layout(tree)
    policy = load_policy(write_training(layout, tiny_settings(seed=0, steps=260)))
    states_path = layout.states(game="Freeway", identity="more")
    save_states(states_path, made_up_states(policy, SMALL))
    write_maps(layout, policy, states_path, "own", SMALL)
    found = find(tree)
    assert len(found.reference) == 2
    assert [source.name for source in game_sources(found)] == ["Freeway-reference", "Freeway"]
    table = build.all_tables(found)[0]
    assert [row[1].value for row in table.rows] == ["reference", "trained here"]
    assert {entry.method: entry.reference for entry in inventory(found)} == {"ddqn": False, "sa_ddqn": True}


def test_values_from_reference_are_not_shown_twice_and_disagreement_is_told(tmp_path, outputs):
    tree = tmp_path / "outputs"
    shutil.copytree(outputs, tree, ignore=shutil.ignore_patterns("report"))
    source, *_ = sorted((tree / "evaluation" / "Freeway" / "ddqn").rglob("metrics.json"))
    target = tree / "reference" / "Freeway" / "ddqn" / "metrics.json"
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    before = len(find(outputs).records)
    assert len(find(tree).records) == before
    assert find(tree).problems == ()
    content = read_json(target)
    content["records"][0]["value"] += 1
    write_json(target, content)
    found = find(tree)
    assert len(found.records) == before
    assert found.problems == (
        f"reference/Freeway/ddqn: 1 of its values are not those of {source.parent.relative_to(tree)}, "
        "which are shown in their place",
    )


def test_evaluations_on_other_episodes_are_told_apart(tmp_path, outputs):
    tree = tmp_path / "outputs"
    shutil.copytree(outputs, tree, ignore=shutil.ignore_patterns("report"))
    for source in sorted((tree / "evaluation").rglob("metrics.json")):
        content = read_json(source)
        content["settings"]["run_seed"] = 1
        for record in content["records"]:
            record["value"] += 1
        write_json(source.parent.with_name("other") / "metrics.json", content)
    found = find(tree)
    assert found.problems == ()
    clean = select(found.records, metric="return_mean", attack="clean")
    assert {record.method for record in clean} == {
        f"{method} (run_seed={seed})" for method in ("ddqn", "sa_ddqn") for seed in (0, 1)
    }
    players = {str(row[1].value): row for row in returns_table(found.records).rows}
    first, second = (players[f"always UP (run_seed={seed})"] for seed in (0, 1))
    assert second[3].value == first[3].value + 1
    assert {"random actions (run_seed=0)", "random actions (run_seed=1)"} <= players.keys()
    assert {record.method for record in found.records if record.states_from} == {"ddqn", "sa_ddqn"}


def test_variants_of_a_method_have_labels_that_tell_them_apart(tmp_path, tiny_settings, tiny_regulariser):
    layout = Layout(tmp_path)
    for kappa in (0.1, 0.5):
        for seed in (0, 1):
            settings = tiny_settings(method="sa_ddqn", seed=seed)
            write_training(layout, replace(settings, regulariser=tiny_regulariser(kappa=kappa)))
    labels = [training.method for training in find(tmp_path).trainings]
    assert sorted(labels) == ["sa_ddqn (kappa=0.1)"] * 2 + ["sa_ddqn (kappa=0.5)"] * 2


def test_seeds_are_no_variants(tmp_path, tiny_settings):
    for seed in (0, 1):
        write_training(Layout(tmp_path), tiny_settings(seed=seed))
    assert [training.method for training in find(tmp_path).trainings] == ["ddqn", "ddqn"]


def test_two_analyses_of_one_policy_with_different_ablations_are_told_apart(tmp_path, outputs):
    tree = tmp_path / "outputs"
    shutil.copytree(outputs, tree, ignore=shutil.ignore_patterns("report"))
    source, *_ = sorted((tree / "maps" / "Freeway" / "ddqn").rglob("metrics.json"))
    target = source.parent.parent / "other" / "metrics.json"
    target.parent.mkdir()
    content = read_json(source)
    content["settings"]["ablation"]["value"] = 128
    write_json(target, content)
    states = {record.states_from for record in find(tree).records if record.method == "ddqn" and record.states_from}
    assert states == {"own (value=0)", "own (value=128)"}


def test_two_pools_of_one_name_are_told_apart(tmp_path, outputs):
    tree = tmp_path / "outputs"
    shutil.copytree(outputs, tree, ignore=shutil.ignore_patterns("report"))
    for index, path in enumerate(sorted((tree / "maps").rglob("metrics.json"))):
        content = read_json(path)
        content["inputs"]["states_sha256"] = f"{index}abcdefgh"
        for record in content["records"]:
            record["states_from"] = "pool"
        write_json(path, content)
    states = {record.states_from for record in find(tree).records if record.states_from}
    assert states == {"pool (0abcde)", "pool (1abcde)"}


def test_the_pools_of_all_seeds_have_one_name_and_random_weights_say_which_they_were_mapped_on(tmp_path, tiny_settings):
    layout = Layout(tmp_path)
    for seed in (0, 1):
        policies = [
            load_policy(write_training(layout, tiny_settings(method=m, seed=seed))) for m in ("ddqn", "sa_ddqn")
        ]
        pool = layout.states(game="Freeway", identity=f"pool{seed}")
        save_states(pool, made_up_states(policies[0], SMALL))
        for policy in [*policies, *control_policies(policies[1], "random_weights", 1, seed=0)]:
            write_maps(layout, policy, pool, "pool", SMALL)
    sizes = select(find(tmp_path).records, metric="kmap_sparsity", item=None)
    assert sorted((record.method, record.seed, record.states_from) for record in sizes) == [
        ("ddqn", 0, "pool"),
        ("ddqn", 1, "pool"),
        ("random_weights (on states of seed 0)", 0, "pool"),
        ("random_weights (on states of seed 1)", 0, "pool"),
        ("sa_ddqn", 0, "pool"),
        ("sa_ddqn", 1, "pool"),
    ]


def test_differences_are_as_short_as_they_can_be():
    assert differences([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}]) == ["b=2", "b=3"]
    assert differences([{"x.steps": "1", "regulariser.kappa": "2"}, {"x.steps": "3", "regulariser.kappa": "4"}]) == [
        "kappa=2",
        "kappa=4",
    ]
    corners = [{"a": a, "b": b} for a in "12" for b in "12"]
    assert differences(corners)[1] == "a=1, b=2"
    assert differences([{"a": "1"}, {"a": "1"}]) == ["", ""]
    assert differences([{"a": a, "b": b, "c": c} for a in "12" for b in "12" for c in "12"])[0] == ""
