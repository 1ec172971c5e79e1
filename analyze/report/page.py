"""The page: one HTML file that holds its tables, pictures and texts."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup

from analyze.report.appendix import appendix, provenance_table
from analyze.report.formats import WRITERS, Table, counted, templates
from analyze.report.inventory import missing
from analyze.report.results import Found, Part
from analyze.report.sheets import Sheet, picture
from analyze.report.summary import glance
from nrmap.support.errors import named, refused

TITLE = "Non-robust feature maps of deep reinforcement learning policies"
IN_SIGHT = ("table1", "differences", "seed-differences", "returns")
# Documents that the page copies.
GLOSSARY, DEVIATIONS = DOCUMENTS = [
    Path(__file__).parents[2] / "docs" / f"{name}.md" for name in ("glossary", "deviations")
]


class Drawings(NamedTuple):
    """The sheets of one part: maps, alone and over the game's screen, and charts."""

    part: Part
    maps: Sequence[Sheet]
    charts: Sequence[Sheet]


class Section(NamedTuple):
    """One section: its anchor and title, and the template in templates/ that shows `data`."""

    anchor: str
    title: str
    template: str
    data: Any


def build_page(found: Found, tables: Sequence[Table], drawings: Sequence[Drawings], problems: Sequence[str]) -> str:
    """Build the HTML page; equal input gives equal text. `problems` says which files were not used, and why.

    Raises NrmapError if a document in docs/ cannot be read.
    """
    parts = [drawn.part for drawn in drawings]
    glances = {part.title: glance(part.records, part.differences) for part in parts}
    provenance = provenance_table(found)
    open_tables = [table for table in tables if table.name in IN_SIGHT]
    folded_tables = [table for table in tables if table.name not in IN_SIGHT]
    lists = {"Results": missing(found), "Files that could not be used": problems}
    sections = [
        Section("glance", "At a glance", "glance.html", {title: texts for title, texts in glances.items() if texts}),
        Section("maps", "Maps", "sheets.html", [(drawn.part, drawn.maps) for drawn in drawings]),
        Section("results", "Tables", "tables.html", [open_tables, folded_tables] if tables else []),
        Section("charts", "Charts", "sheets.html", [(drawn.part, drawn.charts) for drawn in drawings]),
        Section("values", "Settings and values", "groups.html", appendix(found)),
        Section("glossary", "Glossary", "text.html", _document(GLOSSARY)),
        Section("origin", "Provenance", "table.html", provenance if provenance.rows else None),
    ]
    if not found.records and not found.trainings:
        sections = [Section("results", "Results", "nothing.html", True)]
    sections.append(Section("deviations", "Deviations", "text.html", _document(DEVIATIONS)))
    sections.append(
        Section("missing", "What is missing", "lists.html", {title: texts for title, texts in lists.items() if texts})
    )
    environment = templates()
    environment.filters |= {"downloads": _downloads, "picture": picture, "inline": _inline}
    page = environment.get_template("page.html")
    shown = [section for section in sections if section.data]
    return page.render(title=TITLE, subtitle=_subtitle(found), sections=shown)


def _inline(text: str) -> Markup:
    """Render one line of Markdown; HTML in it is escaped."""
    return Markup(MarkdownIt("js-default").renderInline(text))


def _document(path: Path) -> Markup:
    """Render a Markdown file without its first line, the title. Raises NrmapError if it cannot be read."""
    with named(after="; the report needs a clone"), refused(f"cannot read {path}"):
        text = path.read_text(encoding="utf-8")
    return Markup(MarkdownIt().enable("table").render(text.partition("\n")[2]))


def _downloads(table: Table) -> dict[str, str]:
    """Return the table as CSV, Markdown and LaTeX: data URIs by file name."""
    return {
        f"{table.name}.{ending}": f"data:text/plain;base64,{b64encode(write(table).encode()).decode()}"
        for ending, write in WRITERS.items()
    }


def _subtitle(found: Found) -> str:
    trained = [record for record in found.records if record.policy_sha256 and record.is_trained]
    policies = counted(len({record.policy_sha256 for record in trained}), "policy", "policies")
    others = [counted(len({getattr(r, field) for r in trained}), field) for field in ("game", "method", "seed")]
    return f"KMAP, HMAP and their sparsity. Measured: {', '.join([policies, *others])}."
