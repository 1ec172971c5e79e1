"""The documents agree with the committed measurements, the configuration and one another."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from analyze.documents import with_blocks
from bench import documents as bench_documents
from nrmap.support.errors import NrmapError

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", bench_documents.documents(), ids=lambda path: path.name)
def test_tables_of_speed_and_cost_are_those_of_the_committed_measurements(path):
    assert path.read_text() == bench_documents.documents()[path], "run make results"


def test_a_block_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin one: by hand -->\nold\n<!-- end one -->\nafter \\1\n")
    text = "before\n<!-- begin one: by hand -->\n\nnew \\1\n\n<!-- end one -->\nafter \\1\n"
    assert with_blocks(page, {"one": "new \\1\n"}) == text
    with pytest.raises(NrmapError, match="exactly one block `<!-- begin two"):
        with_blocks(page, {"two": "new"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_options_has_every_key_and_its_default():
    page = (ROOT / "docs" / "options.md").read_text()
    defaults = dict(re.findall(r"^\| `([\w.]+)`[^|]*\| `([^`]+)` \|", page, re.MULTILINE))
    for command in ("train", "analyze"):
        config = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / f"{command}.yaml"))
        groups = {
            name: choice for entry in config.pop("defaults") if entry != "_self_" for name, choice in entry.items()
        }
        for key, value in {**groups, **config}.items():
            if key == "hydra" or key.startswith("override "):
                continue
            assert re.search(rf"^\|.*`{key}(\.mode)?`.*\|", page, re.MULTILINE), key
            if key in defaults and not str(value).startswith("${"):
                assert defaults[key].replace(" ", "") == _typed(value), key
    for term in OmegaConf.load(ROOT / "conf" / "method" / "sa_ddqn.yaml").regulariser:
        assert term == "solver" or f"{term}`" in page, term


def _typed(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).replace("'", "").replace(" ", "")
