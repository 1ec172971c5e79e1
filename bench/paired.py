"""Time contenders in turn, each in its own process, so that other load affects all of them equally."""

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
    """Work to be timed: `run(amount)` processes at least `amount` units and returns their number.

    `operations` is the number of floating-point operations per unit, None if unknown.
    """

    run: Callable[[int], int]
    operations: float | None = None


@dataclass(frozen=True)
class Entry:
    """A contender: the function that prepares its work, the arguments, and the units per timing."""

    prepare: Callable[..., Work]
    arguments: tuple[Any, ...]
    amount: int


@dataclass(frozen=True)
class Result:
    """Units per second in each round, and the operations per unit."""

    rates: Sequence[float]
    operations: float | None

    @property
    def median(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)


def race(entries: Mapping[str, Entry], rounds: int) -> dict[str, Result]:
    """Prepare all `entries`, then time each once per round, in alternating order; return the results by name.

    Raises RuntimeError if the process of a contender ends.
    """
    with _started(entries) as (connections, operations):
        rates: dict[str, list[float]] = {name: [] for name in entries}
        for number in track(range(rounds), "rounds", transient=True):
            for name in reversed(connections) if number % 2 else connections:
                connections[name].send(entries[name].amount)
                rates[name].append(_answer(connections[name], name))
    return {name: Result(rates[name], operations[name]) for name in entries}


def ratio(one: Result, other: Result) -> tuple[float, float, float]:
    """Return the rate of `one` over that of `other` in a round: median, smallest and largest over the rounds."""
    ratios = [a / b for a, b in zip(one.rates, other.rates, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


@contextmanager
def _started(entries: Mapping[str, Entry]) -> Iterator[tuple[dict[str, Connection], dict[str, float | None]]]:
    """Start a process per entry, one after the other; yield the connections and the operations per unit, by name."""
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
        raise RuntimeError(f"contender {name} ended early, see above") from error


def _serve(connection: Connection, entry: Entry) -> None:
    work = entry.prepare(*entry.arguments)
    connection.send(work.operations)
    while True:
        amount = connection.recv()
        begun = time.perf_counter()
        done = work.run(amount)
        connection.send(done / (time.perf_counter() - begun))


def show_and_write(results: Mapping[str, Any], tables: Sequence[Table], output: Path) -> None:
    """Print the tables of a benchmark, write its results to `output` as JSON, and print that path.

    Raises NrmapError if the file cannot be written.
    """
    for table in tables:
        Console().print(table)
    write_json(output, results)
    print(output)
