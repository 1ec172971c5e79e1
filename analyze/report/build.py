"""Builds the report of an outputs folder: tables, figures and the page, only when something has changed."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import jinja2
import matplotlib
import numpy
import scipy

import analyze
import nrmap
from analyze.report.drawings import chart_panels, chart_sheet, game_sources, map_sets, map_sheets, overlay_sheets
from analyze.report.figure_files import Sheet, save_sheet
from analyze.report.formats import Table
from analyze.report.load import UNREADABLE, digest_of_inputs, find
from analyze.report.notes import DEVIATIONS_FILE
from analyze.report.page import TABLE_WRITERS, GamePart, build_page
from analyze.report.pairing import with_differences
from analyze.report.results import Found
from analyze.report.return_tables import action_table, q_gap_table, returns_table
from analyze.report.tables import (
    control_table,
    difference_table,
    entropy_table,
    grid_table,
    measure_table,
    seed_difference_table,
    sparsity_table,
    table1,
)
from nrmap.support.errors import check
from nrmap.support.files import identity_of, read_json, sha256_of_file, write_json, write_text
from nrmap.support.layout import Layout
from nrmap.support.records import Record, read_records, write_records

PAGE, TABLES, FIGURES = "index.html", "tables", "figures"
# Differences between two policies, the only measurements that the report itself makes.
DIFFERENCES = "differences.json"
# The identity of the report's inputs and code, and the names of its files.
MANIFEST = "manifest.json"


def ensure_report(outputs: Path) -> tuple[Path, list[Table], bool]:
    """Build the report of `outputs`; returns its page, its tables, and whether anything was built.

    Nothing is built while the inputs, the code and the report's own files are unchanged. Raises
    NrmapError when the folder is missing or cannot be written.
    """
    check(outputs.is_dir(), f"no outputs folder {outputs}: run make reproduce, or name another with --outputs")
    folder = Layout(outputs).report
    identity = identity_of({"inputs": digest_of_inputs(outputs), "code": _digest_of_code()})
    found = find(outputs)
    differences = _differences_of(folder, identity)
    if differences is not None:
        return folder / PAGE, all_tables(replace(found, differences=tuple(differences))), False
    found = with_differences(found)
    write_records(folder / DIFFERENCES, found.differences)
    tables = all_tables(found)
    written = write_tables(tables, [*found.records, *found.differences], folder / TABLES)
    parts, problems = [], list(found.problems)
    figures: set[str] = set()
    for source in game_sources(found):
        sets, unreadable = map_sets(source, outputs)
        overlays, without = overlay_sheets(source, sets, outputs)
        charts = chart_panels(source)
        sheets = [*map_sheets(source, sets), *overlays]
        sheets += [chart_sheet(source, name, panels) for name, panels in charts.items()]
        figures |= _save(sheets, folder / FIGURES)
        parts.append(GamePart(source, sets, charts, overlays))
        problems += [*unreadable, *without]
    _remove_others(folder / FIGURES, figures)
    _remove_others(folder / TABLES, written)
    write_text(folder / PAGE, build_page(found, tables, parts, list(dict.fromkeys(problems))))
    files = [PAGE, DIFFERENCES, *(f"{TABLES}/{name}" for name in written), *(f"{FIGURES}/{name}" for name in figures)]
    write_json(folder / MANIFEST, {"identity": identity, "files": sorted(files)})
    return folder / PAGE, tables, True


def all_tables(found: Found) -> list[Table]:
    """The tables over all games, except for empty tables."""
    maps = (sparsity_table, control_table, grid_table, entropy_table, measure_table)
    of_differences = (difference_table, seed_difference_table)
    tables = [
        table1(found.records, reference=found.reference),
        *(build(found.differences, reference=found.reference) for build in of_differences),
        *(build(found.records, reference=found.reference) for build in (returns_table, *maps, q_gap_table)),
    ]
    return [table for table in tables if table.rows]


def write_tables(tables: Iterable[Table], records: Sequence[Record], folder: Path) -> set[str]:
    """Write each table as CSV, Markdown and LaTeX, and all records as CSV; returns the names of the files."""
    actions = [action_table(records, game) for game in sorted({record.game for record in records})]
    texts = {"records.csv": records_csv(records)} if records else {}
    for table in (*tables, *(table for table in actions if table.rows)):
        texts |= {f"{table.name}.{kind}": write(table) for kind, write in TABLE_WRITERS.items()}
    for name, text in texts.items():
        write_text(folder / name, text)
    return set(texts)


def records_csv(records: Iterable[Record]) -> str:
    """All records, a column for every field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Record)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    return text.getvalue()


def _save(sheets: Iterable[Sheet], folder: Path) -> set[str]:
    paths = [save_sheet(sheet, folder) for sheet in sheets]
    return {path.with_suffix(ending).name for path in paths for ending in (".pdf", ".png")}


def _remove_others(folder: Path, keep: set[str]) -> None:
    """Remove the files of an earlier report."""
    for path in folder.glob("*"):
        if path.is_file() and path.name not in keep:
            path.unlink()


def _digest_of_code() -> dict[str, str]:
    """The hashes of the code and texts behind the page, and the versions of the libraries that draw it."""
    roots = [Path(str(package.__file__)).parent for package in (analyze, nrmap)]
    files = ((root, path) for root in roots for path in root.rglob("*"))
    hashes = {
        str(path.relative_to(root.parent)): sha256_of_file(path)
        for root, path in files
        if path.suffix in (".py", ".css", ".js", ".html")
    }
    hashes[DEVIATIONS_FILE.name] = sha256_of_file(DEVIATIONS_FILE)
    versions = {"matplotlib": matplotlib.__version__, "numpy": numpy.__version__, "scipy": scipy.__version__}
    return {**hashes, **versions, "jinja2": jinja2.__version__}


def _differences_of(folder: Path, identity: str) -> list[Record] | None:
    """The differences in the report in `folder`; None unless it is of this identity and whole."""
    try:
        manifest = read_json(folder / MANIFEST)
        whole = all((folder / name).is_file() for name in manifest["files"])
        return read_records(folder / DIFFERENCES) if whole and manifest["identity"] == identity else None
    except UNREADABLE:
        return None
