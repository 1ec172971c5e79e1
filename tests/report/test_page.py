"""The page against the records that it is made from: all of them are there, and nothing comes from elsewhere."""

import base64
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
from html_page import Page, Tables

from analyze.report.chart_sheets import chart_sheets
from analyze.report.load import find
from analyze.report.map_sheets import map_sets, map_sheets
from analyze.report.page import DEVIATIONS, Drawings, build_page
from analyze.report.summary import glance
from analyze.report.tables import all_tables
from nrmap.support.records import Record, read_records


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


PLAYERS = {"constant_action": "always {}", "random_policy": "random actions"}
METHODS = {"ddqn": "DDQN (vanilla)", "sa_ddqn": "SA-DDQN (adversarial)"}
ATTACKS = {"pgd-10": "PGD-10", "pgd-50": "PGD-50", "greedy_worst_case": "GWC", "clean": "clean", "noise": "noise"}
RADII = {1 / 255: "ε = 1/255", 3 / 255: "ε = 3/255", None: None}


def line_of(record: Record) -> frozenset[str]:
    """What the line of a list of values says that they are."""
    words = [record.metric_key, f"{record.episodes} episodes"]
    if record.method in PLAYERS:
        words.append(PLAYERS[record.method].format(record.variant))
    else:
        words.append("own states" if record.states_from else ATTACKS[record.attack_name])
    proofs = "proofs at " if record.attack == "clean" else ""
    words += [proofs + RADII[record.attack_epsilon]] if record.attack_epsilon else []
    words += [f"N = {record.num_states}"] if record.num_states is not None else []
    words += [f"T = {record.temperature:g}"] if record.temperature is not None else []
    return frozenset(words)


def is_near(text: str | None, value: float | None) -> bool:
    if text is None or value is None:
        return text is None and value is None
    return math.isclose(float(text), value, rel_tol=1e-8)


VALUE = re.compile(r"((?P<item>[\w.]+): )?(?P<value>\S+)( \[(?P<low>\S+), (?P<high>\S+)\])?( \((?P<note>.*)\))?")


def test_every_value_of_every_record_stands_in_the_line_of_its_policy_and_metric(outputs, html):
    tables = [table for table in Tables(html).tables if table.section == "values"]
    paths = [*outputs.glob("evaluation/**/metrics.json"), *outputs.glob("maps/**/metrics.json")]
    assert len(tables) == len(paths) == 5
    for path in paths:
        expected: dict[frozenset[str], list[Record]] = {}
        for record in read_records(path):
            expected.setdefault(line_of(record), []).append(record)
        seed = "" if record.seed is None else f", seed {record.seed}"
        what = "maps on own states" if record.states_from else "evaluation"
        count = sum(map(len, expected.values()))
        title = f"Freeway, {METHODS.get(record.method, 'baselines')}{seed}: {what}, {count} values"
        (table,) = [table for table in tables if table.within[-1] == title]
        found = {frozenset(name.text.split(", ")): values.text for name, values in table.rows}
        assert found.keys() == expected.keys()
        for line, records in expected.items():
            for text, record in zip(found[line].split("; "), records, strict=True):
                shown = VALUE.fullmatch(text)
                assert shown, text
                parts = (record.episode, record.action, record.quantile, record.direction)
                assert shown["item"] == next((str(part) for part in parts if part is not None), None)
                assert is_near(None if shown["value"] == "undefined" else shown["value"], record.value), text
                assert is_near(shown["low"], record.low), text
                assert is_near(shown["high"], record.high), text
                assert shown["note"] == record.note


KINDS = {"kmap": "K", "hmap": "H", "kl": "KL", "margin_drop": "Δm", "flip_map": "F"}
OF_MAPS = {"sparsity": ("sparsity", "S({})"), "effective_pixels": ("measures", "S²({})")}
OF_MAPS |= {"map_entropy": ("measures", "entropy({})"), "relative_map_entropy": ("measures", "entropy({}/max)")}
OF_MAPS |= {"grid_excess": ("grid", "grid({}) grid"), "grid_p_value": ("grid", "grid({}) p")}
OF_PLAY = {"return_mean": "return", "return_std": "std", "flip_rate": "flips", "certified_rate": "certified"}


def places_of(record: Record) -> list[tuple[str, str]]:
    """The tables that show a headline number, and the heading above it in each."""
    if record.metric in OF_PLAY:
        words = [ATTACKS[record.attack_name], RADII[record.attack_epsilon]]
        if record.metric == "certified_rate":
            words = ["clean", f"proofs at {words[1]}"]
        group = f"{', '.join(filter(None, words))} ({record.episodes} episodes)"
        return [("returns", f"{group} {OF_PLAY[record.metric]}")]
    if record.metric in ("flip_pair_rate", "tie_pair_rate"):
        return [("sparsity", record.metric.replace("_pair_rate", " pairs"))]
    kind, measure = record.map_kind, record.metric
    table, heading = OF_MAPS[measure]
    places = [(table, heading.format(KINDS[kind]))]
    papers = {"sparsity": ("table1", "S({})"), "map_entropy": ("table2", "entropy({})")}
    if kind in ("kmap", "hmap") and measure in papers:
        name, group = papers[measure]
        places.append((name, f"{group.format(KINDS[kind])} {METHODS[record.method]}"))
    return places


def test_every_headline_number_stands_in_the_row_and_the_column_of_its_policy_and_metric(outputs, html):
    tables = Tables(html)
    records = [record for record in find(outputs).records if not record.is_part and record.seed is not None]
    checked = Counter(record.method for record in records)
    assert checked["ddqn"] == checked["sa_ddqn"] > 40
    for record in records:
        for name, heading in places_of(record):
            rows = [row for row in tables.named(name).lines() if row["Seed"].text == str(record.seed)]
            rows = [row for row in rows if "T" not in row or row["T"].text == "1"]
            player = {"returns": "Player", "table1": None, "table2": None}.get(name, "Method")
            if player:
                rows = [row for row in rows if row[player].text == METHODS[record.method]]
            (row,) = rows
            cell = row[heading]
            assert cell.attributes["data-sort"] == ("" if record.value is None else str(record.value))
            if record.value is None:
                assert (cell.text, cell.note) == ("undefined", record.note)
            else:
                assert is_rounded(cell.text, record.value)
            bounds = re.fullmatch(r"\[(\S+), (\S+)\]", cell.interval)
            assert (bounds is None) == (record.low is None), (name, heading)
            if bounds:
                assert is_rounded(bounds[1], record.low)
                assert is_rounded(bounds[2], record.high)


def is_rounded(text: str, value: float) -> bool:
    """Whether `text` is `value` to as many digits as it has."""
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(text) - value) <= unit / 2 * (1 + 1e-9)


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
        "Grid of KMAP on own states, N = 8, about 1 without one: DDQN (vanilla) 3, SA-DDQN (adversarial) 3."
    ]


@pytest.mark.parametrize(("game", "criterion", "above"), [("Freeway", " by 3 points or more", 1), ("BankHeist", "", 2)])
def test_a_policy_beats_the_best_constant_action_with_its_whole_interval(game, criterion, above):
    def clean(seed: int, mean: float, low: float | None) -> Record:
        return Record(game, "ddqn", seed, "return_mean", mean, low=low, high=low and 40.0, attack="clean")

    records = [
        Record(game, "constant_action", None, "return_mean", 21.0, variant="UP", attack="clean"),
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
