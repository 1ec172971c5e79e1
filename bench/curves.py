"""Draw training curves from a CSV file: `python -m bench.curves docs/training/search.csv` writes search.png beside it.

The first column of the file names the run, the second is the x-axis, and every other column is a curve
with a panel of its own, if any run has it. Prints a Markdown table of the last values of every run.
`--add RUN=FOLDER` first adds the only training under FOLDER to the file, in place of an earlier run of that name.
"""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
import numpy as np

from conf.argument_parser import ArgumentParser
from nrmap.learning.recorded import RecordedCurves
from nrmap.support.errors import NrmapError, check, errors_in_one_line, first_line, shortened
from nrmap.support.files import MOST_JSON_BYTES, atomic_path, read_json, regular_file
from nrmap.support.layout import CURVES_FILE
from nrmap.support.schema import LARGEST

# The columns of a new file.
COLUMNS = (
    "run", "agent_step", "recent_mean_return", "greedy_return", "adversarial_flips", "probe_own_flips", "probe_flips",
    "gradient_cosine", "margin_fell", "gradient_sparsity", "uncertified",
)  # fmt: skip
EVERY = 2_000  # agent steps of one row

_UNKNOWN = ("", "nan", "inf", "-inf")  # a curve has no point there
MOST_COLUMNS = 60  # a taller picture cannot be saved
Rows = list[dict[str, str]]


def read(path: Path) -> Rows:
    """Read the rows of a file of curves; [] if there is no file. Raises NrmapError for a file of another form."""
    if not os.path.lexists(path):
        return []
    with regular_file(path, "curves") as file:
        data = file.read(MOST_JSON_BYTES + 1)
    check(len(data) <= MOST_JSON_BYTES, f"{path} has more than {MOST_JSON_BYTES:,} bytes")
    try:
        header, *cells = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    except ValueError as error:
        raise NrmapError(f"{path} is not a file of curves: {first_line(error)}") from error
    except csv.Error as error:
        raise NrmapError(f"{path} is not a CSV file: {first_line(error)}") from error
    fits = 3 <= len(header) <= MOST_COLUMNS and len(set(header)) == len(header)
    check(fits, f"{path} has the columns {shortened(header)}: expected 3 to {MOST_COLUMNS} different names")
    for number, row in enumerate(cells, 2):
        check(len(row) == len(header), f"{path}, row {number} has {len(row)} cells: expected {len(header)}")
        for name, cell in zip(header[1:], row[1:], strict=True):
            known = _is_number(cell) or (name != header[1] and cell in _UNKNOWN)
            check(
                known,
                f"{path}, row {number}, {shortened(name)}: {shortened(cell)}: expected a number within ±{LARGEST:g}",
            )
    return [dict(zip(header, row, strict=True)) for row in cells]


def _is_number(cell: str | float) -> bool:
    try:
        return abs(float(cell)) <= LARGEST
    except (ValueError, OverflowError):
        return False


def write(path: Path, rows: Rows) -> None:
    """Write `rows`, at least one and all with equal columns, to `path` as CSV. Raises NrmapError as `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def thinned(name: str, folder: Path, columns: list[str]) -> Rows:
    """Return rows of the only training under `folder`, as run `name`: means of `columns[2:]` per 2,000 agent steps.

    Raises NrmapError unless there is exactly one training, and for curves that are damaged or beyond ±`LARGEST`.
    """
    found = sorted(folder.rglob(CURVES_FILE))
    check(len(found) == 1, f"{folder} has {len(found)} trainings: expected 1")
    windows: dict[int, list[Mapping[str, float]]] = defaultdict(list)
    for row in read_json(found[0], RecordedCurves)["rows"]:
        for key, value in row.items():
            misfit = f"{found[0]}: {shortened(key)} of {shortened(value)}: expected a number within ±{LARGEST:g}"
            check(_is_number(value), misfit)
        windows[int(-(-row["agent_step"] // EVERY))].append(row)
    rows = []
    for window, inside in sorted(windows.items()):
        means = {key: [row[key] for row in inside if key in row] for key in columns[2:]}
        cells = {key: f"{fmean(values):.4g}" if values else "" for key, values in means.items()}
        rows.append({columns[0]: name, columns[1]: str(window * EVERY), **cells})
    return rows


def by_run(rows: Rows) -> dict[str, np.ndarray]:
    """Return the values of each run by its name, float [rows, columns − 1], x first; NaN where a cell is empty."""
    runs: dict[str, list[list[float]]] = defaultdict(list)
    for row in rows:
        name, *cells = row.values()
        runs[name].append([float(cell) if cell else np.nan for cell in cells])
    return {name: np.array(values) for name, values in runs.items()}


def draw(rows: Rows, path: Path) -> None:
    """Draw a panel for each column of curves, into the picture `path`; each run is a line that ends in its name.

    Raises NrmapError if the picture cannot be written.
    """
    _, x_label, *columns = rows[0]
    figure, panels = plt.subplots(
        len(columns), 1, figsize=(8, 3.2 * len(columns)), sharex=True, layout="constrained", squeeze=False
    )
    colours = plt.get_cmap("tab20")
    for index, (name, values) in enumerate(by_run(rows).items()):
        for axes, column in zip(panels[:, 0], values[:, 1:].T, strict=True):
            known = np.isfinite(column)
            if known.any():
                axes.plot(values[known, 0] / 1000, column[known], color=colours(index % 20), linewidth=1.2)
                end = (values[known, 0][-1] / 1000, column[known][-1])
                axes.annotate(name, end, xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    for axes, column in zip(panels[:, 0], columns, strict=True):
        axes.set(ylabel=column.replace("_", " "))
        axes.grid(alpha=0.2)
    panels[-1, 0].set(xlabel=f"thousand {x_label.replace('_', ' ')}s".replace("ss", "s"))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def ends(rows: Rows) -> list[str]:
    """Return the lines of a Markdown table: the last finite value of every curve of every run, "—" without one."""
    header = [name.replace("_", " ") for name in rows[0]]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for name, values in by_run(rows).items():
        cells = [f"{values[-1, 0]:,.0f}"]
        for column in values[:, 1:].T:
            known = column[np.isfinite(column)]
            cells.append(f"{known[-1]:.3g}" if len(known) else "—")
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


@errors_in_one_line()
def main() -> None:
    """Add the runs of `--add`, draw the curves and print the table; an error prints one line, with exit status 2."""
    parser = ArgumentParser(prog="python -m bench.curves", description=__doc__)
    parser.add_argument("file", type=Path, help="a CSV file of curves; the picture is written beside it")
    parser.add_argument("--add", nargs="*", default=[], metavar="RUN=FOLDER", help="trainings to take in")
    options = parser.parse_args()
    picture = options.file.with_suffix(".png")
    check(picture != options.file, f"{options.file}: expected a CSV file; its picture gets the suffix .png")
    rows = read(options.file)
    misfit = next((given for given in options.add if "=" not in given), None)
    check(misfit is None, f"--add {misfit}: expected RUN=FOLDER")
    columns = list(rows[0] if rows else COLUMNS)
    for name, _, folder in (given.partition("=") for given in options.add):
        rows = [row for row in rows if row[columns[0]] != name] + thinned(name, Path(folder), columns)
    known = [column for column in columns if any(row[column] not in _UNKNOWN for row in rows)]
    check(len(known) > 2, f"{options.file} holds no curves: add some with --add RUN=FOLDER")
    if options.add:
        write(options.file, rows)
    rows = [{column: row[column] for column in known} for row in rows]
    with plt.rc_context({"text.parse_math": False}):  # "$" in a name starts no formula
        draw(rows, picture)
    print("\n".join(ends(rows)))


if __name__ == "__main__":
    main()
