"""The report against the files that it is made from: everything is there, nothing comes from elsewhere."""

import base64
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from example_outputs import Example, made_up_states, write_example, write_maps, write_training

from analyze.report import build
from analyze.report.__main__ import main
from analyze.report.build import ensure_report, records_csv
from analyze.report.drawings import chart_panels, game_sources, map_sets, map_sheets
from analyze.report.found import find
from analyze.report.gallery import MapSet, one_of_each_kind
from analyze.report.glance import glance
from analyze.report.labels import differences
from analyze.report.missing import inventory, missing
from analyze.report.page import GamePart, build_page
from analyze.report.values import value_text
from nrmap.episode_maps import TotalMaps
from nrmap.errors import NrmapError
from nrmap.files import read_json, write_json
from nrmap.layout import Layout
from nrmap.policy import load_policy
from nrmap.records import Record
from nrmap.states_file import save_states

SMALL = Example(
    seeds=(0,), temperatures=(1.0,), prefix_sizes=(8,), states_from=("own",), without_flips=(("sa_ddqn", 0),)
)
VOID = {"meta", "img", "br", "link", "hr", "input"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, tiny_settings):
    """A small tree with its report built once."""
    folder = tmp_path_factory.mktemp("report") / "outputs"
    write_example(folder, tiny_settings(), SMALL)
    ensure_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(outputs):
    return (outputs / "report" / "index.html").read_text()


class Page(HTMLParser):
    """Open tags, identifiers, references and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.mistakes: list[str] = []
        self.identifiers: list[str] = []
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.headings: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in values:
            self.identifiers.append(values["id"])
        self.addresses += [values[name] for name in ("href", "src", "srcset", "action") if name in values]
        if tag == "img":
            self.pictures.append(values)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)


def test_the_page_is_well_formed(html):
    page = Page(html)
    assert page.mistakes == []
    assert page.open == []
    assert len(set(page.identifiers)) == len(page.identifiers)
    fragments = {address[1:] for address in page.addresses if address.startswith("#")}
    assert fragments <= set(page.identifiers)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))


def test_the_page_needs_no_network(html):
    page = Page(html)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert re.search(r"https?:|@import|url\(|//[a-z]", re.sub(r";base64,[^\"]*", "", html)) is None
    for picture in page.pictures:
        kind, _, content = picture["src"].partition(";base64,")
        if kind == "data:image/svg+xml":
            drawing = base64.b64decode(content).decode()
            references = re.findall(r'(?:xlink:href|href|src)="([^"]*)"', drawing)
            assert all(one.startswith(("#", "data:")) for one in references)


def test_every_picture_is_told_in_words(html):
    pictures = Page(html).pictures
    assert len(pictures) > 10
    assert all(picture["alt"] and len(picture["alt"]) > 20 for picture in pictures)


def test_every_value_of_every_record_is_on_the_page(outputs, html):
    records = find(outputs).records
    assert len(records) > 200
    for record in records:
        assert ("undefined" if record.value is None else value_text(record.value)) in html
        if record.low is not None and record.high is not None:
            assert f"[{value_text(record.low)}, {value_text(record.high)}]" in html
        if record.value is None:
            assert record.note in html


def test_the_page_shows_what_the_paper_printed_settings_deviations_and_provenance(html):
    for text in (
        "53.7272",
        "20.4641",
        "published: SA-DQN (PGD)",
        "clean, proofs at 1/255 (20 episodes)",
        "worst case, 1/255 (10 episodes)",
        "Certified actions at 3/255",
        "a 36 × 36 map is too small",
        "always UP",
        "random actions",
        "learner.target_update_period",
        "run_seed",
        "At a glance",
        "S undefined: the map is 0 everywhere",
        "Equation 4 is used",
        "How to read these numbers",
        "versions.torch",
    ):
        assert text in html


def test_tables_and_figures_lie_beside_the_page(outputs):
    folder = outputs / "report"
    for name in ("table1", "returns", "sparsity", "actions-Freeway"):
        assert {path.suffix for path in (folder / "tables").glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    for name in ("figure1-Freeway-own-states-16", "figure2-Freeway-own-states-16", "overlay-Freeway", "curves-Freeway"):
        assert {path.suffix for path in (folder / "figures").glob(f"{name}.*")} == {".png", ".pdf"}
    assert (folder / "tables" / "records.csv").read_text() == records_csv(find(outputs).records)
    assert (folder / "index.html").stat().st_size < 10_000_000


def test_a_second_report_of_the_same_files_does_nothing_and_one_of_others_is_made_anew(outputs, monkeypatch, tmp_path):
    _, tables, made = ensure_report(outputs)
    assert not made
    assert [table.name for table in tables][:2] == ["table1", "returns"]
    changed = tmp_path / "outputs"
    shutil.copytree(outputs, changed)
    for folder in (changed / "maps", changed / "train"):
        shutil.rmtree(folder)
    monkeypatch.setattr(build, "save_sheet", lambda sheet, folder: folder / f"{sheet.name}.png")
    _, _, made = ensure_report(changed)
    assert made
    assert not (changed / "report" / "figures" / "figure1-Freeway-own-states-16.png").exists()
    assert (changed / "report" / "figures" / "returns-Freeway.png").exists()


def test_equal_files_give_an_equal_page(outputs):
    found = find(outputs)
    (source,) = game_sources(found)
    sets, problems = map_sets(source, outputs)
    charts = {name: panels for name, panels in chart_panels(source).items() if name in ("size", "returns")}
    part = GamePart(source, sets, charts, [])
    first, second = (build_page(found, build.all_tables(found), [part], problems, "x") for _ in range(2))
    assert first == second


def test_an_empty_folder_has_a_page_that_says_what_to_do(tmp_path):
    page, tables, _ = ensure_report(tmp_path)
    text = page.read_text()
    assert tables == []
    assert "There are no results under this outputs folder yet" in text
    assert "make reproduce" in text
    assert Page(text).mistakes == []


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
    found = find(broken)
    assert len(found.problems) == 2
    assert "policy.safetensors is not a readable safetensors file" in found.problems[1] + found.problems[0]
    assert any("metrics schema 99" in problem for problem in found.problems)
    _, problems = map_sets(game_sources(found)[0], broken)
    assert len(problems) == 1
    assert "maps.npz" in problems[0]
    assert not any(str(tmp_path) in problem for problem in (*found.problems, *problems))


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


def test_controls_belong_to_no_training_and_stand_beside_the_agents(tmp_path, outputs, tiny_settings):
    tree = tmp_path / "outputs"
    write_example(tree, tiny_settings(), replace(SMALL, controls=2))
    found = find(tree)
    shuffled = {f"shuffled_weights ({method} seed 0)" for method in ("ddqn", "sa_ddqn")}
    random = {f"random_weights (on {method} seed 0)" for method in ("ddqn", "sa_ddqn")}
    assert {record.method for record in found.records} == {"baseline", "ddqn", "sa_ddqn", *shuffled, *random}
    assert {record.states_from for record in found.records} == {None, "own"}, "controls are on the agents' own states"
    assert {entry.method for entry in inventory(found)} == {"ddqn", "sa_ddqn"}
    (source,) = game_sources(found)
    for method in shuffled | random:
        assert {record.seed for record in source.records if record.method == method} == {0, 1}
    assert glance(source.records) == glance(find(outputs).records)
    assert "controls" not in chart_panels(game_sources(find(outputs))[0])
    assert len(chart_panels(source)["controls"]) == 4
    sets, _ = map_sets(source, tree)
    sheets = {sheet.name: sheet for sheet in map_sheets(source, sets)}
    assert len(sheets["figure1-Freeway-own-states-16"].panels) == 2
    kinds = sheets["kinds-Freeway"]
    assert (kinds.columns, len(kinds.panels)) == (4, 16)
    labels = ["DDQN seed 0", "SA-DDQN seed 0", "random on DDQN seed 0 draw 0", "shuffled DDQN seed 0 draw 0"]
    for panel, label in zip(kinds.panels, [*labels, *labels], strict=False):
        assert f"of {label}, " in panel.alt
    part = GamePart(source, sets, {}, [])
    page = build_page(found, build.all_tables(found), [part], [], "x")
    assert Page(page).mistakes == []
    for text in (
        "All kinds of agents side by side",
        "beside networks that have learned nothing",
        'id="controls"',
        'id="grid"',
        "random weights (on sa_ddqn seed 0)",
    ):
        assert text in page


def test_one_of_each_kind_is_on_the_same_states_with_as_many_kinds_as_there_are(tmp_path):
    def of(method: str, seed: int, states: str) -> MapSet:
        one = np.ones((1, 4, 4))
        return MapSet(method, seed, states, TotalMaps((1.0,), 8, one[0], one[0], one, one), tmp_path)

    own = [of("ddqn", 1, "own"), of("ddqn", 0, "own"), of("sa_ddqn", 0, "own"), of("random_weights", 0, "own")]
    pool = [of("sa_ddqn (kappa=0.1)", 1, "pool"), of("ddqn", 2, "pool")]
    assert one_of_each_kind([*pool, *own]) == [own[1], own[2], own[3]]
    assert one_of_each_kind([*own[1:3], *pool]) == [pool[1], pool[0]], "among equals the states that all share"
    assert one_of_each_kind(own[:2]) == one_of_each_kind([]) == []


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
    assert found.problems == ("1 values were measured twice and differ; the page shows those not from reference",)


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


def sparsity_record(method: str, seed: int, value: float | None) -> Record:
    note = None if value is not None else "zero"
    return Record("Freeway", method, seed, "kmap_sparsity", value, states_from="own", num_states=8, note=note)


def test_the_glance_counts_seeds_and_does_not_count_what_is_undefined():
    records = [sparsity_record("ddqn", seed, 40.0) for seed in range(4)]
    records += [sparsity_record("sa_ddqn", seed, value) for seed, value in enumerate((10.0, 50.0, None, 39.0))]
    records.append(Record("Freeway", "baseline", None, "return_mean", 21.0, attack="constant:UP"))
    records.append(Record("Freeway", "ddqn", 0, "return_mean", 23.5, attack="clean"))
    texts = glance(records)
    assert texts[0] == (
        "Own states, N = 8: KMAP of SA-DDQN (adversarial) is sparser than that of DDQN (vanilla) in 2 of 3 seeds where "
        "both are defined; S(K) is undefined in 1. In the paper it is sparser: 20.4641 against 53.7272."
    )
    assert texts[1] == "The best constant action, always UP, returns 21.00."
    assert texts[2].startswith("DDQN (vanilla): clean 23.50; 0 of 1 policies beat")


def test_every_seed_and_method_is_on_the_map_figures(outputs):
    found = find(outputs)
    (source,) = game_sources(found)
    sets, _ = map_sets(source, outputs)
    sheets = {sheet.name: sheet for sheet in map_sheets(source, sets)}
    kinds = sheets.pop("kinds-Freeway")
    assert (len(kinds.panels), kinds.columns) == (8, 2)
    assert len(sheets) == 4
    assert all(len(sheet.panels) == sheet.columns == 2 for sheet in sheets.values())


def test_the_command_prints_table_1_and_where_the_page_is(outputs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyze.report", "--outputs", str(outputs)])
    main()
    printed = capsys.readouterr().out
    assert "Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)" in printed
    assert "53.7272" in printed
    assert printed.endswith(f"{outputs / 'report' / 'index.html'} is up to date\n")


def test_a_folder_that_is_not_there_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyze.report", "--outputs", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "no outputs folder" in complaint


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "report").write_text("a file where the folder should be")
    with pytest.raises(NrmapError, match="cannot write"):
        ensure_report(tmp_path)


def test_records_csv_has_a_column_for_every_field():
    record = sparsity_record("ddqn", 0, 1.5)
    header, line = records_csv([record]).splitlines()
    assert header.split(",")[:5] == ["game", "method", "seed", "metric", "value"]
    assert line.startswith("Freeway,ddqn,0,kmap_sparsity,1.5")
    assert json.dumps(header.count(",")) == str(line.count(","))
