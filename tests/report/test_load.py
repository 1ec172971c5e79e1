"""Results found under an outputs folder, and the commands for missing ones."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from composed import composed, training
from edited_json import edited
from example_outputs import SMALL, synthetic_states, write_maps, write_training

from analyze.report import build
from analyze.report.inventory import missing
from analyze.report.load import find
from analyze.report.map_sheets import map_sets
from analyze.report.tables import all_tables
from conf.schema import AnalyzeKeys, TrainKeys
from conf.training import train_settings
from nrmap.maps.episode_maps import load_maps, save_maps
from nrmap.maps.null_networks import null_networks
from nrmap.play.states import save_states
from nrmap.policies.policy import PolicySource, load_policy, save_policy
from nrmap.support import schema
from nrmap.support.files import write_json
from nrmap.support.identity import VERSIONS
from nrmap.support.layout import Layout


def commands_of(line):
    """The keys of every job in the commands of a line on missing results."""
    for command in line.split("`")[1::2]:
        python, m, module, *options = shlex.split(command)
        assert (python, m) == ("python", "-m")
        policies = [""]
        if options[0] == "-m":
            (swept,) = [option for option in options if option.startswith("policy=")]
            options = [option for option in options[1:] if option != swept]
            policies = [f"policy={path}" for path in swept.removeprefix("policy=").split(",")]
        for policy in policies:
            values = composed(module, *options, *filter(None, [policy]))
            yield schema.validated({"train": TrainKeys, "analyze": AnalyzeKeys}[module], values)


SMOKE = ["env=Pong", "env.width=42", "env.height=42", "scale=smoke", "scale.steps=960"]


def test_commands_for_unfinished_and_missing_trainings_have_the_options_of_those_that_are_there(tmp_path):
    options = [*SMOKE, "method=sa_ddqn", "seed=4", "method.regulariser.kappa=0.7"]
    settings = training(*options)
    path = write_training(Layout(tmp_path), settings)
    write_json(path.with_name("options.json"), options)
    path.unlink()
    found = find(tmp_path)
    unfinished, vanilla = missing(found)
    assert unfinished.startswith("Pong, trainings that are not finished: SA-DDQN seed 4. ")
    assert vanilla.startswith("Pong, not trained: DDQN seed 4. ")
    (again,), (parent,) = commands_of(unfinished), commands_of(vanilla)
    assert again.outputs == str(tmp_path)
    assert train_settings(again) == settings
    assert train_settings(parent) == settings.parent


def test_commands_for_missing_results_analyse_the_files_that_are_there(tmp_path, tiny_settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = Layout(Path("outputs"))
    for method in ("ddqn", "sa_ddqn"):
        path = write_training(layout, tiny_settings(method=method, seed=1))
        shutil.move(path.parent, layout.reference(scale="quick", game="Freeway", method=method, seed=1))
    path = write_training(layout, tiny_settings(method="sa_ddqn", seed=0))
    write_json(path.with_name("options.json"), [*SMOKE, "method=sa_ddqn"])
    found = find(Path("outputs"))
    returns, own, shared, trained, baselines = missing(found)
    assert returns.startswith("Freeway, no returns: ")
    assert own.startswith("Freeway, no maps on their own states: ")
    assert shared.startswith("Freeway, no maps on shared states: DDQN seed 1, SA-DDQN seed 1. ")
    assert trained.startswith("Freeway, not trained: DDQN seed 0. ")
    assert "no returns of constant actions" in baselines
    (*published, here), pooled = (list(commands_of(line)) for line in (own, shared))
    assert [(keys.policies_from, keys.method["name"], keys.seed) for keys in published] == [
        ("reference", "ddqn", 1), ("reference", "sa_ddqn", 1),
    ]  # fmt: skip
    paper = schema.validated(AnalyzeKeys, composed("analyze", "evaluation=paper")).evaluation
    assert all(keys.evaluation == paper for keys in (*published, *pooled))
    assert {(keys.states_from, len(keys.pool)) for keys in pooled} == {("pool", 2)}
    assert (here.scale["name"], load_policy(Path(here.policy)).card.method) == ("smoke", "sa_ddqn")


def changed(pattern, change):
    """A damage: the content of the first file of that pattern after `change`."""

    def damage(folder):
        with edited(next(folder.glob(pattern))) as content:
            change(content)

    return damage


EVALUATION, MAPS = "evaluation/Freeway/ddqn/**/metrics.json", "maps/**/metrics.json"
HUGE = [{"agent_step": 1, "undiscounted_return": 1e308}]


def play_among_the_maps(folder):
    metrics = next((folder / "evaluation/Freeway/ddqn").rglob("metrics.json"))
    shutil.copy(metrics, next((folder / "maps").rglob("metrics.json")))


def policy_in_no_folder(folder):
    shutil.copy(next((folder / "train").rglob("policy.safetensors")), folder / "train")


def reference_in_no_folder(folder):
    (folder / "reference").mkdir()
    shutil.copy(next((folder / "train").rglob("policy.safetensors")), folder / "reference")


def name_that_is_not_utf_8(folder):
    metrics = next(folder.glob(EVALUATION))
    metrics.parent.rename(metrics.parent.with_name("\udcff"))


def imported_with_an_odd_parent(folder):
    path = next((folder / "train").rglob("policy.safetensors"))
    policy = load_policy(path)
    policy.card = replace(policy.card, source=PolicySource("sb3", "0" * 64), settings={"parent": {"steps": "x"}})
    save_policy(path, policy)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            changed("train/**/curves.json", lambda curves: curves.update(episodes=HUGE)),
            r"train/.*curves\.json: episodes\[0\]\.undiscounted_return=1e\+308: expected a finite",
        ),
        (changed(EVALUATION, lambda metrics: metrics["records"].clear()), r"evaluation/.*metrics\.json has no records"),
        (
            changed(MAPS, lambda metrics: metrics["records"][0].update(map_kind="zzz")),
            r"maps/.*metrics\.json has an unknown kind of map: 'zzz'",
        ),
        (
            changed(EVALUATION, lambda metrics: metrics["records"][0].update(method="random_policy")),
            r"evaluation/.*metrics\.json is damaged: .*random_policy has no network",
        ),
        (play_among_the_maps, r"maps/.*metrics\.json holds records of play: expected records of maps"),
        (policy_in_no_folder, "train: expected a training in a folder of its own"),
        (reference_in_no_folder, "reference: expected a training in a folder of its own"),
        (name_that_is_not_utf_8, r"evaluation/.*\\udcff/metrics\.json: left out, expected a name in UTF-8"),
        (imported_with_an_odd_parent, r"train/.*policy\.safetensors: card\.settings\.parent\.env is missing"),
    ],
)
def test_what_is_damaged_is_left_out_and_named(damage, line, copied, outputs):
    before = find(outputs)
    damage(copied)
    found = find(copied)
    (problem,) = set(found.problems) - set(before.problems)
    assert re.match(line, problem)
    problem.encode()
    assert len(found.results) + len(found.trainings) >= len(before.results) + len(before.trainings) - 1


def test_a_damaged_file_of_maps_or_states_is_left_out_and_named(copied, monkeypatch):
    damaged = [
        *(copied / "maps" / "Freeway" / "ddqn").rglob("maps.npz"),
        copied / "states" / "Freeway" / "sa_ddqn0.npz",
    ]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(build, "save_sheet", lambda sheet, folder: folder / f"{sheet.name}.png")
    monkeypatch.setattr(build, "build_page", lambda found, tables, drawings, problems: "\n".join(problems))
    report = build.ensure_report(copied)
    for path, line in zip(damaged, report.problems, strict=True):
        assert line.startswith(f"{path.relative_to(copied)} is not a readable ")
    assert report.page.read_text().splitlines() == report.problems


def of_another_policy(path, other):
    shutil.copy(other, path)


def of_fewer_pixels(path, other):
    maps, metadata = load_maps(path)
    cut = {name: array[..., :20, :20] for name, array in maps.arrays.items()}
    save_maps(path, replace(maps, arrays=cut, prefixes={}), metadata)


@pytest.mark.parametrize(("change", "name"), [(of_another_policy, "policy_sha256"), (of_fewer_pixels, "maps_sha256")])
def test_maps_that_are_not_those_measured_are_left_out_and_named(change, name, copied):
    path, other = (next((copied / "maps/Freeway" / method).rglob("maps.npz")) for method in ("ddqn", "sa_ddqn"))
    change(path, other)
    (problem,) = map_sets(find(copied).parts()[0], copied)[1]
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
    assert len(found.reference) == 2
    reference, trained = found.parts()
    assert [reference.name, trained.name] == ["Freeway-quick", "Freeway"]
    # A control is shown beside the policies whose states it was mapped on, and nowhere else.
    for source, number in ((reference, 0), (trained, 1)):
        assert sum(result.policy_sha256 == control.sha256 for result in source.results) == number
        assert any(record.policy_sha256 == control.sha256 for record in source.records) == bool(number)
    table = all_tables(found.records, [], found.reference)[0]
    assert [row[1].value for row in table.rows] == ["reference, quick", "trained here"]


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


def test_a_policy_that_was_published_is_one_policy(tmp_path, tiny_settings):
    path, _ = (write_training(Layout(tmp_path), tiny_settings(seed=seed)) for seed in (0, 1))
    shutil.copytree(path.parent, tmp_path / "reference" / "quick" / "Freeway" / "ddqn" / "seed0")
    found = find(tmp_path)
    assert [(training.seed, training.reference) for training in found.trainings] == [(1, None), (0, "quick")]


def test_evaluations_of_another_version_are_left_out(outputs, monkeypatch):
    monkeypatch.setitem(VERSIONS, "evaluation", 99)
    found = find(outputs)
    players = {record.method for record in found.records if record.metric == "return_mean"}
    assert players == {"constant_action", "random_policy"}
    assert ["evaluation/Freeway/" in text and "another version" in text for text in found.problems] == [True, True]
    monkeypatch.setitem(VERSIONS, "baselines", 99)
    assert not any(record.attack for record in find(outputs).records)


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
