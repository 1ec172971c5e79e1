"""The page: one HTML file of tables, pictures and words, with everything inside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template

from analyze.report.appendix import provenance_section, settings_section, values_section
from analyze.report.drawings import CHART_SIZE, GameSource, caption_of
from analyze.report.figure_files import Panel, Sheet, panel_bytes
from analyze.report.formats import Table
from analyze.report.gallery import MapSet, bar_styles
from analyze.report.html import details, image, items, paragraphs, table_html
from analyze.report.inventory import inventory, inventory_table, missing
from analyze.report.load import Found
from analyze.report.map_section import map_section
from analyze.report.names import METRICS, base_method, is_control, method_label
from analyze.report.notes import DEVIATIONS, NOTHING, READING
from analyze.report.return_tables import action_table
from analyze.report.summary import glance

TITLE = "Non-robust feature maps of deep reinforcement learning policies"
IN_SIGHT = ("table1", "differences", "seed-differences", "returns")
_HEADINGS = {
    "sparsity": "Sparsity",
    "controls": "Agents beside controls",
    "grid": "The grid",
    "size": "Sparsity against N",
    "temperature": "Sparsity against T",
    "returns": "Returns",
    "certified": "Certified actions",
    "actions": "Actions",
    "gaps": "Q-gaps",
    "curves": "Learning curves",
}


@dataclass(frozen=True)
class GamePart:
    """What one game's section is made of."""

    source: GameSource
    sets: Sequence[MapSet]
    charts: Mapping[str, Sequence[Panel]]
    overlays: Sequence[Sheet]


def build_page(found: Found, tables: Sequence[Table], parts: Sequence[GamePart], problems: Sequence[str]) -> str:
    """The whole page; equal input gives an equal one. `problems` are files that could not be used, and why."""
    sections = {
        "glance": ("At a glance", _glance_section(parts)),
        "results": ("Tables", _tables_section(tables)),
        **{part.source.name: (_game_title(part.source), _game_section(part)) for part in parts},
        "settings": ("Settings", settings_section(found)),
        "values": ("All values", values_section(found)),
        "deviations": ("Deviations", _deviations_section()),
        "glossary": ("Glossary", _glossary_section(found)),
        "provenance": ("Provenance", provenance_section(found)),
    }
    if not found.records and not found.trainings:
        sections = {"results": ("Results", _nothing_section()), "deviations": sections["deviations"]}
    missing_part = _missing_section(found, problems)
    body = "\n".join(
        f'<section id="{escape(name)}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'
        for name, (title, content) in sections.items()
        if content
    )
    links = {name: title for name, (title, content) in sections.items() if content}
    links |= {"here": "What is here"} if missing_part else {}
    nav = "\n".join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title in links.items())
    return Template(_asset("page.html")).substitute(
        title=escape(TITLE),
        subtitle=escape(_subtitle(found)),
        style=_asset("style.css"),
        bars=bar_styles(),
        script=_asset("script.js"),
        nav=nav,
        body=f"{body}\n{missing_part}" if missing_part else body,
        footer="<p>Made by nrmap from the records and maps under its outputs folder. This page needs no network.</p>",
    )


def _asset(name: str) -> str:
    return resources.files("analyze.report").joinpath(name).read_text(encoding="utf-8")


def _subtitle(found: Found) -> str:
    trained = [record for record in found.records if record.policy_sha256 and not is_control(record.method)]
    policies = {record.policy_sha256 for record in trained}
    if not policies:
        return "KMAP, HMAP and their sparsity: nothing has been measured yet."
    methods = {base_method(record.method) for record in trained}
    seeds = {record.seed for record in trained}
    counts = [(len(found.games), "game"), (len(methods), "method"), (len(seeds), "seed"), (len(policies), "policy")]
    plural = {"policy": "policies"}
    words = [f"{count} {name if count == 1 else plural.get(name, f'{name}s')}" for count, name in counts]
    return f"KMAP, HMAP and their sparsity: {', '.join(words[:-1])}, {words[-1]} measured."


def _nothing_section() -> str:
    return f'<div class="missing">{"".join(f"<p>{with_code(text)}</p>" for text in NOTHING)}</div>'


def _glance_section(parts: Sequence[GamePart]) -> str:
    blocks = []
    for part in parts:
        sentences = glance(part.source.records, part.source.differences)
        if sentences:
            blocks.append(f"<h3>{escape(_game_title(part.source))}</h3>\n{items(sentences)}")
    return f'<div class="glance">\n{"".join(blocks)}\n</div>' if blocks else ""


def _tables_section(tables: Sequence[Table]) -> str:
    """Table 1, differences and returns in sight, the others to be opened."""
    first = [table_html(table) for table in tables if table.name in IN_SIGHT]
    reading = details("How to read these numbers", paragraphs(READING))
    rest = [details(table.title, table_html(table)) for table in tables if table.name not in IN_SIGHT]
    return "\n".join([*first[:1], reading, *first[1:], *rest]) if tables else ""


def _game_title(source: GameSource) -> str:
    return f"{source.game}, reference policies" if source.reference else source.game


def _game_section(part: GamePart) -> str:
    source = part.source
    blocks = []
    for name, title in _HEADINGS.items():
        if name == "size":
            blocks.append(map_section(part.source.records, part.sets, part.overlays))
        if name in part.charts:
            blocks.append(f"<h3>{title}</h3>\n<p>{escape(caption_of(name))}</p>\n{_charts(part.charts[name])}")
        if name == "actions" and name in part.charts:
            blocks.append(table_html(_named(action_table(source.records, source.game), source)))
    return "\n".join(block for block in blocks if block)


def _named(table: Table, source: GameSource) -> Table:
    return Table(f"actions-{source.name}", table.title, table.columns, table.rows, table.notes, table.breaks)


def _charts(panels: Iterable[Panel], css: str = "charts") -> str:
    pictures = (image(panel_bytes(panel, CHART_SIZE, "svg"), "svg", panel.alt, "chart") for panel in panels)
    return f'<div class="{css}">\n' + "\n".join(pictures) + "\n</div>"


def _deviations_section() -> str:
    return "<p>Where the sources leave something open, or this project does it in another way:</p>\n" + items(
        DEVIATIONS, "ol"
    )


def _glossary_section(found: Found) -> str:
    measured = {record.metric for record in (*found.records, *found.differences)}
    rows = "\n".join(
        f"<dt><strong>{escape(name.title)}</strong> <code>{escape(metric)}</code></dt><dd>{escape(name.meaning)}</dd>"
        for metric, name in METRICS.items()
        if metric in measured
    )
    methods = sorted({record.method for record in found.records if record.policy_sha256})
    names = items(f"{method}: {method_label(method)}" for method in methods)
    return f"<dl>\n{rows}\n</dl>\n<h3>Methods</h3>\n{names}" if rows else ""


def _missing_section(found: Found, problems: Sequence[str]) -> str:
    entries = inventory(found)
    texts = missing(found, entries)
    if not entries and not problems:
        return ""
    blocks = [table_html(inventory_table(entries))] if entries else []
    if texts:
        lines = "\n".join(f"<li>{with_code(text)}</li>" for text in texts)
        blocks.append(f'<div class="missing"><h3>What is missing</h3>\n<ul>\n{lines}\n</ul></div>')
    if problems:
        blocks.append(f'<div class="missing"><h3>What could not be used</h3>\n{items(problems)}</div>')
    return '<section id="here">\n<h2>What is here</h2>\n' + "\n".join(blocks) + "\n</section>"


def with_code(text: str) -> str:
    """Escaped text whose parts between backticks are code."""
    return "".join(
        f"<code>{escape(part)}</code>" if index % 2 else escape(part) for index, part in enumerate(text.split("`"))
    )
