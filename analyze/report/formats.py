"""Tables, and their forms as CSV, Markdown, LaTeX and on a terminal."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pylatexenc.latexencode import unicode_to_latex
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

NOT_MEASURED, UNDEFINED = "—", "undefined"
_FILE_WIDTH = 160  # where the output is no terminal and has no width of its own
_POWER_OF_TEN = re.compile(r"^(-?[\d.]+)e([+-]\d+)$")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """One value. None with a `note` is undefined, None without a note was not measured.

    `low` and `high` bound an interval. With `spread` they are the smallest and the largest value over
    seeds, and `value` is the mean. A `note` beside a value is a caveat, such as a missing
    interval. A string, such as a published number, is shown digit for digit.
    """

    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None
    spread: bool = False


@dataclass(frozen=True)
class Column:
    """A column called `key` in CSV and `title` elsewhere, under a heading `group` that neighbours may share.

    Floats have `digits` after the point; None: up to six significant digits. A `measured` column has
    intervals and notes, which become CSV columns of their own. `spreads` is false where a mean over
    seeds has no meaning. `scientific` shows a number that the digits would round to 0 as 1.54e-20.
    """

    key: str
    title: str
    group: str = ""
    digits: int | None = None
    measured: bool = False
    spreads: bool = True
    scientific: bool = True


@dataclass(frozen=True)
class Table:
    """A table whose rows have a cell for each column; `breaks` are the indices of rows that have a line above."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    breaks: frozenset[int] = frozenset()

    def footnotes(self) -> list[str]:
        """The distinct notes of the cells in reading order; the first is number 1."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def is_number(self, index: int) -> bool:
        """Whether the column at `index` holds numbers, to be aligned on the right."""
        return self.columns[index].measured or self.columns[index].digits is not None

    def lines(self, cell: Cell, column: Column) -> tuple[str, str]:
        """Return two texts: the value of `cell`, and its interval.

        A value of None is "undefined" if the cell has a note, else "—". The interval is "[low, high]", for spreads over
        seeds "(low – high)", and without an interval "".
        """
        if cell.value is None:
            return (UNDEFINED if cell.note else NOT_MEASURED), ""
        value = format_number(cell.value, column.digits, scientific=column.scientific)
        if cell.low is None or cell.high is None:
            return value, ""
        low, high = (format_number(x, column.digits, scientific=column.scientific) for x in (cell.low, cell.high))
        return value, f"({low} – {high})" if cell.spread else f"[{low}, {high}]"

    def groups(self) -> Iterator[tuple[str, list[Column]]]:
        """Yield each heading with the neighbouring columns that share it."""
        for heading, columns in groupby(self.columns, key=lambda column: column.group):
            yield heading, list(columns)

    @property
    def heads(self) -> int:
        """The number of columns that name the rows, those before the first measured one."""
        return next((i for i, column in enumerate(self.columns) if column.measured), len(self.columns))

    def part(self, indices: Sequence[int]) -> "Table":
        """Return the table of the columns at `indices`, without rows that have neither value nor note in these.

        The columns that name the rows do not count as values.
        """
        kept = [
            number
            for number, row in enumerate(self.rows)
            if any(row[index].value is not None or row[index].note for index in indices if index >= self.heads)
        ]
        return replace(
            self,
            columns=tuple(self.columns[index] for index in indices),
            rows=tuple(tuple(self.rows[number][index] for index in indices) for number in kept),
            breaks=frozenset(sum(number < line for number in kept) for line in self.breaks),
        )


def format_number(value: float | int | str, digits: int | None, *, scientific: bool = True) -> str:
    """Format a float with `digits` after the point, or with up to six significant digits if `digits` is None.

    With `scientific`, a float that would round to 0 is written like 1.54e-20. Whole numbers and strings stay as they
    are.
    """
    if isinstance(value, str | int) or digits is None:
        return f"{value:g}" if isinstance(value, float) else str(value)
    if scientific and value != 0 and abs(value) < 0.5 * 10.0**-digits:
        return f"{value:.2e}"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a 0


def counted(count: int, name: str, plural: str | None = None) -> str:
    """Put a count before its noun: `1 episode`, `2 episodes`."""
    return f"{count} {name if count == 1 else plural or f'{name}s'}"


def to_csv(table: Table) -> str:
    """Format a table as CSV with all digits; after a measured column `x` come `x low`, `x high` and `x note`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = {False: ("",), True: ("", " low", " high", " note")}
    writer.writerow(column.key + end for column in table.columns for end in ends[column.measured])
    for row in table.rows:
        writer.writerow(
            "" if value is None else value
            for column, cell in zip(table.columns, row, strict=True)
            for value in ((cell.value, cell.low, cell.high, cell.note) if column.measured else (cell.value,))
        )
    return text.getvalue()


def templates() -> Environment:
    """Load the templates of the page and of tables; HTML templates escape their values."""
    environment = Environment(
        loader=PackageLoader("analyze.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"latex": escape_latex, "cell": lambda text: text.replace("|", "\\|")}
    return environment


def to_markdown(table: Table) -> str:
    """Format a table in Markdown as GitHub renders it, with its title above and its notes below."""
    return templates().get_template("table.md").render(table=table)


def to_latex(table: Table) -> str:
    """Format a table as a LaTeX float, which needs booktabs, graphicx and textcomp; special characters are escaped."""
    environment = templates().overlay(
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>"
    )
    return environment.get_template("table.tex").render(table=table)


def escape_latex(text: str) -> str:
    """Escape LaTeX's special characters and symbols in `text`; `1.5e-20` becomes a power of ten."""
    power = _POWER_OF_TEN.match(text)
    return rf"${power[1]}\times 10^{{{int(power[2])}}}$" if power else unicode_to_latex(text)


# The forms of a table by the ending of its file.
WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def print_table(table: Table, console: Console | None = None) -> None:
    """Print `table` on `console` (None: on stdout), with its notes.

    A table wider than the terminal is split into parts, each with the columns that name the rows.
    """
    console = console or Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    heads, footnotes = list(range(table.heads)), table.footnotes()
    parts = [list(heads)]
    for index in range(table.heads, len(table.columns)):
        if len(parts[-1]) > len(heads) and sum(_width(table, i) for i in [*parts[-1], index]) > console.width:
            parts.append(list(heads))
        parts[-1].append(index)
    console.print(Text(table.title, style="bold"))
    for part in map(table.part, parts):
        if part.rows:
            console.print(_on_terminal(part, footnotes))
    for note in (*(f"{number}. {note}" for number, note in enumerate(footnotes, 1)), *table.notes):
        console.print(Text(note))


def _width(table: Table, index: int) -> int:
    column = table.columns[index]
    texts = [column.group, column.title, *(text for row in table.rows for text in table.lines(row[index], column))]
    return max(map(len, texts)) + 3


def _on_terminal(table: Table, footnotes: Sequence[str]) -> RichTable:
    """Convert `table` for a rich console, with intervals under their values."""
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(table.columns):
        heading = Text(f"{column.group}\n{column.title}" if column.group else column.title)
        shown.add_column(heading, justify="right" if table.is_number(index) else "left", vertical="bottom")
    for index, row in enumerate(table.rows):
        if index and index in table.breaks:
            shown.add_section()
        cells = []
        for cell, column in zip(row, table.columns, strict=True):
            value, interval = table.lines(cell, column)
            mark = str(footnotes.index(cell.note) + 1).translate(_SUPERSCRIPTS) if cell.note else ""
            cells.append(Text(value + mark).append(f"\n{interval}" if interval else "", style="dim"))
        shown.add_row(*cells)
    return shown
