"""The order of imports that CONTRIBUTING.md states."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("support", "statistics", "atari", "policies", "robustness", "ablation", "play", "maps", "learning")


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {".".join(filter(None, (getattr(node, "module", ""), name.name))) for node in nodes for name in node.names}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_from_those_before_it(folder):
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    for path in (ROOT / "nrmap" / folder).rglob("*.py"):
        for name in imported(path):
            top, _, rest = name.partition(".")
            assert top not in ("train", "analyze", "bench", "conf"), f"{path}: {name}"
            assert top != "nrmap" or not rest or rest.partition(".")[0] in allowed, f"{path}: {name}"
