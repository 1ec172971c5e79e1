"""Timing rivals in turn, each in a process of its own: what disturbs the machine disturbs them alike."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from nrmap.support.files import write_json

_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Work:
    """Something to be timed: `run(amount)` does at least so many units and returns how many it did.

    `operations` is the number of floating-point operations of one unit, None where nobody asks.
    """

    run: Callable[[int], int]
    operations: float | None = None


@dataclass(frozen=True)
class Entry:
    """A contender: the function that prepares its work, what to call it with, and how many units to time at once."""

    prepare: Callable[..., Work]
    arguments: tuple[Any, ...]
    amount: int


@dataclass(frozen=True)
class Result:
    """Units per second in each round, in order, and the operations of one unit."""

    rates: Sequence[float]
    operations: float | None

    @property
    def median(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)


def race(entries: Mapping[str, Entry], rounds: int) -> dict[str, Result]:
    """Prepare all `entries`, then time each once in every round; every other round goes backwards."""
    with _started(entries) as (connections, operations):
        rates: dict[str, list[float]] = {name: [] for name in entries}
        for number in track(range(rounds), "rounds", transient=True):
            for name in reversed(connections) if number % 2 else connections:
                connections[name].send(entries[name].amount)
                rates[name].append(_answer(connections[name], name))
    return {name: Result(rates[name], operations[name]) for name in entries}


def ratio(one: Result, other: Result) -> tuple[float, float, float]:
    """The median over the rounds of one rate divided by the other, and the smallest and the largest."""
    ratios = [a / b for a, b in zip(one.rates, other.rates, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


@contextmanager
def _started(entries: Mapping[str, Entry]) -> Iterator[tuple[dict[str, Connection], dict[str, float | None]]]:
    """A process for each entry, prepared one after the other and ended at the end, and the operations of its unit."""
    connections, operations, running = {}, {}, []
    try:
        for name, entry in entries.items():
            connections[name], theirs = _processes.Pipe()
            running.append(_processes.Process(target=_serve, args=(theirs, entry), daemon=True))
            running[-1].start()
            theirs.close()
            operations[name] = _answer(connections[name], name)
        yield connections, operations
    finally:
        for process in running:
            process.terminate()
            process.join()


def _answer(connection: Connection, name: str) -> Any:
    try:
        return connection.recv()
    except EOFError as error:
        raise RuntimeError(f"the contender {name} ended early, see above") from error


def _serve(connection: Connection, entry: Entry) -> None:
    work = entry.prepare(*entry.arguments)
    connection.send(work.operations)
    while True:
        amount = connection.recv()
        begun = time.perf_counter()
        done = work.run(amount)
        connection.send(done / (time.perf_counter() - begun))


def show_and_write(results: Mapping[str, Any], tables: Sequence[Table], output: Path) -> None:
    """Print the tables of a benchmark and keep its results as JSON."""
    for table in tables:
        Console().print(table)
    write_json(output, results)
    print(output)
