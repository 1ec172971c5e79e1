"""Write the tables of speed and cost in docs/ from outputs/bench/*.json: `python -m bench.documents`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from analyze.documents import with_blocks, write_documents
from bench import cost, gpu_tables, maps, train
from nrmap.support.errors import errors_in_one_line
from nrmap.support.files import read_json

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ROOT / "outputs" / "bench"


def documents() -> dict[Path, str]:
    """Return the texts of documents in docs/, by path, with tables of the measurements.

    Raises NrmapError for a missing or damaged file, except that results of bench.gpu may be missing.
    """
    of_maps = read_json(MEASUREMENTS / "maps.json")
    of_training = [read_json(MEASUREMENTS / name) for name in ("train.json", "train-avx2.json")]
    blocks = {
        "speed.md": {
            "training-speed": "\n\n".join(_section(train.tables(each), each["machine"]) for each in of_training)
        },
        "ablation.md": {"engine": _section([*maps.tables(of_maps), _counts(of_maps)], of_maps["machine"])},
        "clusters.md": {"cost": cost.study_page(MEASUREMENTS)},
        "scale.md": {"gpu": of_gpu(MEASUREMENTS)},
    }
    return {ROOT / "docs" / name: with_blocks(ROOT / "docs" / name, content) for name, content in blocks.items()}


def of_gpu(folder: Path) -> str:
    """Return Markdown tables of the results of bench.gpu in `folder`, or "Not measured." without results."""
    found = [
        read_json(path) if path.is_file() else {} for path in (folder / "train-cuda.json", folder / "maps-cuda.json")
    ]
    machine = next((each["machine"] for each in found if each.get("machine")), None)
    if machine is None:
        return "Not measured."
    return _section(gpu_tables.tables(*found), {**machine, "processor": f"{machine['gpu']}, {machine['processor']}"})


def _section(tables: Sequence[Table], machine: dict[str, Any]) -> str:
    measured = f"Measured on {machine['processor']}, {machine['cores']} cores, commit {machine['commit']}."
    return "\n\n".join([measured, *map(as_markdown, tables)])


def as_markdown(table: Table) -> str:
    """Return a rich table with its title and caption as Markdown."""
    headings = [str(column.header) for column in table.columns]
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows)]
    parts = (f"**{table.title}**" if table.title else "", "\n".join(lines), str(table.caption or ""))
    return "\n\n".join(part for part in parts if part)


def _counts(results: dict[str, Any]) -> Table:
    """Make a table of the multiply-adds of one state by layer, and of the fraction of units that the engine keeps."""
    table = Table("case", "layer", "multiply-adds, 10⁹", "without V(s)", "units left", title="Operations for one state")
    for case in results["cases"]:
        whole, differences = case["multiply_adds_by_layer"], case["multiply_adds_by_layer_of_differences"]
        for layer in whole:
            left = case["units_left_by_layer"].get(layer)
            counts = [f"{counted[layer] / 1e9:.2f}" for counted in (whole, differences)]
            table.add_row(case["case"], layer, *counts, "" if left is None else f"{left:.0%}")
    return table


@errors_in_one_line()
def main() -> None:
    """Write the documents that change and print their paths; an error prints one line and exits with status 2."""
    write_documents(documents())


if __name__ == "__main__":
    main()
