"""The documents agree with the committed measurements, the configuration and one another."""

import re
from pathlib import Path
from statistics import stdev

import pytest
from example_outputs import ATTACKS, Example, write_example
from omegaconf import OmegaConf

from analyze import documents
from analyze.publish import publish
from bench import documents as bench_documents
from nrmap.support.errors import NrmapError
from nrmap.support.layout import Layout
from nrmap.support.records import read_records, select

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("module", [documents, bench_documents], ids=lambda module: module.__name__)
def test_tables_are_those_of_the_committed_records_and_measurements(module):
    for path, text in module.documents().items():
        assert path.read_text() == text, f"{path}: run make results"


def test_numbers_of_maps_are_those_of_reference_policies_and_their_null_networks(tmp_path, tiny_settings):
    layout = Layout(tmp_path / "outputs")
    example = Example(
        ("ddqn", "sa_ddqn", "ddqn_continued"), seeds=(0, 1, 2), states_from=("pool",), controls=1, prefix_sizes=(),
        attacks=ATTACKS[1:2], without_flips=(),
    )  # fmt: skip
    write_example(layout.outputs, tiny_settings(), example)
    for folder in (layout.outputs / "train" / "Freeway").glob("*ddqn/seed*/*"):
        publish(folder, layout, scale="quick")
    (path,) = documents.collect(layout)
    records = read_records(path)
    assert {record.method for record in records} == {"ddqn", "sa_ddqn", "random_weights", "shuffled_weights"}
    assert {record.temperature for record in records} == {None, 1.0}

    for name in ("README.md", "docs/results.md", "docs/training.md", "examples/map_your_own_network.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    written = documents.documents(tmp_path)
    readme, results = (written[tmp_path / name] for name in ("README.md", "docs/results.md"))
    assert all(path.read_text() == text for path, text in written.items() if path.is_relative_to(layout.references))
    means, by_seed = [], []
    for method, label in (("ddqn", "DDQN"), ("sa_ddqn", "SA-DDQN")):
        sizes = select(records, metric="sparsity", map_kind="kmap", method=method)
        values = [record.value for record in sizes]
        means.append(sum(values) / 3)
        by_seed.append({record.seed: record.value for record in sizes})
        (row,) = re.findall(rf"^\| quick \| Freeway \| {label}, 3 seeds \|.*$", readme, re.MULTILINE)
        assert row.split(" | ")[6] == f"{means[-1]:.1f} ({min(values):.1f} to {max(values):.1f})"
        assert all(f"{value:.2f}" in results for value in values)
    assert f"S(K) {means[1]:.3g} against {means[0]:.3g}." in readme
    pairs = [by_seed[1][seed] - by_seed[0][seed] for seed in range(3)]
    half = 4.302652729911275 * stdev(pairs) / 3**0.5  # t of 0.975 with two degrees of freedom
    centre = sum(pairs) / 3
    assert f"The interval over seeds, {centre - half:.3g} to {centre + half:.3g}, " in readme


def test_a_block_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin one: by hand -->\nold\n<!-- end one -->\nafter \\1\n")
    text = "before\n<!-- begin one: by hand -->\n\nnew \\1\n\n<!-- end one -->\nafter \\1\n"
    assert documents.with_blocks(page, {"one": "new \\1\n"}) == text
    with pytest.raises(NrmapError, match="exactly one block `<!-- begin two"):
        documents.with_blocks(page, {"two": "new"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name):
    for path in re.findall(
        r"`((?:nrmap|train|analyze|conf|bench|tests|docs|examples)/[\w./*]+)`", (ROOT / name).read_text()
    ):
        assert "GAME" in path or list(ROOT.glob(path)), path


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1500


def test_the_page_of_options_has_every_key():
    page = (ROOT / "docs" / "options.md").read_text()
    for command in ("train", "analyze"):
        config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / f"{command}.yaml"))
        groups = [entry for entry in config.pop("defaults") if entry != "_self_"]
        for key in (key for part in (*groups, config) for key in part):
            if key == "hydra" or key.startswith("override "):
                continue
            assert re.search(rf"^\|.*`{key}(\.mode)?`.*\|", page, re.MULTILINE), key
    for term in OmegaConf.load(ROOT / "conf" / "method" / "sa_ddqn.yaml").regulariser:
        assert term == "solver" or f"{term}`" in page, term


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_have_at_most_120_characters_outside_tables_code_and_written_blocks(page):
    text = re.sub(r"<!-- begin .*?<!-- end |^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
