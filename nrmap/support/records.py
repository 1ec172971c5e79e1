"""Tidy metrics: one record a value. Tables, the report and W&B read nothing else."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nrmap.support.errors import NrmapError, check
from nrmap.support.files import read_json, write_json

SCHEMA_VERSION = 1
# The quantiles of the Q-gap that evaluations and maps report.
GAP_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Record:
    """One measured value and what it was measured on; None where a field does not apply.

    `value` None means undefined, and `note` then says why. `low` and `high` bound a 95% interval
    of the kind `interval` names ("jackknife over 16 episodes, for this policy"). `states_from` is
    "own", "pool" or a file's name; `num_states` is N. `attack` is "clean", "noise", "fgsm",
    "pgd-10", …, "greedy_worst_case", or a player that does not look, "random_policy" or
    "constant:UP"; `attack_epsilon` an ℓ∞ radius in [0, 1].
    `item` numbers the parts of a list-valued metric: an episode, an action, a prefix of states.
    """

    game: str
    method: str
    seed: int | None
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    states_from: str | None = None
    num_states: int | None = None
    episodes: int | None = None
    temperature: float | None = None
    attack: str | None = None
    attack_epsilon: float | None = None
    item: str | None = None
    note: str | None = None
    policy_sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            check(number is None or math.isfinite(number), f"record {self.metric}: {name}={number} is not finite")
        check(self.value is not None or self.note is not None, f"record {self.metric}: undefined without a note")


# Makes a Record, with the fields filled in that several records share.
RecordFactory = Callable[..., Record]


def write_records(path: Path, records: Iterable[Record], **context: Any) -> None:
    """Write `records` to `path` as JSON, atomically, with `context` (settings, provenance) beside them."""
    write_json(path, {"schema": SCHEMA_VERSION, "records": [asdict(record) for record in records], **context})


def read_records(path: Path) -> list[Record]:
    """The records in `path`; NrmapError when they are of another schema version."""
    content = read_json(path)
    version = content.get("schema") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise NrmapError(f"{path} has metrics schema {version!r}: expected {SCHEMA_VERSION}")
    return [Record(**fields) for fields in content["records"]]


def select(records: Sequence[Record], **fields: Any) -> list[Record]:
    """The records whose every named field equals the given value."""
    return [record for record in records if all(getattr(record, name) == value for name, value in fields.items())]
