"""Records are tidy, finite, and come back from their file, also from one of schema 1."""

from pathlib import Path
from typing import Any

import pytest

from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json, write_json
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
    write_json(tmp_path / "m.json", {"schema": 0, "records": []})
    with pytest.raises(NrmapError, match="schema 0: expected 2, or 1"):
        read_records(tmp_path / "m.json")
    write_json(tmp_path / "m.json", {"schema": 1, "records": [{"method": "ddqn"}]})
    with pytest.raises(NrmapError, match=r"m\.json is damaged: expected records of schema 1, 'attack' is missing"):
        read_records(tmp_path / "m.json")


def old(metric: str, **fields: Any) -> dict[str, Any]:
    absent = dict.fromkeys(("attack", "episodes", "item", "low", "high", "note", "states_from", "temperature"))
    return {**absent, "game": "Pong", "method": "sa_ddqn", "seed": 3, "metric": metric, "value": 1.5, **fields}


def new(metric: str, method: str = "sa_ddqn", seed: int | None = 3, **fields: Any) -> Record:
    return Record("Pong", method, seed, metric, 1.5, **fields)


BASELINE = {"method": "baseline", "seed": None}
SHUFFLED = {"draw": 3, "source_method": "sa_ddqn_ibp", "source_seed": 2}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (old("return", attack="pgd-10", item="12"), new("return", attack="pgd", attack_steps=10, episode=12)),
        (old("action_share", attack="clean", item="UPFIRE"), new("action_share", attack="clean", action="UPFIRE")),
        (old("q_gap_quantile", item="0.05"), new("q_gap_quantile", quantile=0.05)),
        (
            old("kl_sparsity", states_from="x.npz", item="prefix"),
            new("sparsity", map_kind="kl", states_from="file", states_set="x.npz", prefix=True),
        ),
        (old("kmap_grid_excess", item="vertical"), new("grid_excess", map_kind="kmap", direction="vertical")),
        (
            old("return", attack="constant:UP", **BASELINE),
            new("return", "constant_action", None, variant="UP", attack="clean"),
        ),
        (old("return", attack="random_policy", **BASELINE), new("return", "random_policy", None, attack="clean")),
        (
            old("margin_drop_grid_null_quantile", method="shuffled_weights (sa_ddqn_ibp seed 2)", item="0.95"),
            new("grid_null_quantile", "shuffled_weights", None, map_kind="margin_drop", quantile=0.95, **SHUFFLED),
        ),
        (old("tie_pair_rate", method="random_weights"), new("tie_pair_rate", "random_weights", None, draw=3)),
    ],
)
def test_facts_that_schema_1_spelled_into_words_become_fields(tmp_path, before, after):
    write_json(tmp_path / "m.json", {"schema": 1, "records": [before]})
    assert read_records(tmp_path / "m.json") == [after]


@pytest.mark.parametrize("path", sorted(REFERENCE.rglob("metrics.json")), ids=lambda path: "-".join(path.parts[-4:-1]))
def test_published_metrics_keep_their_values(path: Path) -> None:
    before, records = read_json(path)["records"], read_records(path)
    assert [record.value for record in records] == [each["value"] for each in before]
    assert len(set(records)) == len(records)
