"""Build the report of an outputs folder: tables, figures and the page, only when something has changed."""

import os
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import analyze
import nrmap
from analyze.report.chart_sheets import chart_sheets
from analyze.report.formats import WRITERS, Cell, Column, Table, to_csv
from analyze.report.load import digest_of_inputs, find
from analyze.report.map_sheets import map_sets, map_sheets, overlay_sheets
from analyze.report.page import DOCUMENTS, Drawings, build_page
from analyze.report.pairing import with_differences
from analyze.report.results import Found
from analyze.report.sheets import save_sheet
from analyze.report.tables import all_tables
from nrmap.support.errors import NrmapError, check
from nrmap.support.files import identity_of, read_json, sha256_of_file, write_json, write_text
from nrmap.support.layout import Layout
from nrmap.support.records import Record, read_records, write_records
from nrmap.support.schema import Word, schema

PAGE, TABLES, FIGURES = "index.html", "tables", "figures"
# Differences between two policies, the only measurements that the report itself makes.
DIFFERENCES = "differences.json"
MANIFEST = "manifest.json"
_SOURCES = (".py", ".css", ".csv", ".js", ".html", ".md", ".mplstyle", ".tex")
_LIBRARIES = ("matplotlib", "numpy", "scipy", "jinja2", "markdown-it-py", "pylatexenc")


@schema
class Manifest:
    """The files of a report, relative to its folder, the hash of the inputs and code that made them, and problems."""

    identity: str
    files: tuple[Word, ...]
    problems: tuple[str, ...]


class Report(NamedTuple):
    """The page and the tables of a report, whether it was built now, and the files it could not use, with reasons."""

    page: Path
    tables: list[Table]
    made: bool
    problems: list[str]


def ensure_report(outputs: Path) -> Report:
    """Return the report of `outputs`; build its page, tables and figures in `outputs`/report if something changed.

    Nothing is built while the inputs and the code are unchanged and no file of the report is missing. Building removes
    every file of no table or figure from these two folders. Raises NrmapError if `outputs` is missing, if the report
    cannot be written or one of these folders is a link, and as `build_page` does.
    """
    check(
        os.path.isdir(outputs), f"no outputs folder {outputs}: run make reproduce, or name another with outputs=FOLDER"
    )
    folder = Layout(outputs).report
    for made in (folder / TABLES, folder / FIGURES):
        check(not made.is_symlink(), f"cannot write {made}: it is a link, and old files in it would be removed")
    identity = identity_of({"inputs": digest_of_inputs(outputs), "code": _digest_of_code()})
    found = find(outputs)
    last = _last_report(folder, identity)
    if last is not None:
        differences, known = last
        tables = all_tables(found.records, differences, found.reference)
        return Report(folder / PAGE, tables, made=False, problems=list(dict.fromkeys([*found.problems, *known])))
    found = with_differences(found)
    tables = all_tables(found.records, found.differences, found.reference)
    write_records(folder / DIFFERENCES, found.differences)
    texts = {f"{table.name}.{ending}": write(table) for table in tables for ending, write in WRITERS.items()}
    if found.records:
        texts["records.csv"] = to_csv(_records_table(found))
    for name, text in texts.items():
        write_text(folder / TABLES / name, text)
    drawings, problems = [], list(found.problems)
    figures: set[str] = set()
    for part in found.parts():
        sets, unreadable = map_sets(part, outputs)
        overlays, without = overlay_sheets(part, sets, outputs)
        drawn = Drawings(part, [*map_sheets(part, sets), *overlays], chart_sheets(part))
        paths = [save_sheet(sheet, folder / FIGURES) for sheet in (*drawn.maps, *drawn.charts)]
        figures |= {path.with_suffix(ending).name for path in paths for ending in (".pdf", ".png")}
        drawings.append(drawn)
        problems += [*unreadable, *without]
    for place, names in ((TABLES, set(texts)), (FIGURES, figures)):
        for path in (folder / place).glob("*"):
            if path.is_file() and path.name not in names:  # of an earlier report
                path.unlink()
    problems = list(dict.fromkeys(problems))
    write_text(folder / PAGE, build_page(found, tables, drawings, problems))
    files = [PAGE, DIFFERENCES, *(f"{TABLES}/{name}" for name in texts), *(f"{FIGURES}/{name}" for name in figures)]
    write_json(folder / MANIFEST, {"identity": identity, "files": sorted(files), "problems": problems})
    return Report(folder / PAGE, tables, made=True, problems=problems)


def _records_table(found: Found) -> Table:
    """Build a table with a column for every field of Record, and one for the folder of its metrics.json."""
    names = [field.name for field in fields(Record)]
    records = [*zip(found.records, found.folders, strict=True), *((record, None) for record in found.differences)]
    rows = tuple((*(Cell(getattr(record, name)) for name in names), Cell(folder)) for record, folder in records)
    return Table("records", "Every value", tuple(Column(name, name) for name in (*names, "folder")), rows)


def _digest_of_code() -> dict[str, str]:
    """Hash the code and texts that make the page, by path; also return the versions of the libraries used."""
    roots = [Path(str(package.__file__)).parent for package in (analyze, nrmap)]
    files = [(root, path) for root in roots for path in root.rglob("*") if path.suffix in _SOURCES]
    files += [(path.parent, path) for path in DOCUMENTS]
    hashes = {str(path.relative_to(root.parent)): sha256_of_file(path) for root, path in files}
    return hashes | {library: version(library) for library in _LIBRARIES}


def _last_report(folder: Path, identity: str) -> tuple[list[Record], tuple[str, ...]] | None:
    """Read differences and problems of the report in `folder`; None if it is incomplete or has another identity."""
    try:
        manifest = read_json(folder / MANIFEST, Manifest)
        whole = all((folder / name).is_file() for name in manifest.files)
        if whole and manifest.identity == identity:
            return read_records(folder / DIFFERENCES), manifest.problems
    except NrmapError:
        pass
    return None
