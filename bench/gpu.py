"""Run all tests and benchmarks that need a GPU: `python -m bench.gpu`, or `make bench-gpu`.

Each stage runs in its own process under its own time limit. A stage that fails or runs out of time keeps the
results it has, and the next one starts. The results are outputs/bench/train-cuda.json, maps-cuda.json and
host-cuda.json, rewritten after every stage. `--device cpu` rehearses the command on a machine without a GPU
and writes train-cpu.json and so on.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

WHEELS = Path("bench/wheels")
# For each stage the file of its results and the largest fraction of --minutes it may take; the last may take the rest.
STAGES = {
    "tests": ("train", 0.15),
    "updates": ("train", 0.2),
    "maps": ("maps", 0.2),
    "side_by_side": ("train", 0.2),
    "attack": ("train", 0.1),
    "host": ("host", 0.15),
    "training": ("train", 0.1),
}


def main() -> None:
    """Run the stages, write their files, print a table; exit with status 1 if a stage failed or ran out of time."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu rehearses; default: cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit of all stages; default: 9")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"), help="folder of the results")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here: --device cpu rehearses the command")
    end, failed = time.monotonic() + 60 * options.minutes, False
    with tempfile.TemporaryDirectory() as folder:
        environment = with_wheels(Path(folder))
        content: dict[str, dict[str, Any]] = {}
        for number, stage in enumerate(options.stages):
            file, fraction = STAGES[stage]
            left = end - time.monotonic()
            last = number + 1 == len(options.stages)
            limit = left if last else min(60 * options.minutes * fraction, left)
            print(f"{stage}: at most {limit:.0f} s", flush=True)
            found = run_stage(stage, options.device, limit, environment, Path(folder))
            failed |= found["status"] != "ok"
            name = f"{file}-{options.device}.json"
            of_file = content.setdefault(name, {})
            if stage == "host":  # bench.cost reads its keys from the top of the file
                of_file |= found
            else:
                of_file[stage] = found
            of_file["machine"] = found.pop("machine", of_file.get("machine"))
            write(options.output / name, of_file)
    print_table(content)
    print(*(options.output / name for name in content), sep="\n")
    sys.exit(1 if failed else 0)


def with_wheels(folder: Path) -> dict[str, str]:
    """Return the environment variables of the stages. Install bench/wheels into `folder` if this Python lacks ale_py.

    Raises CalledProcessError if pip fails.
    """
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "WANDB_MODE": "disabled",
    }
    wheels = sorted(str(path) for path in WHEELS.glob("*.whl"))
    if importlib.util.find_spec("ale_py") is None and wheels:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*install, "--target", str(folder / "site"), *wheels], check=True)
        environment["PYTHONPATH"] = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    return environment


def command_of(stage: str, device: str, limit: float, output: Path) -> list[str]:
    """Return the command of a stage that should take under `limit` seconds and write its results to `output`.

    The stage "tests" prints its results instead, and has no limit.
    """
    if stage == "tests":
        paths = sorted(str(path) for path in Path().glob("tests/**/test_*.py") if "mark.cuda" in path.read_text())
        return [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", *paths]
    seconds = f"{max(0.6 * limit, 1):.1f}"  # imports and warming up take the rest
    command = [sys.executable, "-m", "bench.gpu_stages", stage, "--device", device]
    return [*command, "--seconds", seconds, "--output", str(output)]


def run_stage(stage: str, device: str, limit: float, environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Run a stage for at most `limit` seconds; return its results, `status` (ok, failed, out of time) and seconds."""
    output, log = folder / f"{stage}.json", folder / f"{stage}.log"
    command = command_of(stage, device, limit, output)
    begun = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=dict(environment), start_new_session=True
        )
        try:
            status = "ok" if process.wait(timeout=max(limit, 1)) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:  # its own children too
            if process.poll() is None or stage == "side_by_side":
                _end(process)
    text = log.read_text(errors="replace").strip()
    found: dict[str, Any] = json.loads(output.read_text()) if output.is_file() else {}
    if stage == "tests":
        found = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    found |= {"status": status, "stage_seconds": round(time.monotonic() - begun, 1)}
    if status == "failed":
        found["last_lines"] = text.splitlines()[-12:]
        print(*found["last_lines"], sep="\n", flush=True)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, atomically. `nrmap.support.files` may not import here: this Python may lack packages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)


def print_table(content: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one line for every value that is no list, by file and stage."""
    for name, of_file in content.items():
        print(f"\n{name}")
        for key, value in sorted(_flat(of_file)):
            print(f"  {key:60} {value:.4g}" if isinstance(value, float) else f"  {key:60} {value}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} ")
        elif not isinstance(value, list):
            rows.append((f"{prefix}{name}", value))
    return rows


if __name__ == "__main__":
    main()
