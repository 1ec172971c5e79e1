"""How fast training is, beside stable-baselines3 and beside a plain SA-DDQN: `python -m bench.train`.

Writes outputs/bench/train.json. Contenders take turns, so the ratios hold on a busy machine too,
though the speeds themselves do not. The loops get the same game, network, batch, replay ratio,
target period and learning rate, uniform replay, one-step targets, no Double-Q and an exploration
rate of 5%. stable-baselines3 is given ale-py's native emulators, on which it runs faster than on
the Python wrappers that it is used with.
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
from nrmap.runtime import provenance


def updates(rounds: int, amount: int) -> dict[str, Result]:
    """Updates per second of DDQN and SA-DDQN, ours and plain, and products of matrices per second."""
    return race(
        {
            "ddqn": Entry(contenders.our_update, (True, False), 4 * amount),
            "sa_ddqn": Entry(contenders.our_update, (True, True), amount),
            "plain_sa_ddqn": Entry(contenders.plain_update, (False,), amount),
            "plain_sa_ddqn_keeping_memory": Entry(contenders.plain_update, (True,), amount),
            "matrix_product": Entry(contenders.matrix_product, (), 3),
        },
        rounds,
    )


def loops(rounds: int, agent_steps: int, num_envs: list[int]) -> tuple[dict[int, Result], dict[int, Result]]:
    """Agent steps per second of our loop and of stable-baselines3's, each by its number of environments."""
    entries = {}
    for number in num_envs:
        entries[f"ours {number}"] = Entry(contenders.our_loop, (number,), agent_steps)
        entries[f"theirs {number}"] = Entry(contenders.stable_baselines3_loop, (number,), agent_steps)
    results = race(entries, rounds)
    ours = {number: results[f"ours {number}"] for number in num_envs}
    theirs = {number: results[f"theirs {number}"] for number in num_envs}
    return ours, theirs


def fraction_of_peak(update: Result, product: Result) -> float:
    """Operations per second of `update` as a share of those of a matrix product, the median over the rounds."""
    assert update.operations is not None
    assert product.operations is not None
    return ratio(update, product)[0] * update.operations / product.operations


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and how busy it was at the start."""
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
    """Everything that train.json holds."""
    described = machine()
    by_update = updates(options.rounds, options.updates)
    ours, theirs = loops(options.rounds, options.agent_steps, options.num_envs)
    ratios = {number: ratio(ours[number], theirs[number]) for number in options.num_envs}
    headline = contenders.HEADLINE_ENVS if contenders.HEADLINE_ENVS in ratios else options.num_envs[-1]
    plain = ratio(by_update["sa_ddqn"], by_update["plain_sa_ddqn"])
    keeping = ratio(by_update["sa_ddqn"], by_update["plain_sa_ddqn_keeping_memory"])
    return {
        "sps_ratio_vs_sb3": ratios[headline][0],
        "sps_ratio_vs_sb3_num_envs": headline,
        "sa_update_ratio_vs_plain": plain[0],
        "fraction_of_matmul_peak": {
            name: fraction_of_peak(by_update[name], by_update["matrix_product"]) for name in ("ddqn", "sa_ddqn")
        },
        "sps_by_num_envs": {str(number): result.median for number, result in ours.items()},
        "sb3_sps_by_num_envs": {str(number): result.median for number, result in theirs.items()},
        "ratios_median_low_high": {
            **{f"sps vs sb3, {number} environments": values for number, values in ratios.items()},
            "sa update vs plain": plain,
            "sa update vs plain with memory kept": keeping,
        },
        "updates_per_second": {name: asdict(result) for name, result in by_update.items()},
        "rounds": options.rounds,
        "agent_steps_per_round": options.agent_steps,
        "machine": described,
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """What the terminal shows."""
    updates = Table("update (batch 32, dueling)", "per second", "of the matrix product's peak", title="Updates")
    for name, values in results["updates_per_second"].items():
        rates = sorted(values["rates"])
        share = results["fraction_of_matmul_peak"].get(name)
        updates.add_row(name, f"{rates[len(rates) // 2]:.1f}", "" if share is None else f"{share:.0%}")
    loops = Table("environments", "ours", "stable-baselines3", "ratio", title="Agent steps per second (plain DQN)")
    for number, ours in results["sps_by_num_envs"].items():
        middle, low, high = results["ratios_median_low_high"][f"sps vs sb3, {number} environments"]
        theirs = results["sb3_sps_by_num_envs"][number]
        loops.add_row(number, f"{ours:.0f}", f"{theirs:.0f}", f"{middle:.2f} ({low:.2f} to {high:.2f})")
    middle, low, high = results["ratios_median_low_high"]["sa update vs plain"]
    updates.caption = f"SA-DDQN update: {middle:.2f} times the plain one ({low:.2f} to {high:.2f})"
    return [updates, loops]


def main() -> None:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="timings of each contender; default: %(default)s")
    parser.add_argument("--updates", type=int, default=20, help="SA-DDQN updates in a timing; default: %(default)s")
    parser.add_argument("--agent-steps", type=int, default=2048, help="in a timing of a loop; default: %(default)s")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/train.json"), help="default: %(default)s")
    options = parser.parse_args()
    results = measure(options)
    show_and_write(results, tables(results), options.output)


if __name__ == "__main__":
    main()
