"""The page against the records that it is made from: all of them are there, and nothing comes from elsewhere."""

import base64
import csv
import re
from collections import Counter
from dataclasses import replace

import pytest
from html_page import Page

from analyze.report.appendix import appendix
from analyze.report.chart_sheets import chart_sheets
from analyze.report.load import find
from analyze.report.map_sheets import map_sets, map_sheets
from analyze.report.page import DEVIATIONS, Drawings, build_page
from analyze.report.pairing import with_differences
from analyze.report.summary import glance
from analyze.report.tables import all_tables
from nrmap.support.records import Record


@pytest.fixture(scope="module")
def html(outputs):
    return (outputs / "report" / "index.html").read_text()


def sparsity_record(method: str, seed: int, value: float | None) -> Record:
    note = None if value is not None else "zero"
    fields = {"map_kind": "kmap", "states_from": "own", "num_states": 8, "note": note}
    return Record("Freeway", method, seed, "sparsity", value, **fields)


def test_the_page_is_well_formed(html):
    page = Page(html)
    assert page.mistakes == []
    assert page.open == []
    assert len(set(page.identifiers)) == len(page.identifiers)
    fragments = {address[1:] for address in page.addresses if address.startswith("#")}
    assert fragments <= set(page.identifiers)
    assert len(page.pictures) > 10
    assert all(picture["alt"] and len(picture["alt"]) > 20 for picture in page.pictures)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))


def test_the_page_needs_no_network(outputs, html):
    page = Page(html)
    beside = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert beside == ["tables/records.csv"]
    assert (outputs / "report" / beside[0]).is_file()
    assert re.search(r"https?:|@import|url\(|//[a-z]", re.sub(r";base64,[^\"]*", "", html)) is None
    for picture in page.pictures:
        kind, _, content = picture["src"].partition(";base64,")
        if kind == "data:image/svg+xml":
            drawing = base64.b64decode(content).decode()
            references = re.findall(r'(?:xlink:href|href|src)="([^"]*)"', drawing)
            assert all(one.startswith(("#", "data:")) for one in references)


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


def test_every_headline_number_stands_in_the_row_and_the_column_of_its_policy_and_metric(outputs):
    tables = {path.stem: path for path in (outputs / "report" / "tables").glob("*.csv")}
    rows_of = {name: list(csv.DictReader(path.open(newline=""))) for name, path in tables.items()}
    records = [record for record in find(outputs).records if not record.is_part and record.seed is not None]
    checked = Counter(record.method for record in records)
    assert checked["ddqn"] == checked["sa_ddqn"] > 40
    for record in records:
        for name, column in places_of(record):
            rows = [row for row in rows_of[name] if row["seed"] == str(record.seed) and row.get("T", "1.0") == "1.0"]
            player = {"returns": "player", "table1": None, "table2": None}.get(name, "method")
            (row,) = [row for row in rows if player is None or row[player] == METHODS[record.method]]
            numbers = (record.value, record.low, record.high)
            shown = [row[f"{column}{end}"] for end in ("", " low", " high")]
            assert shown == ["" if number is None else str(number) for number in numbers]
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
    for text in ("53.7272", "published: SA-DQN (PGD)", "a 36 × 36 map is too small", "run_seed", "ale-py"):
        assert text in html
    entries = re.findall(r"^\d+\. \*\*(.+)\*\*$", DEVIATIONS.read_text(), re.MULTILINE)
    assert all(f"<strong>{entry}</strong>" in html for entry in entries if "`" not in entry)
    effects = re.findall("<em>Effect on the conclusions:</em> (no|order only|yes)", html)
    assert len(effects) == len(entries) >= 17


def test_equal_files_give_an_equal_page(outputs):
    found = find(outputs)
    (part,) = found.parts()
    sets, problems = map_sets(part, outputs)
    charts = [sheet for sheet in chart_sheets(part) if sheet.name in ("size-Freeway", "returns-Freeway")]
    drawings, tables = [Drawings(part, map_sheets(part, sets)[:2], charts)], all_tables(found.records, [])
    problems = [*problems, "a < b & <script>"]
    first, second = (build_page(found, tables, drawings, problems) for _ in range(2))
    assert first == second
    assert "a &lt; b &amp; &lt;script&gt;" in first


def test_the_glance_counts_seeds_and_does_not_count_what_is_undefined():
    records = [sparsity_record("ddqn", seed, 40.0) for seed in range(4)]
    records += [sparsity_record("sa_ddqn", seed, value) for seed, value in enumerate((10.0, 50.0, None, 39.0))]
    texts = glance(records)
    assert texts == [
        "KMAP of SA-DDQN (adversarial) is sparser than that of DDQN (vanilla) in 2 of 3 seeds, undefined in 1 on own "
        "states, N = 8: S(K) 33 against 40. In the paper: 20.5 against 53.7."
    ]
    grids = [replace(record, metric="grid_excess", value=record.seed + 1.5) for record in records]
    assert glance([*records, *grids])[1:] == [
        "Grid of KMAP on own states, N = 8, about 1 without one: DDQN (vanilla) 3, SA-DDQN (adversarial) 3. "
        "The paper sees it in the adversarial agent."
    ]


@pytest.mark.parametrize(("game", "criterion", "above"), [("Freeway", " by 3 points or more", 1), ("BankHeist", "", 2)])
def test_a_policy_beats_the_best_constant_action_with_its_whole_interval(game, criterion, above):
    def clean(seed: int, mean: float, low: float | None) -> Record:
        return Record(game, "ddqn", seed, "return_mean", mean, low=low, high=low and 40.0, attack="clean")

    constant = Record(game, "constant_action", None, "return_mean", 21.0, variant="UP", attack="clean")
    records = [
        constant,
        Record(game, "random_policy", None, "return_mean", 99.0, attack="clean"),
        clean(0, 30.0, 20.9),
        clean(1, 23.9, 21.1),
        clean(2, 24.0, 21.1),
        clean(3, 30.0, None),
    ]
    assert glance(records) == [
        "The best constant action, always UP, returns 21.",
        f"DDQN (vanilla) returns 23.9 – 30 clean, above the best constant action{criterion} in {above} of 3 seeds.",
    ]
    ties, cut = replace(constant, variant="NOOP"), "20 of 20 episodes end at the limit of 300 agent steps"
    first, second = glance([replace(record, note=cut) for record in (*records, ties)])
    assert first == f"The best constant actions, always UP and always NOOP, return 21 ({cut})."
    assert second.startswith(f"DDQN (vanilla) returns 23.9 – 30 clean ({cut}), above ")


def test_the_glance_has_the_returns_under_the_strongest_attack_at_each_radius():
    def mean(seed: int, value: float, attack: str = "clean", steps: int | None = None, **fields) -> Record:
        return Record("Freeway", "sa_ddqn", seed, "return_mean", value, attack=attack, attack_steps=steps, **fields)

    near, far = {"attack_epsilon": 1 / 255}, {"attack_epsilon": 3 / 255}
    records = [Record("Freeway", "constant_action", None, "return_mean", 21.0, variant="UP", attack="clean")]
    records += [mean(seed, 31.0, low=30.0, high=32.0, episodes=20) for seed in (0, 1)]
    records += [mean(0, 32.0, episodes=2), mean(0, 31.0, "noise", **near), mean(1, 14.25, "pgd", 10, **near)]
    records += [mean(0, 16.0, "pgd", 10, episodes=20, low=15.0, high=17.0, **far), mean(0, 30.5, "pgd", 10, **near)]
    records += [mean(0, 9.0, "pgd", 50, episodes=1, **near), mean(0, 8.0, "pgd", 50, episodes=5, **near)]
    assert glance(records)[1].endswith(
        " in 2 of 2 seeds. Its lowest returns under the FGSM and PGD attacks played: 8 – 14.2 (ε = 1/255), "
        "16 (ε = 3/255)."
    )
