"""Records are tidy, finite, and come back from their file."""

from pathlib import Path
from typing import Any

import pytest

from nrmap.support.errors import NrmapError
from nrmap.support.files import write_json
from nrmap.support.records import Record, read_records, select, write_records

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"


def test_records_come_back(tmp_path: Path) -> None:
    records = [
        Record("Freeway", "ddqn", 0, "sparsity", 0.0, low=0.0, high=44.0, map_kind="kmap", prefix=True, num_states=256),
        Record("Freeway", "sa_ddqn", None, "sparsity", None, note="the map is 0 everywhere", draw=0, episode=0),
    ]
    write_records(tmp_path / "m.json", records, settings={"temperature": 1.0})
    assert read_records(tmp_path / "m.json") == records
    assert select(records, method="ddqn") == select(records, is_null_network=False) == records[:1]
    assert all(record.is_part for record in records)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": None}, "undefined without a note"),
        ({"value": float("nan")}, "value=NaN: expected a finite number"),
        ({"low": 2.0, "high": 1.0}, "record return: expected low ≤ high, found 2.0 and 1.0"),
        ({"states_from": ""}, 'states_from="": expected own, pool, file or null'),
        ({"attack_epsilon": 1e307}, r"attack_epsilon=1e\+307: expected a finite number from 0 to 1"),
        ({"temperature": -1.0}, "temperature=-1.0: expected a finite number above 0"),
        ({"high": 1e308}, r"high=1e\+308: expected a finite number"),
        ({"method": "random_policy", "policy_sha256": "ab"}, "record return: random_policy has no network"),
        ({"method": "constant_action", "states_from": "own"}, "record return: constant_action has no network"),
    ],
)
def test_what_no_stage_measures_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(NrmapError, match=message):
        Record(**{"game": "Freeway", "method": "ddqn", "seed": 0, "metric": "return", "value": 1.0, **fields})


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"schema": 1, "records": []})
    with pytest.raises(NrmapError, match=r"m\.json has metrics schema 1, of another version: expected 2; remove it"):
        read_records(tmp_path / "m.json")
    write_json(tmp_path / "m.json", {"schema": 2, "records": [{"method": "ddqn"}]})
    with pytest.raises(NrmapError, match=r"m\.json is damaged: .*game"):
        read_records(tmp_path / "m.json")


def test_no_published_record_is_there_twice() -> None:
    for path in sorted(REFERENCE.rglob("metrics.json")):
        records = read_records(path)
        assert len(set(records)) == len(records) > 0, path
