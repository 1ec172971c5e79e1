"""Write the file of each stage of an analysis once, and refuse a file of other settings or inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nrmap.maps.measures import read_measured
from nrmap.support.errors import check, named
from nrmap.support.files import identity_of
from nrmap.support.locks import locked
from nrmap.support.records import Metrics, Record, write_records
from nrmap.support.runtime import provenance

T = TypeVar("T")


def write_metrics(path: Path, records: list[Record], *, settings: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Write a stage's records to `path` with settings, inputs, provenance. Raises NrmapError as `write_json` does."""
    write_records(path, records, settings=settings, inputs=inputs, provenance=provenance())


def read_stage(path: Path, *, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> Metrics:
    """Read a stage's metrics. Raises NrmapError as `read_measured` does, and for a file of other settings or inputs."""
    found = read_measured(path)
    for name, expected in inputs.items():
        theirs = found.inputs.get(name)
        check(theirs == expected, f"{path} holds other results: its {name} is {theirs}, expected {expected}")
    same = identity_of(found.settings) == identity_of(settings)
    check(same, f"{path} holds other results: they were measured with other settings")
    return found


def measured_once(
    path: Path, make: Callable[[], list[Record]], *, settings: dict[str, Any], inputs: dict[str, Any]
) -> list[Record]:
    """Return the records in `path`. If there is no such file, first write those that `make` returns.

    Raises NrmapError as `once`, `read_stage` and `write_metrics` do.
    """

    def write() -> None:
        write_metrics(path, make(), settings=settings, inputs=inputs)

    return once(path, write, lambda path: list(read_stage(path, settings=settings, inputs=inputs).records))


def once(path: Path, make: Callable[[], None], read: Callable[[Path], T]) -> T:
    """Return `read(path)`. If `path` is missing, `make` writes it first, while other processes wait.

    Raises NrmapError as `read`, `make` and `locked` do; an error of `read` also says to remove `path`.
    """
    if not path.exists():
        with locked(path.with_name(f".{path.name}.lock"), f"waiting for another process to write {path}"):
            if not path.exists():
                make()
    with named(after=f"; remove {path} to make it anew"):
        return read(path)
