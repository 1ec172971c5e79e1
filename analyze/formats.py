"""A table once, written as CSV, Markdown, LaTeX or to a terminal."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

NOT_MEASURED, UNDEFINED = "—", "undefined"
_TERMINAL_COLUMNS = 200  # where the output is no terminal and has no width of its own


@dataclass(frozen=True)
class Cell:
    """One value. None with a `note` is undefined, None without one was not measured.

    `low` and `high` bound an interval, or with `spread` say from where to where the values of
    several seeds go, `value` being their mean. A `note` beside a value says what it lacks. A
    string that is a number, such as a printed one, is shown digit for digit.
    """

    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None
    spread: bool = False


@dataclass(frozen=True)
class Column:
    """`key` names it in CSV, `title` elsewhere, under the heading `group` that it may share with its neighbours.

    `digits` after the point show a number; None shows it as it is. A `measured` column has an
    interval and notes, which become CSV columns of their own.
    """

    key: str
    title: str
    group: str = ""
    latex: str | None = None
    latex_group: str | None = None
    digits: int | None = None
    measured: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows of as many cells; `breaks` are the rows before which a line is drawn."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    breaks: frozenset[int] = field(default_factory=frozenset)

    def footnotes(self) -> list[str]:
        """The different notes of the cells in reading order; the first is number 1."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def lines(self, cell: Cell, column: Column) -> tuple[str, str]:
        """What a cell shows: the value, and the interval or the spread, each "" where there is none."""
        if cell.value is None:
            return (UNDEFINED if cell.note else NOT_MEASURED), ""
        value = format_number(cell.value, column.digits)
        if cell.low is None or cell.high is None:
            return value, ""
        low, high = format_number(cell.low, column.digits), format_number(cell.high, column.digits)
        return value, f"({low} to {high})" if cell.spread else f"[{low}, {high}]"

    def groups(self) -> Iterator[tuple[str, list[Column]]]:
        """Neighbouring columns that share a heading, with it."""
        for heading, columns in groupby(self.columns, key=lambda column: column.group):
            yield heading, list(columns)


def format_number(value: float | int | str, digits: int | None) -> str:
    """`value` with `digits` after the point; a float that they would round to 0 keeps three of its own."""
    if isinstance(value, str | int) or digits is None:
        return f"{value:g}" if isinstance(value, float) else str(value)
    if value != 0 and abs(value) < 0.5 * 10.0**-digits:
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def to_csv(table: Table) -> str:
    """All digits; a measured column `x` is followed by `x low`, `x high` and `x note`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extra = (" low", " high", " note")
    writer.writerow(
        name
        for column in table.columns
        for name in (column.key, *(column.key + end for end in extra if column.measured))
    )
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        writer.writerow(
            "" if value is None else value
            for column, cell in cells
            for value in ((cell.value, cell.low, cell.high, cell.note) if column.measured else (cell.value,))
        )
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """A table as GitHub and most others render it, its title above and its notes below."""
    footnotes = table.footnotes()

    def shown(cell: Cell, column: Column) -> str:
        mark = f"<sup>{footnotes.index(cell.note) + 1}</sup>" if cell.note else ""
        value, interval = table.lines(cell, column)
        return f"{value}{mark} {interval}".strip().replace("|", "\\|")

    def line(parts: Sequence[str]) -> str:
        return f"| {' | '.join(parts)} |"

    titles = [f"{column.group} {column.title}".strip().replace("|", "\\|") for column in table.columns]
    rules = ["---:" if _is_number(table, index) else "---" for index in range(len(titles))]
    rows = [[shown(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    body = "\n".join(line(parts) for parts in (titles, rules, *rows))
    below = [*(f"{number}. {note}" for number, note in enumerate(footnotes, 1))]
    return "\n\n".join(part for part in (f"**{table.title}**", body, "\n".join(below), *table.notes) if part) + "\n"


def to_latex(table: Table) -> str:
    """A floating table for packages booktabs and graphicx; every special character is escaped."""
    footnotes = table.footnotes()

    def shown(cell: Cell, column: Column) -> str:
        value, interval = (escape_latex(part) for part in table.lines(cell, column))
        value += f"$^{{{footnotes.index(cell.note) + 1}}}$" if cell.note else ""
        return rf"\shortstack[r]{{{value}\\{{\scriptsize {interval}}}}}" if interval else value

    alignment = "".join("r" if _is_number(table, index) else "l" for index in range(len(table.columns)))
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", *_latex_headings(table), r"\midrule"]
    for index, row in enumerate(table.rows):
        if index and index in table.breaks:
            lines.append(r"\addlinespace")
        cells = (shown(cell, column) for cell, column in zip(row, table.columns, strict=True))
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [f"$^{{{number}}}$ {escape_latex(note)}." for number, note in enumerate(footnotes, 1)]
    notes += [escape_latex(note) for note in table.notes]
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            *lines,
            "}",
            *(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {note}}}" for note in notes),
            r"\end{table*}",
            "",
        ]
    )


def _latex_headings(table: Table) -> Iterator[str]:
    if any(column.group for column in table.columns):
        headings, rules, first = [], [], 1
        for heading, columns in table.groups():
            text = columns[0].latex_group or escape_latex(heading)
            headings.append(rf"\multicolumn{{{len(columns)}}}{{c}}{{{text}}}")
            if heading:
                rules.append(rf"\cmidrule(lr){{{first}-{first + len(columns) - 1}}}")
            first += len(columns)
        yield " & ".join(headings) + r" \\"
        yield " ".join(rules)
    yield " & ".join(column.latex or escape_latex(column.title) for column in table.columns) + r" \\"


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"—": "---", "–": "--", "…": r"\ldots{}", "<": "$<$", ">": "$>$", "[": "{[}", "]": "{]}"},
    **{"κ": r"$\kappa$", "ε": r"$\varepsilon$", "π": r"$\pi$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$", "√": r"$\surd$"},
    **{"×": r"$\times$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "‖": r"$\|$", "·": r"$\cdot$"},
    **{"²": "$^2$", "₁": "$_1$", "₂": "$_2$", "∞": r"$\infty$", "ℓ": r"$\ell$"},
}
_POWER_OF_TEN = re.compile(r"^(-?[\d.]+)e([+-]\d+)$")


def escape_latex(text: str) -> str:
    """`text` as LaTeX source that prints as it reads here; `1.5e-20` becomes a power of ten."""
    power = _POWER_OF_TEN.match(text)
    if power:
        return rf"${power[1]}\times 10^{{{int(power[2])}}}$"
    return "".join(_LATEX.get(character, character) for character in text)


def to_terminal(table: Table) -> RichTable:
    """The table for a rich console; intervals stand under their values."""
    footnotes = table.footnotes()
    caption = [f"{number}. {note}" for number, note in enumerate(footnotes, 1)]
    shown = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text("\n".join([*caption, *table.notes])) if caption or table.notes else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, column in enumerate(table.columns):
        heading = Text(f"{column.group}\n{column.title}" if column.group else column.title)
        shown.add_column(heading, justify="right" if _is_number(table, index) else "left", vertical="bottom")
    for index, row in enumerate(table.rows):
        if index and index in table.breaks:
            shown.add_section()
        shown.add_row(*(_terminal_cell(table, cell, column) for cell, column in zip(row, table.columns, strict=True)))
    return shown


def _terminal_cell(table: Table, cell: Cell, column: Column) -> Text:
    value, interval = table.lines(cell, column)
    text = Text(value)
    if cell.note:
        text.append(str(table.footnotes().index(cell.note) + 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")))
    return text.append(f"\n{interval}", style="dim") if interval else text


def print_table(table: Table, console: Console | None = None) -> None:
    """Print `table`, as wide as it needs to be where the output is no terminal."""
    console = console or Console()
    console.print(to_terminal(table), width=None if console.is_terminal else _TERMINAL_COLUMNS)


def _is_number(table: Table, index: int) -> bool:
    column = table.columns[index]
    return column.measured or column.digits is not None
