"""The page: one HTML file that holds its tables, pictures and texts."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from analyze.report.appendix import provenance_table, settings_groups, value_groups
from analyze.report.drawings import CHART_SIZE, CHARTS, GameSource
from analyze.report.figure_files import Panel, Sheet
from analyze.report.formats import Table, counted, to_csv, to_markdown
from analyze.report.gallery import MapSet, colour_bars, map_groups, picture_of
from analyze.report.inventory import inventory, inventory_table, missing
from analyze.report.latex import to_latex
from analyze.report.names import PolicyName, glossary, policies_of
from analyze.report.notes import NOTHING, READING, deviations
from analyze.report.results import Found
from analyze.report.return_tables import action_table
from analyze.report.summary import glance
from analyze.report.tables import headline_temperature
from nrmap.maps.kinds import KINDS

TITLE = "Non-robust feature maps of deep reinforcement learning policies"
IN_SIGHT = ("table1", "differences", "seed-differences", "returns")
_SCREEN_DPI = 110
TABLE_WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


@dataclass(frozen=True)
class GamePart:
    """The maps, charts and overlays of one game's section."""

    source: GameSource
    sets: Sequence[MapSet]
    charts: Mapping[str, Sequence[Panel]]
    overlays: Sequence[Sheet]

    @property
    def title(self) -> str:
        """`Freeway`, or `Freeway, reference policies`."""
        return f"{self.source.game}, reference policies" if self.source.reference else self.source.game


@dataclass(frozen=True)
class Section:
    """One section: its anchor and title, and the template in templates/ that shows `data`."""

    anchor: str
    title: str
    template: str
    data: Any


def build_page(found: Found, tables: Sequence[Table], parts: Sequence[GamePart], problems: Sequence[str]) -> str:
    """The whole page; equal input gives equal text. `problems` name the files that could not be used, and why."""
    glances = {part.title: glance(part.source.records, part.source.differences) for part in parts}
    provenance = provenance_table(found)
    sections = [
        Section("glance", "At a glance", "glance.html", {title: texts for title, texts in glances.items() if texts}),
        Section("results", "Tables", "tables.html", _tables(tables)),
        *(Section(part.source.name, part.title, "game.html", _game(part)) for part in parts),
        Section("settings", "Settings", "groups.html", settings_groups(found)),
        Section("values", "All values", "groups.html", value_groups(found)),
        Section("glossary", "Glossary", "glossary.html", _glossary(found)),
        Section("origin", "Provenance", "table.html", provenance if provenance.rows else None),
    ]
    if not found.records and not found.trainings:
        sections = [Section("results", "Results", "nothing.html", NOTHING)]
    sections.append(Section("deviations", "Deviations", "deviations.html", deviations()))
    entries = inventory(found)
    if entries or problems:
        lists = {"What is missing": missing(found, entries), "What could not be used": problems}
        here = {"table": inventory_table(entries), "lists": lists}
        sections.append(Section("here", "What is here", "here.html", here))
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=TITLE,
            subtitle=_subtitle(found),
            colour_bars=colour_bars(),
            sections=[section for section in sections if section.data],
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analyze.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["downloads"] = _downloads
    return environment


def _downloads(table: Table) -> dict[str, str]:
    """The table as CSV, Markdown and LaTeX files: file name to data URI."""
    return {
        f"{table.name}.{ending}": f"data:text/plain;base64,{b64encode(write(table).encode()).decode()}"
        for ending, write in TABLE_WRITERS.items()
    }


def _subtitle(found: Found) -> str:
    trained = [record for record in found.records if record.policy_sha256 and not record.is_null_network]
    counts = (
        counted(len({record.policy_sha256 for record in trained}), "policy", "policies"),
        counted(len({record.game for record in trained}), "game"),
        counted(len({record.method for record in trained}), "method"),
        counted(len({record.seed for record in trained}), "seed"),
    )
    return f"KMAP, HMAP and their sparsity. Measured: {', '.join(counts)}."


def _tables(tables: Sequence[Table]) -> dict[str, Any]:
    """Table 1, differences and returns open, the others folded."""
    if not tables:
        return {}
    return {
        "open": [table for table in tables if table.name in IN_SIGHT],
        "folded": [table for table in tables if table.name not in IN_SIGHT],
        "reading": READING,
    }


def _game(part: GamePart) -> dict[str, Any]:
    source = part.source
    # Reference policies and others are in different sections, so their tables need different names.
    actions = replace(action_table(source.records, source.game), name=f"actions-{source.name}")
    return {
        "maps": map_groups(part.sets, headline_temperature(source.records)),
        "screens": [
            {
                "caption": sheet.caption,
                "columns": sheet.columns,
                "pictures": [
                    panel and picture_of(panel, sheet.panel_size, "png", _SCREEN_DPI) for panel in sheet.panels
                ],
            }
            for sheet in part.overlays
        ],
        "charts": [
            {
                "title": CHARTS[name].title,
                "caption": CHARTS[name].caption,
                "pictures": [picture_of(panel, CHART_SIZE, "svg") for panel in panels],
                "table": actions if name == "actions" else None,
            }
            for name, panels in part.charts.items()
        ],
    }


def _glossary(found: Found) -> dict[str, Any]:
    there = {record.map_kind for record in found.records}
    return {
        "kinds": [kind for kind in KINDS.values() if kind.name in there],
        "metrics": glossary([*found.records, *found.differences]),
        "methods": {name.method: PolicyName(name.method).title for name in policies_of(found.records)},
    }
