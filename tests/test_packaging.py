"""The wheel, whose packages land in somebody's site-packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_holds_nrmap_and_nothing_else(tmp_path):
    for name in ("nrmap", "train", "analyze", "conf", "bench"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"nrmap"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "nrmap").rglob("*.py")}
    assert {*sources, "nrmap/py.typed"} <= set(names)
