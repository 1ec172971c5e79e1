"""One table as Markdown, LaTeX, CSV and on a terminal, against text written by hand."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from table_records import SPARSITIES

from analyze.report.formats import Cell, Column, Table, format_number, print_table, to_csv, to_markdown
from analyze.report.latex import escape_latex, to_latex
from analyze.report.tables import (
    table1,
)

TABLE1_MARKDOWN = """\
**Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)**

| Game | States | N | T | Seed | S(K) DDQN (vanilla) | S(K) paper | S(K) SA-DDQN (adversarial) | S(K) paper | S(H) DDQN (vanilla) | S(H) paper | S(H) SA-DDQN (adversarial) | S(H) paper |
| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Freeway | own | 256 | 1 | 0 | 41.98 [39.50, 44.25] | 53.7272 | 12.25 [10.50, 14.00] | 20.4641 | 83.999877<sup>1</sup> | 83.9999 | 83.500000 [83.250000, 83.750000] | 83.91587 |
| Freeway | own | 256 | 1 | 1 | 44.50 [40.00, 49.00] | 53.7272 | undefined<sup>2</sup> | 20.4641 | — | — | — | — |
| Freeway | own | 256 | 1 | 2 seeds | 43.24 (41.98 – 44.50) | 53.7272 | 12.25<sup>3</sup> | 20.4641 | 83.999877<sup>4</sup> | 83.9999 | 83.500000<sup>4</sup> | 83.91587 |

1. no interval: too few episodes
2. the map is 0 everywhere
3. over 1 of 2: undefined (seed 1)
4. over 1 of 2: not measured (seed 1)

Square brackets: 95% intervals (jackknife over 16 episodes, for this policy).

Maps at T = 0.1: see “Sparsity of all kinds of maps”.

Rows of several seeds: the mean over seeds and, in round brackets, the smallest and the largest.
"""  # noqa: E501


def test_table1_in_markdown_is_the_expected_text():
    assert to_markdown(table1(SPARSITIES)) == TABLE1_MARKDOWN


def test_table1_as_latex_is_the_expected_text():
    assert to_latex(table1([SPARSITIES[2], SPARSITIES[5]])) == (
        r"""% \usepackage{booktabs,graphicx}
\begin{table*}
\centering
\caption{Sparsity S = $\|$M$\|$$_1$ / $\|$M$\|$$_2$ of KMAP and HMAP (table 1 of the paper)}
\label{tab:table1}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{llrllrrrr}
\toprule
\multicolumn{5}{c}{} & \multicolumn{2}{c}{$S(\mathcal{K})$} & \multicolumn{2}{c}{$S(\mathcal{H})$} \\
\cmidrule(lr){6-7} \cmidrule(lr){8-9}
Game & States & N & T & Seed & \shortstack{SA-DDQN\\(adversarial)} & paper & \shortstack{SA-DDQN\\(adversarial)} & paper \\
\midrule
Freeway & own & 256 & 1 & 0 & \shortstack[r]{12.25\\{\scriptsize {[}10.50, 14.00{]}}} & 20.4641 & \shortstack[r]{83.500000\\{\scriptsize {[}83.250000, 83.750000{]}}} & 83.91587 \\[2pt]
\bottomrule
\end{tabular}
}
\par\smallskip\parbox{\linewidth}{\footnotesize Square brackets: 95\% intervals (jackknife over 16 episodes, for this policy).}
\end{table*}
"""  # noqa: E501
    )


def test_table1_as_csv_gives_back_every_number():
    rows = list(csv.DictReader(io.StringIO(to_csv(table1(SPARSITIES)))))
    first, second, spread = rows
    assert (first["game"], first["states"], first["N"], first["T"], first["seed"]) == (
        "Freeway",
        "own",
        "256",
        "1.0",
        "0",
    )
    assert float(first["kmap_sparsity ddqn"]) == 41.98125
    assert float(first["kmap_sparsity ddqn low"]) == 39.5
    assert float(first["kmap_sparsity ddqn high"]) == 44.25
    assert float(first["kmap_sparsity ddqn paper"]) == 53.7272
    assert float(first["hmap_sparsity sa_ddqn"]) == 83.5
    assert second["kmap_sparsity sa_ddqn"] == ""
    assert second["kmap_sparsity sa_ddqn note"] == "the map is 0 everywhere"
    assert float(spread["kmap_sparsity ddqn"]) == (41.98125 + 44.5) / 2


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_csv_keeps_all_digits(values):
    column = Column("x", "x", digits=1, measured=True)
    text = to_csv(Table("t", "t", (column,), tuple((Cell(value, value, value),) for value in values)))
    assert [float(row["x low"]) for row in csv.DictReader(io.StringIO(text))] == values


@pytest.mark.parametrize("width", [80, 120, 300])
def test_a_table_wider_than_the_terminal_is_printed_in_parts_that_fit(width):
    out = io.StringIO()
    print_table(table1(SPARSITIES), Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    text = out.getvalue()
    for shown in (
        "41.98",
        "[39.50, 44.25]",
        "53.7272",
        "undefined²",
        "83.500000",
        "[83.250000, 83.750000]",
        "83.91587",
    ):
        assert shown in text
    assert "…" not in text
    assert text.count("Freeway") >= 3 + text.count("continued")  # every part names its rows


def test_a_continued_part_leaves_out_rows_with_nothing_in_it():
    columns = (Column("seed", "seed"), *(Column(name * 30, name * 30, measured=True) for name in "abc"))
    rows = ((Cell("one"), Cell(1.0), Cell(), Cell(7.5)), (Cell("two"), Cell(2.0), Cell(), Cell()))
    out = io.StringIO()
    print_table(Table("name", "title", columns, rows), Console(file=out, width=45))
    parts = out.getvalue().split("continued")
    assert [("one" in part, "two" in part) for part in parts] == [(True, True), (False, False), (True, False)]


def test_special_characters_are_escaped_for_latex():
    assert escape_latex("50% of a_b & {x} ~ ^ \\ # $") == (
        r"50\% of a\_b \& \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \# \$"
    )
    assert escape_latex("κ = 0, ε ≤ 1/255, √2, —") == r"$\kappa$ = 0, $\varepsilon$ $\leq$ 1/255, $\surd$2, ---"
    assert escape_latex("1.50e-20") == r"$1.50\times 10^{-20}$"


@given(st.text())
def test_no_special_character_survives_the_escape(text):
    escaped = escape_latex(text)
    for index, character in enumerate(escaped):
        if character in "%&#":
            assert escaped[index - 1] == "\\"


def test_pipes_do_not_break_a_markdown_row():
    table = Table("t", "t", (Column("a", "a|b"),), ((Cell("x|y"),),))
    assert "| a\\|b |" in to_markdown(table)
    assert "| x\\|y |" in to_markdown(table)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (41.98125, 2, "41.98"),
        (0.0, 2, "0.00"),
        (1.542e-20, 4, "1.54e-20"),
        (-0.001, 2, "-1.00e-03"),
        (3, 2, "3"),
        ("83.999992", 0, "83.999992"),
        (0.1, None, "0.1"),
        (1e4, None, "10000"),
    ],
)
def test_numbers_keep_what_matters(value, digits, shown):
    assert format_number(value, digits) == shown
