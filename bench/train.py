"""Benchmark of training against stable-baselines3 and a plain SA-DDQN: `python -m bench.train`.

Writes outputs/bench/train.json. Contenders take turns, so the ratios also hold on a busy machine;
the speeds do not. All loops have the same game, network, batch, replay ratio, target period and
learning rate, uniform replay, one-step targets, no Double-Q and an exploration rate of 5%.
stable-baselines3 uses ale-py's native emulators, which are faster than its usual Python wrappers.
"""

import argparse
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from bench import train_contenders as contenders
from bench.paired import Entry, Result, race, ratio, show_and_write
from conf.argument_parser import ParserWithDefaults, whole
from nrmap.support.errors import errors_in_one_line
from nrmap.support.runtime import choose_precision, provenance

OUR_UPDATES = ("ddqn", "sa_ddqn", "sa_ddqn_ibp", "ddqn_float32", "sa_ddqn_float32")


def updates(rounds: int, amount: int) -> dict[str, Result]:
    """Measure updates per second of DDQN and SA-DDQN, ours and plain, and matrix products per second, by name."""
    return race(
        {
            "ddqn": Entry(contenders.our_update, (None, "auto"), 4 * amount),
            "sa_ddqn": Entry(contenders.our_update, ("pgd", "auto"), amount),
            "sa_ddqn_ibp": Entry(contenders.our_update, ("ibp", "auto"), amount),
            "ddqn_float32": Entry(contenders.our_update, (None, "float32"), 4 * amount),
            "sa_ddqn_float32": Entry(contenders.our_update, ("pgd", "float32"), amount),
            "plain_sa_ddqn": Entry(contenders.plain_update, (False,), amount),
            "plain_sa_ddqn_keeping_memory": Entry(contenders.plain_update, (True,), amount),
            "matrix_product": Entry(contenders.matrix_product, (), 3),
            "matrix_product_auto": Entry(contenders.matrix_product, (choose_precision("auto", contenders.CPU),), 3),
        },
        rounds,
    )


def loops(rounds: int, agent_steps: int, num_envs: list[int]) -> dict[str, dict[int, Result]]:
    """Measure agent steps per second of our loop in both precisions, and of stable-baselines3's.

    Returns the results by loop ("ours", "float32", "sb3") and number of environments.
    """
    entries = {}
    for number in num_envs:
        entries["ours", number] = Entry(contenders.our_loop, (number, "auto"), agent_steps)
        entries["float32", number] = Entry(contenders.our_loop, (number, "float32"), agent_steps)
        entries["sb3", number] = Entry(contenders.stable_baselines3_loop, (number,), agent_steps)
    results = race({f"{name} {number}": entry for (name, number), entry in entries.items()}, rounds)
    return {name: {number: results[f"{name} {number}"] for number in num_envs} for name, _ in entries}


def fraction_of_peak(update: Result, product: Result) -> float:
    """Return operations per second of `update` as a fraction of those of `product`, the median over the rounds."""
    assert update.operations is not None
    assert product.operations is not None
    return ratio(update, product)[0] * update.operations / product.operations


def machine() -> dict[str, Any]:
    """Describe the machine, its load now, and the versions of the software."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = models[0] if models else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        **provenance(),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the content of train.json."""
    described = machine()
    by_update = updates(options.rounds, options.updates)
    by_loop = loops(options.rounds, options.agent_steps, options.num_envs)
    ratios, ratios_float32 = (
        {number: ratio(by_loop[name][number], by_loop["sb3"][number]) for number in options.num_envs}
        for name in ("ours", "float32")
    )
    headline = contenders.HEADLINE_ENVS if contenders.HEADLINE_ENVS in ratios else options.num_envs[-1]
    plain = ratio(by_update["sa_ddqn"], by_update["plain_sa_ddqn"])
    plain_float32 = ratio(by_update["sa_ddqn_float32"], by_update["plain_sa_ddqn"])
    keeping = ratio(by_update["sa_ddqn"], by_update["plain_sa_ddqn_keeping_memory"])
    intervals = ratio(by_update["sa_ddqn_ibp"], by_update["sa_ddqn"])
    peaks = {name: "matrix_product" if name.endswith("32") else "matrix_product_auto" for name in OUR_UPDATES}
    return {
        "sps_ratio_vs_sb3": ratios[headline][0],
        "sps_ratio_vs_sb3_float32": ratios_float32[headline][0],
        "sps_ratio_vs_sb3_num_envs": headline,
        "sa_update_ratio_vs_plain": plain[0],
        "sa_update_ratio_vs_plain_float32": plain_float32[0],
        "ibp_update_ratio_vs_pgd": intervals[0],
        "precision": str(choose_precision("auto", contenders.CPU)).removeprefix("torch."),
        "fraction_of_matmul_peak": {
            name: fraction_of_peak(by_update[name], by_update[peak]) for name, peak in peaks.items()
        },
        "sps_by_num_envs": {str(number): result.median for number, result in by_loop["ours"].items()},
        "float32_sps_by_num_envs": {str(number): result.median for number, result in by_loop["float32"].items()},
        "sb3_sps_by_num_envs": {str(number): result.median for number, result in by_loop["sb3"].items()},
        "ratios_median_low_high": {
            **{f"sps vs sb3, {number} environments": values for number, values in ratios.items()},
            **{f"sps vs sb3, {number} environments, float32": values for number, values in ratios_float32.items()},
            "sa update vs plain": plain,
            "sa update vs plain, float32": plain_float32,
            "sa update vs plain with memory kept": keeping,
            "ibp update vs pgd": intervals,
        },
        "updates_per_second": {name: asdict(result) for name, result in by_update.items()},
        "rounds": options.rounds,
        "agent_steps_per_round": options.agent_steps,
        "machine": described,
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Make the tables of `results`, for the terminal and docs/speed.md."""
    updates = Table("update (batch 32, dueling)", "per second", "of its matrix product's peak", title="Updates")
    for name, values in results["updates_per_second"].items():
        rates = sorted(values["rates"])
        share = results["fraction_of_matmul_peak"].get(name)
        updates.add_row(name, f"{rates[len(rates) // 2]:.1f}", "" if share is None else f"{share:.0%}")
    ratios = results["ratios_median_low_high"]
    precision = results["precision"]
    loops = Table("environments", "ours", "stable-baselines3", "ratio", title="Agent steps per second (plain DQN)")
    loops.add_column("ratio in float32")
    for number, ours in sorted(results["sps_by_num_envs"].items(), key=lambda item: int(item[0])):
        name, theirs = f"sps vs sb3, {number} environments", results["sb3_sps_by_num_envs"][number]
        shown = [_times(ratios[name]), _times(ratios[f"{name}, float32"])]
        loops.add_row(number, f"{ours:.0f}", f"{theirs:.0f}", *shown)
    loops.caption = f"Ours: {precision}."
    exact = f", {_times(ratios['sa update vs plain, float32'])} in float32" if precision != "float32" else ""
    updates.caption = (
        f"Updates of SA-DDQN per second, relative to the plain ones: {_times(ratios['sa update vs plain'])} in "
        f"{precision}{exact}. With interval bounds, relative to PGD-5: {_times(ratios['ibp update vs pgd'])}."
    )
    return [updates, loops]


def _times(values: tuple[float, float, float]) -> str:
    middle, low, high = values
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


@errors_in_one_line()
def main() -> None:
    """Measure, print the tables and write the results; an error prints one line and exits with status 2."""
    parser = ParserWithDefaults(prog="python -m bench.train", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=whole(), default=9, help="timings of each contender")
    parser.add_argument("--updates", type=whole(), default=20, help="SA-DDQN updates in a timing")
    parser.add_argument("--agent-steps", type=whole(), default=2048, help="agent steps in a timing of a loop")
    parser.add_argument("--num-envs", type=whole(), nargs="+", default=[1, 2, 4, 8, 16, 32], help="environments")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/train.json"), help="file of the results")
    options = parser.parse_args()
    results = measure(options)
    show_and_write(results, tables(results), options.output)


if __name__ == "__main__":
    main()
