"""Tidy metrics: one record for each measured value. Tables, charts, the report page and W&B show records."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, Literal

from nrmap.support.errors import check, named
from nrmap.support.files import read_json, write_json
from nrmap.support.schema import Fraction, Name, Number, Positive, Word, schema, validated

SCHEMA_VERSION: Literal[2] = 2
# Quantiles of the Q-gap that evaluations and maps report.
GAP_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# Methods of the state-independent baselines; the first has the action as its variant.
CONSTANT_ACTION, RANDOM_POLICY = BASELINES = ("constant_action", "random_policy")


@schema
class Record:
    """One measured value, with the policy, states and conditions that it was measured on.

    A field that does not apply is None. An undefined value is None too, and `note` says why. `low` and `high` are the
    ends of a 95% interval; `interval` names its kind ("jackknife over 16 episodes, for this policy"). Raises NrmapError
    for fields of another type or range, an undefined value without a note, `low` > `high`, and a baseline (a `method`
    without a network) with `policy_sha256`, `states_from` or `draw`.
    """

    game: Name
    method: Word  # a training method, a kind of null network or a baseline
    seed: int | None  # of the training
    metric: Word
    value: Number | None
    low: Number | None = None
    high: Number | None = None
    interval: str | None = None
    note: str | None = None
    # The policy.
    variant: str | None = None  # tells policies of one method apart: "kappa=0.02", "UP"
    draw: int | None = None  # number of a null network
    source_method: str | None = None  # policy whose weights a null network shuffles
    source_seed: int | None = None
    policy_sha256: str | None = None
    outputs: str | None = None  # "logits" where the policy has these instead of Q-values
    # The states or episodes.
    states_from: Literal["own", "pool", "file"] | None = None
    states_set: str | None = None  # tells sets apart: a file's name, the first digits of a hash
    protocol: str | None = None  # tells settings of one analysis or evaluation apart: "value=128"
    num_states: int | None = None  # N
    episodes: int | None = None
    # A map.
    map_kind: str | None = None  # a key of `nrmap.maps.kinds.KINDS`
    temperature: Positive | None = None
    prefix: bool = False  # of the first `num_states` states only
    # How an episode was played.
    attack: str | None = None  # clean | noise | fgsm | pgd | greedy_worst_case
    attack_steps: int | None = None  # of PGD
    attack_epsilon: Fraction | None = None  # ℓ∞ radius
    # The part of a metric that has several values.
    episode: int | None = None
    action: str | None = None
    quantile: float | None = None
    direction: str | None = None  # vertical | horizontal
    # The policies that a difference subtracts.
    compared_with: str | None = None
    compared_variant: str | None = None

    def __post_init__(self) -> None:
        check(self.value is not None or self.note is not None, f"record {self.metric}: undefined without a note")
        ordered = self.low is None or self.high is None or self.low <= self.high
        check(ordered, f"record {self.metric}: expected low ≤ high, found {self.low} and {self.high}")
        of_network = self.policy_sha256 or self.states_from or self.is_null_network
        check(not (self.is_baseline and of_network), f"record {self.metric}: {self.method} has no network and no maps")

    @property
    def is_null_network(self) -> bool:
        """Whether a network with random or shuffled weights was measured."""
        return self.draw is not None

    @property
    def is_baseline(self) -> bool:
        """Whether a state-independent baseline was measured."""
        return self.method in BASELINES

    @property
    def is_trained(self) -> bool:
        """Whether a trained policy was measured: no null network, no baseline."""
        return not (self.is_null_network or self.is_baseline)

    @property
    def is_part(self) -> bool:
        """Whether the value is that of one episode, action, quantile or direction, or of a prefix of the states."""
        parts = (self.episode, self.action, self.quantile, self.direction)
        return self.prefix or any(part is not None for part in parts)

    @property
    def metric_key(self) -> str:
        """The metric, after the kind of map if there is one: "kmap_sparsity", "return"."""
        return self.metric if self.map_kind is None else f"{self.map_kind}_{self.metric}"

    @property
    def attack_name(self) -> str | None:
        """The attack as settings name it: "pgd-10", "fgsm", …; None if `attack` is None."""
        return self.attack if self.attack_steps is None else f"{self.attack}-{self.attack_steps}"


# Makes a Record, with the fields filled in that several records share.
RecordFactory = Callable[..., Record]


@schema
class Metrics:
    """The content of a metrics file: the records of a stage with its settings, inputs and provenance."""

    records: tuple[Record, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    schema: Literal[2] = SCHEMA_VERSION


def write_records(path: Path, records: Iterable[Record], **context: Any) -> None:
    """Write `records` and `context` (settings, inputs, provenance) to `path` as JSON, atomically.

    Fields at their defaults are left out. Raises NrmapError, TypeError and ValueError as `write_json` does.
    """
    values = [
        {field.name: value for field in fields(Record) if (value := getattr(record, field.name)) != field.default}
        for record in records
    ]
    write_json(path, {"schema": SCHEMA_VERSION, "records": values, **context})


def read_records(path: Path) -> list[Record]:
    """Return the records in `path`. Raises NrmapError as `read_metrics` does."""
    return list(read_metrics(path).records)


def read_metrics(path: Path) -> Metrics:
    """Return the content of the metrics file `path`.

    Raises NrmapError for a missing or damaged file, and for one of another schema.
    """
    content = read_json(path)
    version = content.get("schema") if isinstance(content, dict) else None
    expected = f"expected {SCHEMA_VERSION}; remove it to measure anew"
    check(version == SCHEMA_VERSION, f"{path} has metrics schema {version!r}, of another version: {expected}")
    with named(f"{path} is damaged: "):
        return validated(Metrics, content)


def select(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """Return the records that have all `wanted` field values, as in `select(records, metric="return")`."""
    return [record for record in records if all(getattr(record, name) == value for name, value in wanted.items())]
