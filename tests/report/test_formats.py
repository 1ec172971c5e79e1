"""One table as Markdown, LaTeX, CSV and on a terminal; test_page.py compares the CSV files with the records."""

import io
import re

import pytest
from rich.console import Console
from table_records import SPARSITIES

from analyze.report import formats
from analyze.report.formats import Cell, Table, escape_latex, format_number
from analyze.report.rows import measured_column
from analyze.report.tables import map_table

TABLE = map_table("table1", SPARSITIES)


def test_markdown_and_latex_have_the_same_cells():
    expected = [
        [TABLE.lines(cell, column) for cell, column in zip(row, TABLE.columns, strict=True)] for row in TABLE.rows
    ]
    _, body, notes, *_ = formats.to_markdown(TABLE).split("\n\n")
    markdown = [re.sub("<sup>.</sup>", "", line)[2:-2].split(" | ") for line in body.splitlines()[2:]]
    assert markdown == [[" ".join(filter(None, cell)) for cell in row] for row in expected]
    assert notes.splitlines() == [f"{number}. {note}" for number, note in enumerate(TABLE.footnotes(), 1)]
    lines = [line for line in formats.to_latex(TABLE).splitlines() if line.startswith("Freeway")]
    cells = [re.sub(r"\$\^{\d}\$", "", line.removesuffix(r" \\[2pt]")).split(" & ") for line in lines]
    assert cells == [
        [rf"\shortstack[r]{{{v}\\{{\scriptsize {escape_latex(i)}}}}}" if i else escape_latex(v) for v, i in row]
        for row in expected
    ]


@pytest.mark.parametrize(("text", "latex"), [("50% & $x_1", r"50\% \& \$x\_1"), ("1.5e-20", r"$1.5\times 10^{-20}$")])
def test_latex_has_its_special_characters_escaped(text, latex):
    assert escape_latex(text) == latex


def test_a_table_wider_than_the_terminal_is_printed_in_parts_that_fit():
    formats.print_table(TABLE, Console(file=(out := io.StringIO()), width=80))
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= 80
    shown = ("41.98", "[39.50, 44.25]", "53.7272", "undefined²", "[83.250000, 83.750000]", "83.91587")
    assert [text for text in shown if text not in out.getvalue()] == []


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(0.0, 2, "0.00"), (1.542e-20, 4, "1.54e-20"), (-0.001, 2, "-1.00e-03"), (3, 2, "3"), ("83.9", 0, "83.9")],
)
def test_numbers_keep_what_matters(value, digits, shown):
    assert format_number(value, digits) == shown


def test_a_difference_below_the_digits_shown_is_0():
    cell = Cell(-3.38e-8, -4e-8, -2e-8)
    column = measured_column("sparsity_difference", "x", "x", map_kind="hmap")
    assert Table("t", "t", (column,), ((cell,),)).lines(cell, column) == ("0.000000", "[0.000000, 0.000000]")
