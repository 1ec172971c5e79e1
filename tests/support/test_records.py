"""Records are tidy, finite, and come back from their file."""

from pathlib import Path

import pytest

from nrmap.support.errors import NrmapError
from nrmap.support.files import write_json
from nrmap.support.records import Record, read_records, select, write_records


def test_records_come_back(tmp_path: Path) -> None:
    records = [
        Record("Freeway", "ddqn", 0, "kmap_sparsity", 42.0, low=40.0, high=44.0, states_from="own", num_states=256),
        Record("Freeway", "sa_ddqn", 0, "kmap_sparsity", None, note="the map is 0 everywhere"),
    ]
    write_records(tmp_path / "m.json", records, settings={"temperature": 1.0})
    assert read_records(tmp_path / "m.json") == records
    assert select(records, method="ddqn") == records[:1]


def test_an_undefined_value_needs_a_reason() -> None:
    with pytest.raises(NrmapError, match="undefined without a note"):
        Record("Freeway", "ddqn", 0, "kmap_sparsity", None)


def test_not_a_number_is_no_value() -> None:
    with pytest.raises(NrmapError, match="not finite"):
        Record("Freeway", "ddqn", 0, "kmap_sparsity", float("nan"))


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"schema": 0, "records": []})
    with pytest.raises(NrmapError, match="schema 0: expected 1"):
        read_records(tmp_path / "m.json")
