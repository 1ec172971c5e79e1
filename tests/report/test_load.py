"""Results found under an outputs folder, and the commands for missing ones."""

import errno
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from composed import composed, training
from example_outputs import SMALL, edited, save_nothing, synthetic_states, write_maps, write_training

from analyze.report import build
from analyze.report.inventory import missing
from analyze.report.load import find
from analyze.report.map_sheets import map_sets
from analyze.report.tables import all_tables
from conf.schema import AnalyzeKeys, TrainKeys
from conf.train_settings import train_settings
from nrmap.maps.episode_maps import load_maps, save_maps
from nrmap.maps.null_networks import null_networks
from nrmap.play.states import save_states
from nrmap.policies.policy import PolicySource, load_policy, save_policy
from nrmap.support import schema
from nrmap.support.files import read_json, write_json
from nrmap.support.identity import VERSIONS, stage_identity
from nrmap.support.layout import Layout


def commands_of(line):
    """The keys of every job in the commands of a line on missing results."""
    for command in line.split("`")[1::2]:
        python, m, module, *options = shlex.split(command)
        assert (python, m) == ("python", "-m")
        policies = [[]]
        if options[0] == "-m":
            (swept,) = [option for option in options if option.startswith("policy=")]
            options = [option for option in options[1:] if option != swept]
            policies = [[f"policy={path}"] for path in swept.removeprefix("policy=").split(",")]
        form = {"train": TrainKeys, "analyze": AnalyzeKeys}[module]
        yield from (schema.validated(form, composed(module, *options, *policy)) for policy in policies)


SMOKE = ["env=Pong", "env.width=42", "env.height=42", "scale=smoke", "scale.steps=960"]


def test_commands_for_unfinished_and_missing_trainings_have_the_options_of_those_that_are_there(tmp_path):
    options = [*SMOKE, "method=sa_ddqn", "seed=4", "method.regulariser.kappa=0.7"]
    settings = training(*options)
    path = write_training(Layout(tmp_path), settings)
    write_json(path.with_name("options.json"), options)
    path.unlink()
    unfinished, vanilla = missing(find(tmp_path))
    assert unfinished.startswith("Pong, trainings that are not finished: SA-DDQN seed 4. ")
    assert vanilla.startswith("Pong, not trained: DDQN seed 4. ")
    (again,), (parent,) = commands_of(unfinished), commands_of(vanilla)
    assert (again.outputs, train_settings(again)) == (str(tmp_path), settings)
    assert train_settings(parent) == settings.parent


def test_commands_for_missing_results_analyse_the_files_that_are_there(tmp_path, tiny_settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = Layout(Path("outputs"))
    for method in ("ddqn", "sa_ddqn"):
        path = write_training(layout, tiny_settings(method=method, seed=1))
        shutil.move(path.parent, layout.reference(scale="quick", game="Freeway", method=method, seed=1))
    path = write_training(layout, tiny_settings(method="sa_ddqn", seed=0))
    write_json(path.with_name("options.json"), [*SMOKE, "method=sa_ddqn"])
    returns, own, shared, trained, baselines = missing(find(Path("outputs")))
    assert "Freeway, no returns: " in returns
    assert "no maps on their own states: " in own
    assert "no maps on shared states: DDQN seed 1, SA-DDQN seed 1. " in shared
    assert "not trained: DDQN seed 0. " in trained
    assert "no returns of constant actions" in baselines
    (*published, here), pooled = (list(commands_of(line)) for line in (own, shared))
    named = [(keys.policies_from, keys.method["name"], keys.seed) for keys in published]
    assert named == [("reference", "ddqn", 1), ("reference", "sa_ddqn", 1)]
    paper = schema.validated(AnalyzeKeys, composed("analyze", "evaluation=paper")).evaluation
    assert all(keys.evaluation == paper for keys in (*published, *pooled))
    assert {(keys.states_from, len(keys.pool)) for keys in pooled} == {("pool", 2)}
    assert (here.scale["name"], load_policy(Path(here.policy)).card.method) == ("smoke", "sa_ddqn")


EVALUATION, MAPS = "evaluation/Freeway/ddqn/**/metrics.json", "maps/**/metrics.json"
CURVES, POLICY = "train/**/curves.json", "train/**/policy.safetensors"


def changed(path, change):
    with edited(path) as content:
        change(content)


def copied_to(path, target):
    """A copy in place of `target`, or of the first file of that pattern."""
    (outputs,) = [folder for folder in path.parents if folder.name == "outputs"]
    copy = next(outputs.glob(target), outputs / target)
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(path, copy)


def in_a_folder(path, name):
    path.parent.rename(path.parent.with_name(name))


def imported_with_a_parent(path, parent):
    policy = load_policy(path)
    policy.card = replace(policy.card, source=PolicySource("sb3", "0" * 64), settings={"parent": parent})
    save_policy(path, policy)


@pytest.mark.parametrize(
    ("damage", "pattern", "value", "line"),
    [
        (changed, CURVES, lambda curves: curves.update(episodes=[{"agent_step": 1, "undiscounted_return": 1e308}]),
         r"train/.*curves\.json: episodes\[0\]\.undiscounted_return=1e\+308: expected a finite"),
        (changed, EVALUATION, lambda metrics: metrics["records"].clear(), r"evaluation/.*metrics\.json has no records"),
        (changed, EVALUATION, lambda metrics: metrics["records"][0].update(method="random_policy"),
         r"evaluation/.*metrics\.json is damaged: .*random_policy has no network"),
        (changed, MAPS, lambda metrics: metrics["records"][0].update(map_kind="zzz"),
         r"maps/.*metrics\.json has an unknown kind of map: 'zzz'"),
        (copied_to, EVALUATION, MAPS, r"maps/.*metrics\.json holds records of play: expected records of maps"),
        (copied_to, POLICY, "train/policy.safetensors", "train: expected a training in a folder of its own"),
        (copied_to, POLICY, "reference/policy.safetensors", "reference: expected a training in a folder of its own"),
        (in_a_folder, EVALUATION, "\udcff", r"evaluation/.*\\udcff/metrics\.json: left out, expected a name in UTF-8"),
        (imported_with_a_parent, POLICY, {"steps": "x"},
         r"train/.*policy\.safetensors: card\.settings\.parent\.env is missing"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_left_out_and_named(damage, pattern, value, line, copied, outputs):
    before = find(outputs)
    damage(next(copied.glob(pattern)), value)
    found = find(copied)
    (problem,) = set(found.problems) - set(before.problems)
    assert re.match(line, problem)
    problem.encode()
    assert len(found.results) + len(found.trainings) >= len(before.results) + len(before.trainings) - 1


def test_a_damaged_file_of_maps_or_states_is_left_out_and_named(copied, monkeypatch):
    damaged = [*(copied / "maps/Freeway/ddqn").rglob("maps.npz"), copied / "states/Freeway/sa_ddqn0.npz"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-100])

    monkeypatch.setattr(build, "save_sheet", save_nothing)
    monkeypatch.setattr(build, "build_page", lambda found, tables, drawings, problems: "\n".join(problems))
    report = build.ensure_report(copied)
    for path, line in zip(damaged, report.problems, strict=True):
        assert line.startswith(f"{path.relative_to(copied)} is not a readable ")
    assert report.page.read_text().splitlines() == report.problems
    assert build.ensure_report(copied)._replace(made=True) == report


def test_maps_that_are_not_those_measured_are_left_out_and_named(copied):
    paths = path, other = [next((copied / "maps/Freeway" / method).rglob("maps.npz")) for method in ("ddqn", "sa_ddqn")]
    maps, metadata = load_maps(other)
    shutil.copy(other, path)
    cut = {name: array[..., :20, :20] for name, array in maps.arrays.items()}
    save_maps(other, replace(maps, arrays=cut, prefixes={}), metadata)
    _, problems = map_sets(find(copied).parts()[0], copied)
    for path, name, problem in zip(paths, ("policy_sha256", "maps_sha256"), problems, strict=True):
        assert problem.startswith(f"{path.relative_to(copied)} holds other maps: its {name} is ")


def test_reference_policies_have_rows_and_a_section_of_their_own(copied, tiny_settings):
    shutil.move(copied / "train", copied / "reference" / "quick")
    layout = Layout(copied)
    policy = load_policy(write_training(layout, tiny_settings(seed=0, steps=260)))
    states_path = layout.states(game="Freeway", identity="more")
    save_states(states_path, synthetic_states(policy, SMALL))
    write_maps(layout, policy, states_path, "own", SMALL)
    (control,) = null_networks(policy, "random_weights", 1, seed=0)
    write_maps(layout, control, states_path, "own", SMALL)
    found = find(copied)
    assert ([part.name for part in found.parts()], len(found.reference)) == (["Freeway-quick", "Freeway"], 2)
    # A control is shown beside the policies whose states it was mapped on, and nowhere else.
    for part, number in zip(found.parts(), (0, 1), strict=True):
        assert sum(result.policy_sha256 == control.sha256 for result in part.results) == number
        assert any(record.policy_sha256 == control.sha256 for record in part.records) == bool(number)
    table = all_tables(found.records, [], found.reference)[0]
    assert [row[1].value for row in table.rows] == ["reference, quick", "trained here"]


def test_policies_stand_beside_the_baselines_of_their_own_environment(copied):
    (source,) = (copied / "evaluation" / "Freeway" / "baseline").rglob("metrics.json")
    content = read_json(source)
    content["settings"]["env"] |= {"max_agent_steps": 7}
    write_json(source.parent.with_name(stage_identity("baselines", **content["settings"])) / "metrics.json", content)

    policy = load_policy(next((copied / "train").rglob("policy.safetensors")))
    (control,) = null_networks(policy, "random_weights", 1, seed=0)  # has no training and plays nowhere
    write_maps(Layout(copied), control, next((copied / "states").rglob("*.npz")), "own", SMALL)

    def step_limits() -> set[int]:
        (part,) = find(copied).parts()
        return {each.settings["env"]["max_agent_steps"] for each in part.results if each.first.is_baseline}

    (limit,) = step_limits()
    assert limit != 7
    shutil.rmtree(copied / "train")  # now nobody knows where the policies played
    assert step_limits() == {limit, 7}


def test_values_from_reference_are_not_shown_twice_and_disagreement_is_named(copied, outputs):
    source, *_ = sorted((copied / "evaluation" / "Freeway" / "ddqn").rglob("metrics.json"))
    target = copied / "reference" / "quick" / "Freeway" / "metrics.json"
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    before = len(find(outputs).records)
    found = find(copied)
    assert (len(found.records), found.problems) == (before, ())
    with edited(target) as content:
        content["records"][0]["value"] += 1
    found = find(copied)
    assert len(found.records) == before
    (problem,) = found.problems
    assert problem.startswith("reference/quick/Freeway: 1 of its values differ")


def test_evaluations_of_another_version_are_left_out(outputs, monkeypatch):
    monkeypatch.setitem(VERSIONS, "evaluation", 99)
    found = find(outputs)
    players = {record.method for record in found.records if record.metric == "return_mean"}
    assert players == {"constant_action", "random_policy"}
    assert ["evaluation/Freeway/" in text and "another version" in text for text in found.problems] == [True, True]
    monkeypatch.setitem(VERSIONS, "baselines", 99)
    assert not any(record.attack for record in find(outputs).records)


def test_a_folder_that_may_not_be_read_is_named(copied, monkeypatch):
    closed, before, scandir = copied / "train", find(copied), os.scandir

    def refused(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = find(copied)
    assert found.problems == (*before.problems, "train: left out, Permission denied")
    assert len(found.trainings) < len(before.trainings)


def test_maps_of_an_earlier_version_are_shown_until_they_are_made_anew(copied):
    new, *_ = sorted((copied / "maps").rglob("metrics.json"))
    old = new.parent.with_name("0123456789ab") / "metrics.json"
    shutil.copytree(new.parent, old.parent)
    with edited(new, old) as content:
        del content["inputs"]["version"]
        for record in content["records"]:
            record["value"] = record["value"] and record["value"] * (1 + 1e-15)  # rounded otherwise
    (problem,) = find(copied).problems
    assert problem == f"{old.parent.relative_to(copied)}: left out, this version has made the same maps anew"
    shutil.rmtree(new.parent)
    found = find(copied)
    assert found.problems == ()
    assert str(old.parent.relative_to(copied)) in {result.folder for result in found.results}
