"""One table as Markdown, LaTeX, CSV and on a terminal, against text written by hand."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from table_records import SPARSITIES

from analyze.report.formats import (
    Cell,
    Column,
    Table,
    escape_latex,
    format_number,
    print_table,
    to_csv,
    to_latex,
    to_markdown,
)
from analyze.report.rows import measured_column
from analyze.report.tables import map_table


def test_markdown_latex_and_csv_have_the_same_cells():
    table = map_table("table1", SPARSITIES)
    expected = [
        [table.lines(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    _, body, notes, *_ = to_markdown(table).split("\n\n")
    markdown = [re.sub("<sup>.</sup>", "", line)[2:-2].split(" | ") for line in body.splitlines()[2:]]
    assert markdown == [[" ".join(filter(None, cell)) for cell in row] for row in expected]
    assert notes.splitlines() == [f"{number}. {note}" for number, note in enumerate(table.footnotes(), 1)]
    lines = [line for line in to_latex(table).splitlines() if line.startswith("Freeway")]
    cells = [re.sub(r"\$\^{\d}\$", "", line.removesuffix(r" \\[2pt]")).split(" & ") for line in lines]
    assert cells == [
        [rf"\shortstack[r]{{{v}\\{{\scriptsize {escape_latex(i)}}}}}" if i else escape_latex(v) for v, i in row]
        for row in expected
    ]
    numbers = list(csv.DictReader(io.StringIO(to_csv(table))))
    for row, cells_of_row in zip(numbers, table.rows, strict=True):
        for column, cell in zip(table.columns, cells_of_row, strict=True):
            for key, value in ((column.key, cell.value), (f"{column.key} low", cell.low)):
                assert row.get(key, "") == ("" if value is None else str(value))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_csv_keeps_all_digits(values):
    column = Column("x", "x", digits=1, measured=True)
    text = to_csv(Table("t", "t", (column,), tuple((Cell(value, value, value),) for value in values)))
    assert [float(row["x low"]) for row in csv.DictReader(io.StringIO(text))] == values


def test_a_table_wider_than_the_terminal_is_printed_in_parts_that_fit():
    out = io.StringIO()
    print_table(map_table("table1", SPARSITIES), Console(file=out, width=80))
    text = out.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for shown in ("41.98", "[39.50, 44.25]", "53.7272", "undefined²", "[83.250000, 83.750000]", "83.91587"):
        assert shown in text


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
