"""Benchmark of ablation maps against captum and dense batches: `python -m bench.maps`.

Writes outputs/bench/maps.json. Contenders take turns, each in its own process; ratios are taken
within a round. Dense batches and captum use their fastest batch size.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from bench import map_contenders as contenders
from bench.map_cases import CASES, Case, make_cases, resized_case
from bench.paired import Entry, Work, race, ratio, show_and_write
from bench.second_temperature import second_temperature
from bench.train import machine
from bench.train_contenders import matrix_product
from conf.argument_parser import ArgumentParser, whole
from nrmap.support.errors import errors_in_one_line

TRAINED = (
    Path("outputs/reference/quick/Freeway/ddqn/seed0/policy.safetensors"),
    # python -m train env=Freeway env.frame_stack=4 method=ddqn seed=100 scale.steps=100000 precision=float32
    Path("outputs/bench/four_frames.safetensors"),
)
RIVALS: dict[str, Callable[..., Work]] = {
    "dense": partial(contenders.one_by_one, partial(contenders.dense, skip_unchanged=False)),
    "dense_skipping": partial(contenders.one_by_one, partial(contenders.dense, skip_unchanged=True)),
    "feature_ablation": partial(contenders.one_by_one, contenders.feature_ablation),
    "occlusion": partial(contenders.one_by_one, contenders.occlusion),
}


def measure_case(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Make all measurements of one case: an entry of "cases" in maps.json."""
    best = {
        rival: _apart(contenders.best_batch_size, prepare, case, options.batch_sizes)
        for rival, prepare in RIVALS.items()
    }
    results = race(
        {
            "incremental": Entry(contenders.incremental, (case,), options.states),
            "differences_only": Entry(contenders.incremental, (case, True), options.states),
            **{rival: Entry(prepare, (case, best[rival]), 1) for rival, prepare in RIVALS.items()},
            "matrix_product": Entry(matrix_product, (), 5),
        },
        options.rounds,
    )
    ratios = {rival: ratio(results["incremental"], results[rival]) for rival in RIVALS}
    product = results["matrix_product"]
    assert product.operations is not None
    by_layer = _apart(contenders.operations_by_layer, case)
    operations = by_layer["sum"]
    exactness, rounding_floor = _apart(contenders.exactness, case, min(options.exact_states, options.states))
    peak, beyond_states = _apart(contenders.peak_memory, case, options.states, "incremental")
    dense_peak, dense_beyond_states = _apart(contenders.peak_memory, case, min(2, options.states), "dense")
    return {
        "case": case.name,
        "weights": case.weights,
        "states": options.states,
        **{f"speedup_vs_{rival}": ratios[rival][0] for rival in RIVALS},
        "speedups_median_low_high": ratios,
        "differences_only_speedup_vs_dense": ratio(results["differences_only"], results["dense"])[0],
        "gflops_fraction": ratio(results["incremental"], product)[0] * operations / product.operations,
        "multiply_adds_per_state": operations / 2,
        "multiply_adds_by_layer": _halved(by_layer),
        "multiply_adds_by_layer_of_differences": _halved(_apart(contenders.operations_by_layer, case, True)),
        "units_left_by_layer": _apart(contenders.units_left, case),
        "max_abs_q_diff": exactness.max_abs_q_diff,
        "argmax_mismatches": exactness.argmax_mismatches,
        "argmax_ties": exactness.argmax_ties,
        "ablations_checked": exactness.ablations,
        "rounding_floor": rounding_floor,
        "peak_rss_mb": peak,
        "peak_rss_beyond_states_mb": beyond_states,
        "dense_peak_rss_mb": dense_peak,
        "dense_peak_rss_beyond_states_mb": dense_beyond_states,
        "seconds_per_state": {name: 1 / results[name].median for name in ("incremental", "differences_only", *RIVALS)},
        "best_batch_size": best,
    }


def _halved(operations: dict[str, float]) -> dict[str, float]:
    return {layer: number / 2 for layer, number in operations.items()}


def growth_with_states(case: Case, options: argparse.Namespace) -> list[dict[str, float]]:
    """Measure the engine's seconds per state and memory, in MiB, for growing numbers of states, a row for each."""
    numbers = [number for number in (1, 4, 16, 64, 256) if number <= options.states] or [options.states]
    results = race({str(n): Entry(contenders.incremental, (case,), n) for n in numbers}, options.rounds)
    rows = []
    for number in numbers:
        _, beyond_states = _apart(contenders.peak_memory, case, number, "incremental")
        seconds = 1 / results[str(number)].median
        rows.append({"states": number, "seconds_per_state": seconds, "peak_rss_beyond_states_mb": beyond_states})
    return rows


def growth_with_image_size(case: Case, folder: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Measure seconds per state of the engine and of dense batches for growing screens, a row for each side."""
    rows = []
    for side in options.sides:
        resized = resized_case(folder, case, side, num_states=min(16, options.states))
        _, states = resized.load()
        results = race(
            {
                "incremental": Entry(contenders.incremental, (resized,), len(states)),
                "dense": Entry(RIVALS["dense"], (resized, 128), 1),
            },
            min(3, options.rounds),
        )
        seconds = {name: 1 / result.median for name, result in results.items()}
        speedup = ratio(results["incremental"], results["dense"])[0]
        rows.append({"side": side, "pixels": side**2, "seconds_per_state": seconds, "speedup_vs_dense": speedup})
    return rows


def _apart(function: Any, *arguments: Any) -> Any:
    """Call `function` in a new process and return its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the content of maps.json, with `folder` for temporary files; print what is being measured."""
    described = machine()
    cases = make_cases(folder, options.policy, options.states, options.cases)
    measured = []
    for case in cases:
        print(case.name, flush=True)
        measured.append(measure_case(case, options))
    print("growth", flush=True)
    product = race({"matrix_product": Entry(matrix_product, (), 5)}, options.rounds)["matrix_product"]
    assert product.operations is not None
    return {
        "cases": measured,
        "growth_with_states": growth_with_states(cases[0], options),
        "growth_with_image_size": growth_with_image_size(cases[0], folder, options),
        "second_temperature": _apart(second_temperature, cases[0].policy, options.map_states, folder / "outputs"),
        "matrix_product_gflops": product.median * product.operations / 1e9,
        "rounds": options.rounds,
        "machine": described,
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Make the tables of `results`, for the terminal and docs/ablation.md."""
    speed = Table("case", "weights", "engine", title="Seconds per state, and how many times faster the engine is")
    speed.add_column("differences only")
    checks = Table("case", "multiply-adds", "of peak", "memory beyond states", "max |ΔQ|", "mismatches", "ties")
    for rival in RIVALS:
        speed.add_column(rival.replace("_", " "))
    for case in results["cases"]:
        seconds, ratios = case["seconds_per_state"], case["speedups_median_low_high"]
        weights = "random" if case["weights"] == "random" else "trained"
        against = [f"{seconds[rival]:.2f} ({ratios[rival][0]:.1f}×)" for rival in RIVALS]
        differences = f"{seconds['differences_only']:.3f} ({case['differences_only_speedup_vs_dense']:.1f}× dense)"
        speed.add_row(case["case"], weights, f"{seconds['incremental']:.3f}", differences, *against)
        checks.add_row(
            case["case"],
            f"{case['multiply_adds_per_state'] / 1e9:.2f} G",
            f"{case['gflops_fraction']:.0%}",
            f"{case['peak_rss_beyond_states_mb']:.0f} MB",
            f"{case['max_abs_q_diff']:.1e}",
            f"{case['argmax_mismatches']} of {case['ablations_checked']:,}",
            str(case["argmax_ties"]),
        )
    speed.caption = f"{results['machine']['processor']}, matrix product {results['matrix_product_gflops']:.0f} GFLOP/s"
    states = Table("states", "seconds per state", "memory beyond states", title="Growth with the number of states")
    for row in results["growth_with_states"]:
        memory = f"{row['peak_rss_beyond_states_mb']:.0f} MB"
        states.add_row(str(row["states"]), f"{row['seconds_per_state']:.3f}", memory)
    sides = Table("screen", "engine", "dense", title="Seconds per state against image size, random weights")
    for row in results["growth_with_image_size"]:
        seconds = row["seconds_per_state"]
        dense = f"{seconds['dense']:.2f} ({row['speedup_vs_dense']:.1f}×)"
        sides.add_row(f"{row['side']} × {row['side']}", f"{seconds['incremental']:.3f}", dense)
    stage = Table("states", "first temperature", "second", "times shorter", title="Seconds of the maps stage")
    maps = results["second_temperature"]
    seconds = (f"{maps[key]:.1f}" for key in ("first_seconds", "second_seconds", "speedup"))
    stage.add_row(f"{maps['states']:,}", *seconds)
    return [speed, checks, states, sides, stage]


@errors_in_one_line()
def main() -> None:
    """Measure, print the tables and write the results; an error prints one line and exits with status 2."""
    parser = ArgumentParser(prog="python -m bench.maps", description=(__doc__ or "").partition("\n")[0])
    default = [path for path in TRAINED if path.is_file()]

    def add(name: str, *, explained: str, **options: Any) -> None:
        parser.add_argument(name, help=f"{explained}; default: %(default)s", **options)

    explained = "trained policies instead of random weights; the dueling one-frame policy also plays the episodes"
    parser.add_argument(
        "--policy", type=Path, nargs="*", default=default, metavar="FILE",
        help=f"{explained}; default: {' '.join(map(str, default))}",
    )  # fmt: skip
    explained = f"networks to time: {', '.join(CASES)}; growth is measured on the first"
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=f"{explained}; default: all"
    )
    add("--states", type=whole(), default=64, explained="states of a timing")
    add("--exact-states", type=whole(), default=16, explained="states compared with float64")
    add("--rounds", type=whole(), default=5, explained="timings of each contender")
    add("--batch-sizes", type=whole(), nargs="+", default=[32, 64, 128, 256, 512], explained="tried for each rival")
    add("--sides", type=whole(), nargs="+", default=[42, 60, 84, 120, 168], explained="sides of the screen in pixels")
    add("--map-states", type=whole(), default=1024, explained="states of the maps stage with a second temperature")
    add("--output", type=Path, default=Path("outputs/bench/maps.json"), explained="file of the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options)
    show_and_write(results, tables(results), options.output)


if __name__ == "__main__":
    main()
