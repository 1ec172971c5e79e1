"""Small pieces of the page: tables that can be sorted, pictures inside the page, parts that open."""

import base64
from collections.abc import Iterable, Mapping
from html import escape

from analyze.report.formats import NOT_MEASURED, Cell, Column, Table, to_csv, to_markdown
from analyze.report.latex import to_latex

_MEDIA = {"svg": "image/svg+xml", "png": "image/png", "csv": "text/csv", "md": "text/markdown", "tex": "text/x-tex"}


def data_uri(content: bytes, kind: str) -> str:
    """`content` as an address that needs no file."""
    return f"data:{_MEDIA[kind]};base64,{base64.b64encode(content).decode()}"


def image(content: bytes, kind: str, alt: str, css: str = "") -> str:
    """A picture inside the page, with the words for those who do not see it."""
    name = f' class="{css}"' if css else ""
    return f'<img{name} loading="lazy" src="{data_uri(content, kind)}" alt="{escape(alt)}">'


def details(summary: str, body: str) -> str:
    """A part that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"


def paragraphs(texts: Iterable[str]) -> str:
    """Plain paragraphs."""
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def items(texts: Iterable[str], kind: str = "ul") -> str:
    """A list, "ul" or "ol"; nothing without items."""
    lines = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<{kind}>\n{lines}\n</{kind}>" if lines else ""


def key_values(values: Mapping[str, str]) -> str:
    """A table of two columns."""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in values.items()
    )
    return f'<div class="scroll"><table class="pairs"><tbody>\n{rows}\n</tbody></table></div>'


def table_html(table: Table) -> str:
    """A table that scrolls within the page and sorts by a click on a heading, with its notes and its files."""
    footnotes = {note: f"{table.name}-note-{number}" for number, note in enumerate(table.footnotes(), 1)}
    body = []
    for index, row in enumerate(table.rows):
        kinds = ["begin"] if index in table.breaks and index else []
        kinds += ["spread"] if any(cell.spread for cell in row) else []
        name = f' class="{" ".join(kinds)}"' if kinds else ""
        cells = "".join(
            _cell(table, index, cell, column, footnotes)
            for index, (cell, column) in enumerate(zip(row, table.columns, strict=True))
        )
        body.append(f"<tr{name}>{cells}</tr>")
    notes = "\n".join(f'<li id="{name}">{escape(note)}</li>' for note, name in footnotes.items())
    rows = "\n".join(body)
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">
<table class="data" id="{table.name}">
<caption><span>{escape(table.title)}</span></caption>
<thead>
{_headings(table)}
</thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<div class="notes">{f"<ol>{notes}</ol>" if notes else ""}{paragraphs(table.notes)}
<p class="files">Download: {_downloads(table)}</p></div>"""


def _headings(table: Table) -> str:
    lines = []
    if any(column.group for column in table.columns):
        groups = "".join(
            f'<th class="group" colspan="{len(columns)}" scope="colgroup">{escape(heading)}</th>'
            if heading
            else f'<td colspan="{len(columns)}"></td>'
            for heading, columns in table.groups()
        )
        lines.append(f'<tr class="groups">{groups}</tr>')
    titles = "".join(
        f'<th scope="col"{_number_class(table, index)}><button type="button">{escape(column.title)}</button></th>'
        for index, column in enumerate(table.columns)
    )
    lines.append(f'<tr class="titles">{titles}</tr>')
    return "\n".join(lines)


def _cell(table: Table, index: int, cell: Cell, column: Column, footnotes: Mapping[str, str]) -> str:
    value, interval = table.lines(cell, column)
    if value == NOT_MEASURED:
        return f'<td{_number_class(table, index, "none")} data-sort="">{value}</td>'
    mark = ""
    if cell.note:
        name = footnotes[cell.note]
        mark = f'<sup><a href="#{name}" title="{escape(cell.note)}">{name.rpartition("-")[2]}</a></sup>'
    below = f'<span class="interval">{escape(interval)}</span>' if interval else ""
    key = "" if cell.value is None else str(cell.value)
    return f'<td{_number_class(table, index)} data-sort="{escape(key)}">{escape(value)}{mark}{below}</td>'


def _number_class(table: Table, index: int, more: str = "") -> str:
    names = [name for name in ("n" if table.is_number(index) else "", more) if name]
    return f' class="{" ".join(names)}"' if names else ""


def _downloads(table: Table) -> str:
    files = {"csv": to_csv(table), "md": to_markdown(table), "tex": to_latex(table)}
    names = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
    return ", ".join(
        f'<a download="{table.name}.{kind}" href="{data_uri(text.encode(), kind)}">{names[kind]}</a>'
        for kind, text in files.items()
    )
