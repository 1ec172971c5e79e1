"""The page against the records that it is made from: all of them are there, and nothing comes from elsewhere."""

import base64
import re

import pytest
from html_page import Page

from analyze.report import build
from analyze.report.drawings import chart_panels, game_sources, map_sets
from analyze.report.found import find
from analyze.report.glance import glance
from analyze.report.page import GamePart, build_page
from analyze.report.values import value_text
from nrmap.records import Record


@pytest.fixture(scope="module")
def html(outputs):
    return (outputs / "report" / "index.html").read_text()


def sparsity_record(method: str, seed: int, value: float | None) -> Record:
    note = None if value is not None else "zero"
    return Record("Freeway", method, seed, "kmap_sparsity", value, states_from="own", num_states=8, note=note)


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
        "The equations are used, so that K ≥ 0",
        "How to read these numbers",
        "versions.torch",
    ):
        assert text in html


def test_equal_files_give_an_equal_page(outputs):
    found = find(outputs)
    (source,) = game_sources(found)
    sets, problems = map_sets(source, outputs)
    charts = {name: panels for name, panels in chart_panels(source).items() if name in ("size", "returns")}
    part = GamePart(source, sets, charts, [])
    first, second = (build_page(found, build.all_tables(found), [part], problems) for _ in range(2))
    assert first == second


def test_the_glance_counts_seeds_and_does_not_count_what_is_undefined():
    records = [sparsity_record("ddqn", seed, 40.0) for seed in range(4)]
    records += [sparsity_record("sa_ddqn", seed, value) for seed, value in enumerate((10.0, 50.0, None, 39.0))]
    texts = glance(records)
    assert texts[0] == (
        "Own states, N = 8: KMAP of SA-DDQN (adversarial) is sparser than that of DDQN (vanilla) in 2 of 3 seeds where "
        "both are defined; S(K) is undefined in 1. In the paper it is sparser: 20.4641 against 53.7272."
    )
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("game", "criterion", "above"), [("Freeway", ", and by 3 points or more", 1), ("BankHeist", "", 2)]
)
def test_a_policy_beats_the_best_constant_action_with_its_whole_interval(game, criterion, above):
    def clean(seed: int, mean: float, low: float | None) -> Record:
        return Record(game, "ddqn", seed, "return_mean", mean, low=low, high=low and 40.0, attack="clean")

    records = [
        Record(game, "baseline", None, "return_mean", 21.0, attack="constant:UP"),
        Record(game, "baseline", None, "return_mean", 99.0, attack="random_policy"),
        clean(0, 30.0, 20.9),
        clean(1, 23.9, 21.1),
        clean(2, 24.0, 21.1),
        clean(3, 30.0, None),
    ]
    assert glance(records) == [
        "The best constant action, always UP, returns 21.00.",
        "DDQN (vanilla): clean 30.00 [20.90, 40.00], 23.90 [21.10, 40.00], 24.00 [21.10, 40.00], 30.00 (no interval). "
        f"Above the best constant action with the whole 95% interval{criterion}: {above} of 3. Without an interval: 1.",
    ]
