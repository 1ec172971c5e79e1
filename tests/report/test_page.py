"""The page against the records that it is made from: all of them are there, and nothing comes from elsewhere."""

import base64
import csv
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict, replace
from functools import partial

import pytest
from example_outputs import save_nothing
from html_page import Page
from table_records import map_record

from analyze.report import build
from analyze.report.__main__ import main
from analyze.report.appendix import appendix
from analyze.report.load import find
from analyze.report.map_sheets import map_sets, map_sheets
from analyze.report.page import DEVIATIONS, Drawings, build_page
from analyze.report.pairing import with_differences
from analyze.report.summary import glance
from analyze.report.tables import all_tables
from nrmap.support.records import Record, read_records


@pytest.fixture(scope="module")
def reported(outputs, tmp_path_factory):
    """An outputs folder with its report. Its figure files are empty; `test_sheets.py` tests their content."""
    folder = shutil.copytree(outputs, tmp_path_factory.mktemp("reported") / "outputs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "save_sheet", save_nothing)
        build.ensure_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(reported):
    return (reported / "report" / "index.html").read_text()


def test_the_page_is_well_formed_and_needs_no_network(html):
    page = Page(html)
    assert (page.mistakes, page.open, len(set(page.identifiers))) == ([], [], len(page.identifiers))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.identifiers)
    assert len([picture for picture in page.pictures if len(picture["alt"]) > 20]) == len(page.pictures) > 10
    assert (page.headings[0], page.headings.count(1)) == (1, 1)
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    beside = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert beside == ["tables/records.csv"]
    assert re.search(r"https?:|@import|url\(|//[a-z]", re.sub(r";base64,[^\"]*", "", html)) is None
    for picture in page.pictures:
        kind, _, content = picture["src"].partition(";base64,")
        drawing = base64.b64decode(content).decode() if kind == "data:image/svg+xml" else ""
        references = re.findall(r'(?:xlink:href|href|src)="([^"]*)"', drawing)
        assert all(one.startswith(("#", "data:")) for one in references)


def test_tables_and_figures_lie_beside_the_page(reported):
    folder = reported / "report"
    for name in ("table1", "returns", "sparsity", "actions-Freeway"):
        assert {path.suffix for path in (folder / "tables").glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    for name in ("figure1-Freeway-own-states-16", "figure2-Freeway-own-states-16", "overlay-Freeway", "curves-Freeway"):
        assert {path.suffix for path in (folder / "figures").glob(f"{name}.*")} == {".png", ".pdf"}
    found = with_differences(find(reported))
    expected = [
        asdict(record) | {"folder": folder} for record, folder in zip(found.records, found.folders, strict=True)
    ]
    for line in expected:
        values = [record.value for record in read_records(reported / line["folder"] / "metrics.json")]
        assert line["value"] in values
    expected += [asdict(record) | {"folder": None} for record in found.differences]
    lines = [{key: "" if x is None else str(x) for key, x in record.items()} for record in expected]
    assert list(csv.DictReader((folder / "tables/records.csv").open(newline=""))) == lines
    assert read_records(folder / "differences.json") == list(found.differences)
    assert (folder / "index.html").stat().st_size < 10_000_000


def test_the_command_prints_table_1_and_where_the_page_is(reported, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyze.report", "--outputs", str(reported)])
    main()
    printed = capsys.readouterr().out
    assert re.search(r"\(table 1 of the paper\)(.|\n)*53\.7272", printed)
    assert printed.endswith(f"{reported / 'report' / 'index.html'} is up to date\n")


def test_every_value_of_every_record_stands_in_the_line_of_its_metric(outputs):
    found = find(outputs)
    trainings, *results = appendix(found)
    entries = [entry for _, group in results for entry in group]
    assert (len(trainings[1]), len(entries)) == (len(found.trainings), len(found.results)) == (2, 5)
    keys = {record.metric_key for record in found.records}
    lines = [(name.partition(", ")[0], text) for _, lines in entries for name, text in lines.items()]
    shown = [(metric, text.split("; ")) for metric, text in lines if metric in keys]
    values = Counter((metric, VALUE.fullmatch(text)["value"]) for metric, texts in shown for text in texts)
    assert values == Counter(
        (record.metric_key, "undefined" if record.value is None else f"{record.value:.9g}") for record in found.records
    )


VALUE = re.compile(r"([\w.]+: )?(?P<value>\S+)( \[\S+, \S+\])?( \(.*\))?")


def places_of(record: Record) -> list[tuple[str, str]]:
    """The tables that show a headline number, and its column in each."""
    key, words = record.metric_key, [ATTACKS.get(record.attack_name)]
    if record.states_from is None:
        if record.attack_epsilon:
            words.append(f"{'proofs at ' * (record.attack == 'clean')}{RADII[record.attack_epsilon]}")
        return [("returns", f"{key} {', '.join(words)}, {record.episodes} episodes")]
    if record.metric in PAPERS and record.map_kind in ("kmap", "hmap"):
        table, paper = PAPERS[record.metric]
        return [(table, key), (paper, f"{key} {record.method}")]
    return [("grid" if "grid" in key else "sparsity" if key.endswith(("sparsity", "pair_rate")) else "measures", key)]


ATTACKS = {"pgd-10": "PGD-10", "pgd-50": "PGD-50", "greedy_worst_case": "GWC", "clean": "clean", "noise": "noise"}
RADII = {1 / 255: "ε = 1/255", 3 / 255: "ε = 3/255"}
PAPERS = {"sparsity": ("sparsity", "table1"), "map_entropy": ("measures", "table2")}
METHODS = {"ddqn": "DDQN (vanilla)", "sa_ddqn": "SA-DDQN (adversarial)"}


def test_every_headline_number_stands_in_the_row_and_the_column_of_its_policy_and_metric(reported):
    tables = (reported / "report" / "tables").glob("*.csv")
    rows_of = {path.stem: list(csv.DictReader(path.open(newline=""))) for path in tables}
    records = [record for record in find(reported).records if not record.is_part and record.seed is not None]
    checked = Counter(record.method for record in records)
    assert checked["ddqn"] == checked["sa_ddqn"] > 40
    for record in records:
        for name, column in places_of(record):
            rows = [row for row in rows_of[name] if row["seed"] == str(record.seed) and row.get("T", "1.0") == "1.0"]
            player = {"returns": "player", "table1": None, "table2": None}.get(name, "method")
            (row,) = [row for row in rows if player is None or row[player] == METHODS[record.method]]
            shown = [row[f"{column}{end}"] for end in ("", " low", " high")]
            assert shown == ["" if x is None else str(x) for x in (record.value, record.low, record.high)]
            assert row[f"{column} note"] == record.note or record.value is not None


def test_the_page_shows_the_tables_with_their_marks_and_intervals(outputs, html):
    found = with_differences(find(outputs))
    shown = Page(html).tables
    for table in all_tables(found.records, found.differences):
        notes = table.footnotes()
        for row, texts in zip(table.rows, shown[table.name][-len(table.rows) :], strict=True):
            for cell, column, text in zip(row, table.columns, texts, strict=True):
                value, interval = table.lines(cell, column)
                mark = notes.index(cell.note) + 1 if cell.note else ""
                assert text == "".join(f"{value}{mark}{interval}".split())


def test_the_page_shows_published_numbers_settings_deviations_and_provenance(html):
    texts = ("53.7272", "published: SA-DQN (PGD)", "a 36 × 36 map is too small", "run_seed", "ale-py")
    assert [text for text in texts if text not in html] == []
    entries = re.findall(r"^\d+\. \*\*(.+)\*\*$", DEVIATIONS.read_text(), re.MULTILINE)
    assert all(f"<strong>{entry}</strong>" in html for entry in entries if "`" not in entry)
    effects = re.findall("<em>Effect on the conclusions:</em> (no|order only|yes)", html)
    assert len(effects) == len(entries) >= 17


def test_equal_files_give_an_equal_page(outputs):
    found = find(outputs)
    (part,) = found.parts()
    sets, _ = map_sets(part, outputs)
    drawings, tables = [Drawings(part, map_sheets(part, sets)[:1], [])], all_tables(found.records, [])
    first, second = (build_page(found, tables, drawings, ["a < b & <script>"]) for _ in range(2))
    assert first == second
    assert "a &lt; b &amp; &lt;script&gt;" in first


def test_the_glance_counts_seeds_and_does_not_count_undefined_ones():
    make = partial(map_record, map_kind="kmap", metric="sparsity", num_states=8, note="zero")
    records = [make("ddqn", seed, value=40.0) for seed in range(4)]
    records += [make("sa_ddqn", seed, value=value) for seed, value in enumerate((10.0, 50.0, None, 39.0))]
    grids = [replace(record, metric="grid_excess", value=record.seed + 1.5) for record in records]
    text, grid = glance([*records, *grids])
    assert "sparser than that of DDQN (vanilla) in 2 of 3 seeds, undefined in 1 on own states, N = 8" in text
    assert "S(K) 33 against 40. In the paper: 20.5 against 53.7." in text
    assert "DDQN (vanilla) 3, SA-DDQN (adversarial) 3." in grid


@pytest.mark.parametrize(("game", "criterion", "above"), [("Freeway", " by 3 points or more", 1), ("BankHeist", "", 2)])
def test_a_policy_beats_the_best_constant_action_with_its_whole_interval(game, criterion, above):
    mean = partial(Record, game, metric="return_mean", attack="clean")
    constant = mean("constant_action", None, value=21.0, variant="UP")
    records = [constant, mean("random_policy", None, value=99.0)]
    for seed, (value, low) in enumerate(((30.0, 20.9), (23.9, 21.1), (24.0, 21.1), (30.0, None))):
        records.append(mean("ddqn", seed, value=value, low=low, high=low and 40.0))
    assert glance(records) == [
        "The best constant action, always UP, returns 21.",
        f"DDQN (vanilla) returns 23.9 – 30 clean, above the best constant action{criterion} in {above} of 3 seeds.",
    ]
    cut = [replace(record, note="cut off") for record in (*records, replace(constant, variant="NOOP"))]
    first, second = glance(cut)
    assert first == "The best constant actions, always UP and always NOOP, return 21 (cut off)."
    first, _ = glance([*cut[:-1], replace(constant, variant="NOOP")])
    assert first == "The best constant actions, always UP and always NOOP, return 21 (1 of 2 actions: cut off)."
    assert second.startswith("DDQN (vanilla) returns 23.9 – 30 clean (cut off), above ")
    assert "clean (1 of 4 seeds: cut off), above " in glance([*records[:-1], cut[5]])[1]


def test_the_glance_has_the_returns_under_the_strongest_attack_at_each_radius():
    def mean(seed: int, value: float, steps: int | None = None, radius: int | None = None, **fields) -> Record:
        attack = {"attack": "pgd" if steps else "noise" if radius else "clean", "attack_steps": steps}
        radii = {"attack_epsilon": radius / 255} if radius else {}
        return Record("Freeway", "sa_ddqn", seed, "return_mean", value, **attack, **radii, **fields)

    records = [Record("Freeway", "constant_action", None, "return_mean", 21.0, variant="UP", attack="clean")]
    records += [mean(seed, 31.0, low=30.0, high=32.0, episodes=20) for seed in (0, 1)]
    records += [mean(0, 32.0, episodes=2), mean(0, 31.0, radius=1), mean(1, 14.25, 10, 1), mean(0, 30.5, 10, 1)]
    records += [mean(0, 16.0, 10, 3), mean(0, 9.0, 50, 1, episodes=1), mean(0, 8.0, 50, 1, episodes=5)]
    assert glance(records)[1].endswith("attacks played: 8 – 14.2 (ε = 1/255), 16 (ε = 3/255).")
