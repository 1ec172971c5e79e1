"""The report as a folder of files, and its sheets of maps."""

import shutil
from dataclasses import replace
from itertools import product

import pytest
from example_outputs import SMALL, save_nothing, write_example
from html_page import Page

from analyze.report import build
from analyze.report.build import ensure_report
from analyze.report.load import find
from analyze.report.map_sheets import map_sets, map_sheets
from analyze.report.summary import glance
from nrmap.maps.kinds import KINDS
from nrmap.support.errors import NrmapError
from nrmap.support.files import TEMPORARY_PREFIX
from nrmap.support.records import read_records


def test_a_report_is_made_once_and_again_for_other_inputs_or_when_it_lost_a_file(copied, monkeypatch):
    monkeypatch.setattr(build, "save_sheet", save_nothing)
    monkeypatch.setattr("analyze.report.page.picture", lambda sheet, panel: "data:,")
    figure = copied / "report/figures/figure1-Freeway-own-states-16.png"
    (_, tables, *made), (_, again, *not_made) = ensure_report(copied), ensure_report(copied)
    assert (tables, made, not_made) == (again, [True, []], [False, []])
    assert figure.exists()
    for folder in (copied / "maps", copied / "train"):
        shutil.rmtree(folder)
    assert [ensure_report(copied).made for _ in range(2)] == [True, False]
    assert not figure.exists()
    assert "No maps yet: <code>make maps</code>" in (copied / "report/index.html").read_text()
    monkeypatch.setattr(build, "build_page", lambda *_: "a page")
    files = ("tables/returns.csv", "figures/returns-Freeway.pdf", "index.html", "differences.json", "manifest.json")
    for lost in files:
        (copied / "report" / lost).unlink()
        assert ensure_report(copied).made
        assert (copied / "report" / lost).is_file()
    (copied / "report/manifest.json").write_text("[]")
    assert [ensure_report(copied).made for _ in range(2)] == [True, False]


def test_a_report_beside_a_writer_and_a_folder_that_may_not_be_entered(copied, monkeypatch):
    monkeypatch.setattr(build, "save_sheet", save_nothing)
    monkeypatch.setattr("analyze.report.page.picture", lambda sheet, panel: "data:,")
    assert ensure_report(copied).made
    (copied / "states" / f"{TEMPORARY_PREFIX}x.npz.1.npz").write_bytes(b"half")
    (copied / "maps" / "gone.npz").symlink_to("nowhere.npz")
    assert not ensure_report(copied).made
    shutil.rmtree(copied / "report" / "figures")
    (mine := copied / "mine").mkdir()
    (mine / "mine.png").touch()
    (copied / "report" / "figures").symlink_to(mine)
    with pytest.raises(NrmapError, match="figures: it is a link"):
        ensure_report(copied)
    assert (mine / "mine.png").exists()


def test_an_empty_folder_has_a_page_and_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    report = ensure_report(tmp_path)
    text = report.page.read_text()
    assert (report.tables, Page(text).mistakes) == ([], [])
    assert "There are no results under this outputs folder yet" in text
    shutil.rmtree(tmp_path / "report")
    (tmp_path / "report").write_text("a file where the folder should be")
    with pytest.raises(NrmapError, match="cannot write"):
        ensure_report(tmp_path)


def sheets_of(part, tree):
    return {sheet.name: sheet for sheet in map_sheets(part, map_sets(part, tree)[0])}


def test_a_sheet_has_a_row_for_every_seed_and_is_left_out_without_a_map(tmp_path, tiny_settings):
    tree = tmp_path / "outputs"
    write_example(tree, tiny_settings(), replace(SMALL, seeds=(0, 1)))
    write_example(tree, tiny_settings(), replace(SMALL, temperatures=(0.1,), states_from=("pool",)))
    for metrics in (tree / "maps/Freeway/ddqn/seed0").glob("*/metrics.json"):
        if read_records(metrics)[0].states_from == "own":
            shutil.rmtree(metrics.parent)
    (part,) = find(tree).parts()
    sheets = sheets_of(part, tree)
    own = sheets["figure2-Freeway-own-states-16"]
    labels = [panel and panel.alt.partition(" of ")[2].partition(",")[0] for panel in own.panels]
    assert (own.columns, labels) == (2, [None, "SA-DDQN seed 0", "DDQN seed 1", "SA-DDQN seed 1"])
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
    sheets = sheets_of(part, tree)
    assert len(sheets["figure1-Freeway-own-states-16"].panels) == 2
    assert (sheets["kinds-Freeway"].columns, len(sheets["kinds-Freeway"].panels)) == (4, 4 * len(KINDS))
