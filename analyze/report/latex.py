"""A table as LaTeX, for the packages booktabs and graphicx."""

import re
from collections.abc import Iterator

from analyze.report.formats import Cell, Column, Table


def to_latex(table: Table) -> str:
    """A floating table for packages booktabs and graphicx; every special character is escaped."""
    footnotes = table.footnotes()

    def shown(cell: Cell, column: Column) -> str:
        value, interval = (escape_latex(part) for part in table.lines(cell, column))
        value += f"$^{{{footnotes.index(cell.note) + 1}}}$" if cell.note else ""
        return rf"\shortstack[r]{{{value}\\{{\scriptsize {interval}}}}}" if interval else value

    alignment = "".join("r" if table.is_number(index) else "l" for index in range(len(table.columns)))
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", *_latex_headings(table), r"\midrule"]
    for index, row in enumerate(table.rows):
        if index and index in table.breaks:
            lines.append(r"\addlinespace")
        cells = (shown(cell, column) for cell, column in zip(row, table.columns, strict=True))
        lines.append(" & ".join(cells) + r" \\[2pt]")
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
    yield " & ".join(_latex_title(column) for column in table.columns) + r" \\"


def _latex_title(column: Column) -> str:
    """The title, with its brackets on a second line to keep the column narrow."""
    if column.latex:
        return column.latex
    name, bracket, rest = column.title.partition(" (")
    return rf"\shortstack{{{escape_latex(name)}\\({escape_latex(rest)}}}" if bracket else escape_latex(name)


_SPECIAL = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"})
_REPLACEMENTS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "[": "{[}",  # LaTeX reads a bracket after a row's end as its argument
    "]": "{]}",
}
_MATHS = {
    "<": "<",
    ">": ">",
    "−": "-",
    "κ": r"\kappa",
    "ε": r"\varepsilon",
    "π": r"\pi",
    "Δ": r"\Delta",
    "Σ": r"\Sigma",
    "√": r"\surd",
    "×": r"\times",
    "±": r"\pm",
    "≥": r"\geq",
    "≤": r"\leq",
    "‖": r"\|",
    "·": r"\cdot",
    "∞": r"\infty",
    "ℓ": r"\ell",
    "²": "^2",
    "₁": "_1",
    "₂": "_2",
}
_TRANSLATION = (
    _SPECIAL | str.maketrans(_REPLACEMENTS) | str.maketrans({key: f"${maths}$" for key, maths in _MATHS.items()})
)
_POWER_OF_TEN = re.compile(r"^(-?[\d.]+)e([+-]\d+)$")


def escape_latex(text: str) -> str:
    """`text` with LaTeX's special characters and symbols escaped; `1.5e-20` becomes a power of ten."""
    power = _POWER_OF_TEN.match(text)
    if power:
        return rf"${power[1]}\times 10^{{{int(power[2])}}}$"
    return text.translate(_TRANSLATION)
