"""Estimate the cost of the paper's study from measured speeds: `python -m bench.cost` prints Markdown tables.

Reads outputs/bench/train.json (python -m bench.train) and outputs/bench/host.json, which `--measure`
writes in a minute; `make bench-gpu` writes host-cuda.json on a machine with a GPU.
docs/clusters.md explains the model and its limits.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.host import measure
from conf.argument_parser import ParserWithDefaults, whole
from conf.command_line import composed
from conf.schema import TrainKeys
from conf.train_settings import train_settings
from nrmap.learning.settings import TrainSettings
from nrmap.support.errors import check, code_of_others, errors_in_one_line
from nrmap.support.files import read_json, write_json
from nrmap.support.schema import validated

METHODS = ("ddqn", "sa_ddqn")
HOUR = 3600.0
MADE_BY = {"train.json": "python -m bench.train", "host.json": "python -m bench.cost --measure"}
GPU_FILE = "host-cuda.json"


@dataclass(frozen=True)
class StudyPlan:
    """Amount of work: games × seeds, each with a vanilla policy and a robust policy that starts from it."""

    games: int
    seeds: int
    trainings: Mapping[str, TrainSettings]  # by method
    num_states: int  # of each policy's own episodes; the pool has this many per method
    null_networks: int  # draws of random and of shuffled weights, each mapped on the pool

    @property
    def chains(self) -> int:
        """Number of chains: a vanilla training and the robust training that waits for it."""
        return self.games * self.seeds

    @property
    def ablated_states(self) -> int:
        """States ablated per chain: both policies on their own states and on the pool, null networks on the pool.

        Both policies share the networks with random weights; each has its own shuffled networks.
        """
        own, pool = self.num_states, 2 * self.num_states
        random, shuffled = self.null_networks, 2 * self.null_networks
        return 2 * own + (2 + random + shuffled) * pool


@dataclass(frozen=True)
class Speeds:
    """Seconds on one worker: a GPU with some CPU cores, or the CPU cores of one job."""

    collecting: float  # of an agent step: emulator, acting, replay
    updates: Mapping[str, float]  # of one update, by method
    ablating: float  # of one state


@dataclass(frozen=True)
class Cost:
    """Cost of the study in hours."""

    trainings: Mapping[str, float]  # of one training, by method
    maps: float  # of one chain
    worker_hours: float  # all chains
    wall_hours: float  # with all workers running in parallel


def training_hours(settings: TrainSettings, speeds: Speeds) -> float:
    """Hours of one training: collecting all agent steps, and one update per `steps_per_update` after the warm-up."""
    updates = (settings.steps - settings.warm_up_steps) / settings.steps_per_update
    return (settings.steps * speeds.collecting + updates * speeds.updates[settings.method]) / HOUR


def cost(study: StudyPlan, speeds: Speeds, workers: int) -> Cost:
    """Return the cost of the study on `workers` equal workers; each chain and its maps stay on one worker."""
    trainings = {method: training_hours(settings, speeds) for method, settings in study.trainings.items()}
    maps = study.ablated_states * speeds.ablating / HOUR
    chain = sum(trainings.values()) + maps
    rounds = -(-study.chains // workers)
    return Cost(trainings, maps, study.chains * chain, rounds * chain)


def paper_study(games: int, seeds: int) -> StudyPlan:
    """Return the plan of the study with the settings of scale=paper in conf/."""
    keys = {method: validated(TrainKeys, composed("train", "scale=paper", f"method={method}")) for method in METHODS}
    trainings = {method: train_settings(each) for method, each in keys.items()}
    analysis = keys["ddqn"].scale["analysis"]
    return StudyPlan(games, seeds, trainings, num_states=analysis["num_states"], null_networks=analysis["controls"])


def cpu_speeds(train: Mapping[str, Any], host: Mapping[str, Any]) -> Speeds:
    """Return the speeds of a CPU job from the content of train.json and host.json, measured one job at a time."""
    rates = {method: statistics.median(train["updates_per_second"][method]["rates"]) for method in METHODS}
    return Speeds(
        collecting=host["collecting_seconds_per_step"],
        updates={method: 1 / rate for method, rate in rates.items()},
        ablating=host["ablating_seconds_per_state"],
    )


def gpu_speeds(host: Mapping[str, Any]) -> Speeds:
    """Return the speeds of a GPU from the content of host-cuda.json."""
    return Speeds(
        collecting=host["collecting_seconds_per_step"],
        updates={method: host["update_milliseconds"][method] / 1000 for method in METHODS},
        ablating=host["ablating_seconds_per_state"],
    )


def read_measurements(folder: Path) -> dict[str, Any]:
    """Read the measurements in `folder`, by file name; those of a GPU only if they were made and finished.

    Raises NrmapError for a damaged file, and for a missing one with the command that makes it.
    """
    for name, command in MADE_BY.items():
        check((folder / name).is_file(), f"no file {folder / name}; make it with {command}")
    found = {name: read_json(folder / name) for name in MADE_BY}
    of_gpu = read_json(folder / GPU_FILE) if (folder / GPU_FILE).is_file() else {}
    return {**found, GPU_FILE: of_gpu} if of_gpu.get("status", "ok") == "ok" and of_gpu else found


def measured_on(files: Mapping[str, Any]) -> str:
    """Name in one sentence the machine of the measurements, or each machine and its files if there are several."""
    names = defaultdict(list)
    for name, content in files.items():
        machine = content["machine"]
        with_gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
        names[f"{machine['processor']}, {machine['cores']} cores{with_gpu}"].append(name)
    if len(names) == 1:
        return f"Measured on {next(iter(names))}."
    places = [f"{' and '.join(there)} on {machine}" for machine, there in names.items()]
    return f"Not measured on one machine: {'; '.join(places)}."


def page(
    study: StudyPlan, speeds: Mapping[str, Speeds | None], workers: Mapping[str, int], files: Mapping[str, Any]
) -> str:
    """Return two Markdown tables: `speeds` by kind of worker, and the study on a number of `workers` of each kind.

    Speeds of None are shown as not measured. A kind in `workers` may have a plural s. `files` holds the content of the
    files of measurements by name.
    """
    steps, host = study.trainings["ddqn"].steps, files["host.json"]
    lines = [
        f"{study.games} games × {study.seeds} seeds × {len(METHODS)} methods at {steps:,} agent steps, "
        f"{study.ablated_states:,} states ablated for each game and seed, null networks included.",
        "",
        f"{measured_on(files)} Memory of a training: {host['training_rss_mb'] / 1024:.1f} GB. A checkpoint: "
        f"{host['checkpoint_mb']:.0f} MB, written in {host['checkpoint_seconds']:.2f} s; going on from one plays what "
        f"the replay holds again, {10_000 * host['replaying_seconds_per_step']:.1f} s for 10,000 steps.",
        "",
        "| worker | agent step | update, ddqn | update, sa_ddqn | state | training, ddqn | training, sa_ddqn | maps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, speed in speeds.items():
        if speed is None:
            lines.append(f"| {name} | not measured | | | | | | |")
            continue
        one = cost(study, speed, 1)
        milliseconds = [speed.collecting, *(speed.updates[method] for method in METHODS), speed.ablating]
        hours = [*(one.trainings[method] for method in METHODS), one.maps]
        cells = [f"{1000 * value:.2f} ms" for value in milliseconds] + [f"{value:.1f} h" for value in hours]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| workers | worker hours | days until done |", "|---|---|---|"]
    for name, number in workers.items():
        speed = speeds[name.removesuffix("s")]
        if speed is None:
            lines.append(f"| {number} {name} | not measured | |")
            continue
        whole = cost(study, speed, number)
        lines.append(f"| {number} {name} | {whole.worker_hours:,.0f} | {whole.wall_hours / 24:.1f} |")
    return "\n".join(lines)


def study_page(folder: Path, *, games: int = 4, seeds: int = 5, gpus: int = 20, cpu_jobs: int = 20) -> str:
    """Return the tables of `page` for the paper's study, from the measurements in `folder`.

    Raises NrmapError if a file is missing, damaged or not of these measurements.
    """
    files, study = read_measurements(folder), paper_study(games, seeds)
    workers = {"GPU": 1, "GPUs": gpus, "CPU jobs": cpu_jobs}
    with code_of_others(f"the measurements in {folder} are not those of {' and '.join(MADE_BY.values())}"):
        cpu = cpu_speeds(files["train.json"], files["host.json"])
        gpu = gpu_speeds(files[GPU_FILE]) if GPU_FILE in files else None
        return page(study, {"GPU": gpu, "CPU job": cpu}, workers, files)


@errors_in_one_line()
def main() -> None:
    """With --measure first measure and write host.json; print the tables. An error prints one line, exit status 2."""
    parser = ParserWithDefaults(prog="python -m bench.cost", description=(__doc__ or "").partition("\n")[0])
    add = partial(parser.add_argument, type=whole())
    add("--games", default=4, help="games of the study")
    add("--seeds", default=5, help="seeds for each game")
    add("--gpus", default=20, help="number of GPUs in the row with several")
    add("--cpu-jobs", default=20, help="jobs at a time on the CPU cluster")
    parser.add_argument("--measure", action="store_true", help="measure this machine first; writes host.json")
    add("--agent-steps", default=4096, help="agent steps of the measurement")
    parser.add_argument("--folder", type=Path, default=Path("outputs/bench"), help="folder of the measurements")
    options = parser.parse_args()
    if options.measure:
        trainings = paper_study(options.games, options.seeds).trainings
        write_json(options.folder / "host.json", measure(trainings, "cpu", options.agent_steps))
    print(study_page(
        options.folder, games=options.games, seeds=options.seeds, gpus=options.gpus, cpu_jobs=options.cpu_jobs
    ))  # fmt: skip


if __name__ == "__main__":
    main()
