"""The report as a folder of files and as a command."""

import csv
import shutil
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from example_outputs import SMALL, write_example
from html_page import Page

from analyze.report import build
from analyze.report.__main__ import main
from analyze.report.build import ensure_report
from analyze.report.chart_sheets import chart_sheets
from analyze.report.load import find
from analyze.report.map_sheets import MapSet, map_sets, map_sheets, one_of_each_kind
from analyze.report.names import PolicyName, StatesName
from analyze.report.pairing import with_differences
from analyze.report.sheets import Sheet
from analyze.report.summary import glance
from analyze.report.tables import all_tables
from nrmap.maps.episode_maps import TotalMaps
from nrmap.maps.kinds import KINDS
from nrmap.support.errors import NrmapError
from nrmap.support.files import write_bytes
from nrmap.support.records import read_records


def test_tables_and_figures_lie_beside_the_page(outputs):
    folder = outputs / "report"
    for name in ("table1", "returns", "sparsity", "actions-Freeway"):
        assert {path.suffix for path in (folder / "tables").glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    for name in ("figure1-Freeway-own-states-16", "figure2-Freeway-own-states-16", "overlay-Freeway", "curves-Freeway"):
        assert {path.suffix for path in (folder / "figures").glob(f"{name}.*")} == {".png", ".pdf"}
    found = with_differences(find(outputs))
    with (folder / "tables" / "records.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    expected = [asdict(record) for record in (*found.records, *found.differences)]
    assert lines == [{key: "" if x is None else str(x) for key, x in record.items()} for record in expected]
    assert read_records(folder / "differences.json") == list(found.differences)
    assert (folder / "index.html").stat().st_size < 10_000_000


def test_a_second_report_of_the_same_files_does_nothing_and_one_of_others_is_made_anew(outputs, monkeypatch, tmp_path):
    _, tables, made, _ = ensure_report(outputs)
    assert not made
    found = with_differences(find(outputs))
    assert tables == all_tables(found.records, found.differences, found.reference)
    changed = tmp_path / "outputs"
    shutil.copytree(outputs, changed)
    for folder in (changed / "maps", changed / "train"):
        shutil.rmtree(folder)
    monkeypatch.setattr(build, "save_sheet", lambda sheet, folder: folder / f"{sheet.name}.png")
    made = ensure_report(changed).made
    assert made
    assert not (changed / "report" / "figures" / "figure1-Freeway-own-states-16.png").exists()
    assert (changed / "report" / "figures" / "returns-Freeway.png").exists()
    assert "No maps yet: <code>make maps</code>" in (changed / "report" / "index.html").read_text()


def test_a_report_that_lost_a_file_is_made_anew(outputs, monkeypatch, tmp_path):
    def save_nothing(sheet: Sheet, folder: Path) -> Path:
        for ending in ("pdf", "png"):
            write_bytes(folder / f"{sheet.name}.{ending}", b"")
        return folder / f"{sheet.name}.png"

    monkeypatch.setattr(build, "save_sheet", save_nothing)
    monkeypatch.setattr(build, "build_page", lambda *_: "a page")
    tree = tmp_path / "outputs"
    shutil.copytree(outputs / "evaluation", tree / "evaluation")
    assert [ensure_report(tree).made for _ in range(2)] == [True, False]
    for lost in (
        "tables/returns.csv",
        "figures/returns-Freeway.pdf",
        "index.html",
        "differences.json",
        "manifest.json",
    ):
        (tree / "report" / lost).unlink()
        assert ensure_report(tree).made is True
        assert (tree / "report" / lost).is_file()
    (tree / "report" / "manifest.json").write_text("[]")
    assert [ensure_report(tree).made for _ in range(2)] == [True, False]


def test_an_empty_folder_has_a_page_that_says_what_to_do(tmp_path):
    page, tables, *_ = ensure_report(tmp_path)
    text = page.read_text()
    assert tables == []
    assert "There are no results under this outputs folder yet" in text
    assert "make reproduce" in text
    assert Page(text).mistakes == []


def test_a_sheet_has_a_row_for_every_seed_and_is_left_out_without_a_map(tmp_path, tiny_settings):
    tree = tmp_path / "outputs"
    write_example(tree, tiny_settings(), replace(SMALL, seeds=(0, 1)))
    write_example(tree, tiny_settings(), replace(SMALL, temperatures=(0.1,), states_from=("pool",)))
    for lost in (tree / "maps" / "Freeway" / "ddqn" / "seed0").glob("*"):
        records = [record for record in read_records(lost / "metrics.json") if record.states_from == "own"]
        if records:
            shutil.rmtree(lost)
    (part,) = find(tree).parts()
    sets, _ = map_sets(part, tree)
    sheets = {sheet.name: sheet for sheet in map_sheets(part, sets)}
    own = sheets["figure2-Freeway-own-states-16"]
    assert (own.columns, [panel and panel.alt.partition(" of ")[2].partition(",")[0] for panel in own.panels]) == (
        2,
        [None, "SA-DDQN seed 0", "DDQN seed 1", "SA-DDQN seed 1"],
    )
    assert "figure1-Freeway-pooled-states-16" in sheets
    assert "figure2-Freeway-pooled-states-16" not in sheets, "no HMAP of the pool is at the headline's T = 1"
    assert sheets["figure2-Freeway-pooled-states-16-T0.1"].folded


def test_controls_belong_to_no_training_and_stand_beside_the_agents(tmp_path, outputs, tiny_settings):
    tree = tmp_path / "outputs"
    write_example(tree, tiny_settings(), replace(SMALL, controls=2))
    found = find(tree)
    null = product(("random_weights", "shuffled_weights"), ("ddqn", "sa_ddqn"), (0,), (0, 1))
    networks = [record for record in found.records if record.is_null_network]
    assert {(r.method, r.source_method, r.source_seed, r.draw) for r in networks} == set(null)
    assert {record.states_from for record in found.records} == {None, "own"}, "controls are on the agents' own states"
    (part,) = found.parts()
    assert set(networks) <= set(part.records)
    assert glance(part.records) == glance(find(outputs).records)
    (without,) = find(outputs).parts()
    assert "controls-Freeway" not in {sheet.name for sheet in chart_sheets(without)}
    (beside,) = [sheet for sheet in chart_sheets(part) if sheet.name == "controls-Freeway"]
    assert len(beside.panels) == len(KINDS)
    sets, _ = map_sets(part, tree)
    sheets = {sheet.name: sheet for sheet in map_sheets(part, sets)}
    assert len(sheets["figure1-Freeway-own-states-16"].panels) == 2
    kinds = sheets["kinds-Freeway"]
    assert (kinds.columns, len(kinds.panels)) == (4, 4 * len(KINDS))


def test_one_of_each_kind_is_on_the_same_states_with_as_many_kinds_as_there_are(tmp_path):
    def of(method: str, seed: int, states: str) -> MapSet:
        total = TotalMaps((1.0,), {"kmap": np.ones((4, 4))}, 8)
        return MapSet(PolicyName(method, seed=seed), StatesName(states), total, tmp_path)

    own = [of("ddqn", 1, "own"), of("ddqn", 0, "own"), of("sa_ddqn", 0, "own"), of("random_weights", 0, "own")]
    pool = [of("sa_ddqn", 1, "pool"), of("ddqn", 2, "pool")]
    assert one_of_each_kind([*pool, *own]) == [own[1], own[2], own[3]]
    assert one_of_each_kind([*own[1:3], *pool]) == [pool[1], pool[0]], "among equals the states that all share"
    assert one_of_each_kind(own[:2]) == one_of_each_kind([]) == []


def test_the_command_prints_table_1_and_where_the_page_is(outputs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyze.report", "--outputs", str(outputs)])
    main()
    printed = capsys.readouterr().out
    assert "Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)" in printed
    assert "53.7272" in printed
    assert printed.endswith(f"{outputs / 'report' / 'index.html'} is up to date\n")


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "report").write_text("a file where the folder should be")
    with pytest.raises(NrmapError, match="cannot write"):
        ensure_report(tmp_path)
