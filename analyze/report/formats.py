"""Tables, and their forms as CSV, as Markdown and on a terminal; analyze.report.latex has the form in LaTeX."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

NOT_MEASURED, UNDEFINED = "—", "undefined"
_FILE_WIDTH = 160  # where the output is no terminal and has no width of its own


@dataclass(frozen=True)
class Cell:
    """One value. None with a `note` is undefined, None without a note was not measured.

    `low` and `high` bound an interval. With `spread` they are the smallest and the largest value over
    seeds, and `value` is the mean. A `note` beside a value says what it lacks. A string, such as a
    published number, is shown digit for digit.
    """

    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None
    spread: bool = False


@dataclass(frozen=True)
class Column:
    """A column called `key` in CSV and `title` elsewhere, under a heading `group` that neighbours may share.

    Numbers have `digits` after the point; None shows them unrounded. A `measured` column has
    intervals and notes, which become CSV columns of their own. `spreads` is false where a mean over
    seeds has no meaning. `scientific` shows a number that the digits would round to 0 as 1.54e-20.
    """

    key: str
    title: str
    group: str = ""
    latex: str | None = None
    latex_group: str | None = None
    digits: int | None = None
    measured: bool = False
    spreads: bool = True
    scientific: bool = True


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
        """The distinct notes of the cells in reading order; the first is number 1."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def is_number(self, index: int) -> bool:
        """Whether the column at `index` holds numbers, to be aligned on the right."""
        return self.columns[index].measured or self.columns[index].digits is not None

    def lines(self, cell: Cell, column: Column) -> tuple[str, str]:
        """The value as text, and the interval or the spread, each "" where there is none."""
        if cell.value is None:
            return (UNDEFINED if cell.note else NOT_MEASURED), ""
        value = format_number(cell.value, column.digits, scientific=column.scientific)
        if cell.low is None or cell.high is None:
            return value, ""
        low, high = (format_number(x, column.digits, scientific=column.scientific) for x in (cell.low, cell.high))
        return value, f"({low} – {high})" if cell.spread else f"[{low}, {high}]"

    def groups(self) -> Iterator[tuple[str, list[Column]]]:
        """Neighbouring columns that share a heading, with it."""
        for heading, columns in groupby(self.columns, key=lambda column: column.group):
            yield heading, list(columns)


def format_number(value: float | int | str, digits: int | None, *, scientific: bool = True) -> str:
    """`value` with `digits` after the point; a float that they would round to 0 as 1.54e-20 where `scientific`."""
    if isinstance(value, str | int) or digits is None:
        return f"{value:g}" if isinstance(value, float) else str(value)
    if scientific and value != 0 and abs(value) < 0.5 * 10.0**-digits:
        return f"{value:.2e}"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a 0


def counted(count: int, name: str, plural: str | None = None) -> str:
    """`1 episode`, `2 episodes`."""
    return f"{count} {name if count == 1 else plural or f'{name}s'}"


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
    rules = ["---:" if table.is_number(index) else "---" for index in range(len(titles))]
    rows = [[shown(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    body = "\n".join(line(parts) for parts in (titles, rules, *rows))
    below = [*(f"{number}. {note}" for number, note in enumerate(footnotes, 1))]
    return "\n\n".join(part for part in (f"**{table.title}**", body, "\n".join(below), *table.notes) if part) + "\n"


def to_terminal(table: Table, *, title: str, footnotes: Sequence[str], notes: bool) -> RichTable:
    """The table for a rich console, with intervals under their values and, with `notes`, all notes below."""
    below = [*(f"{number}. {note}" for number, note in enumerate(footnotes, 1)), *table.notes] if notes else []
    shown = RichTable(
        title=Text(title, style="bold") if title else None,
        caption=Text("\n".join(below)) if below else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for index, column in enumerate(table.columns):
        heading = Text(f"{column.group}\n{column.title}" if column.group else column.title)
        shown.add_column(heading, justify="right" if table.is_number(index) else "left", vertical="bottom")
    for index, row in enumerate(table.rows):
        if index and index in table.breaks:
            shown.add_section()
        shown.add_row(
            *(_terminal_cell(table, cell, column, footnotes) for cell, column in zip(row, table.columns, strict=True))
        )
    return shown


def _terminal_cell(table: Table, cell: Cell, column: Column, footnotes: Sequence[str]) -> Text:
    value, interval = table.lines(cell, column)
    text = Text(value)
    if cell.note:
        text.append(str(footnotes.index(cell.note) + 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")))
    return text.append(f"\n{interval}", style="dim") if interval else text


def print_table(table: Table, console: Console | None = None) -> None:
    """Print `table`; a table wider than the terminal in parts, each with the columns that name the rows."""
    console = console or Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    parts = _parts(table, console)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        title = table.title if number == 0 else f"{table.title}, continued"
        console.print(to_terminal(part, title=title, footnotes=table.footnotes(), notes=last))


def _parts(table: Table, console: Console) -> list[Table]:
    """`table` cut into parts that fit on the console; columns under one heading stay together if they fit."""
    measured = [index for index, column in enumerate(table.columns) if column.measured]
    first = measured[0] if measured else len(table.columns)
    heads, parts = list(range(first)), [list(range(first))]
    blocks = [
        list(block) for _, block in groupby(range(first, len(table.columns)), lambda i: table.columns[i].group or i)
    ]
    for block in blocks:
        for piece in [block] if _fits(table, [*heads, *block], console) else [[index] for index in block]:
            if len(parts[-1]) > first and not _fits(table, [*parts[-1], *piece], console):
                parts.append(list(heads))
            parts[-1] += piece
    return [
        _columns_of(table, part) if number == 0 else filled_rows(table, part, first)
        for number, part in enumerate(parts)
    ]


def _fits(table: Table, indices: Sequence[int], console: Console) -> bool:
    shown = to_terminal(_columns_of(table, indices), title="", footnotes=table.footnotes(), notes=False)
    return bool(console.measure(shown, options=console.options.update(width=10_000)).maximum <= console.width)


def filled_rows(table: Table, indices: Sequence[int], first: int) -> Table:
    """The columns at `indices`, and the rows that have a value in one of them from column `first` on."""
    kept = [
        number
        for number, row in enumerate(table.rows)
        if any(row[index].value is not None or row[index].note for index in indices if index >= first)
    ]
    breaks = frozenset(sum(number < line for number in kept) for line in table.breaks)
    return _columns_of(replace(table, rows=tuple(table.rows[number] for number in kept), breaks=breaks), indices)


def _columns_of(table: Table, indices: Sequence[int]) -> Table:
    rows = tuple(tuple(row[index] for index in indices) for row in table.rows)
    return replace(table, columns=tuple(table.columns[index] for index in indices), rows=rows)
