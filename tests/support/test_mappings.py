"""Dataclasses from mappings: what fits is taken, what does not is named by its path."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from nrmap.support.errors import NrmapError
from nrmap.support.mappings import build, merged, part


@dataclass(frozen=True)
class Thing:
    name: str
    size: float = 1.0
    count: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    anything: tuple[int, ...] = ()


def test_a_whole_number_is_a_real_one_and_not_the_other_way_round() -> None:
    thing = build(Thing, {"name": "a", "size": 2}, "thing")
    assert thing == Thing("a", 2.0)
    assert type(thing.size) is float
    assert build(Thing, {"name": "a", "extra": {"x": [1]}, "anything": (1, 2)}, "thing").extra == {"x": [1]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "thing=None: expected keys and values"),
        ({"name": "a", "siz": 1}, "unknown key of thing 'siz': did you mean size?"),
        ({"size": 1.0}, "thing: missing 1 required positional argument: 'name'"),
        ({"name": 3}, "name=3: expected a word"),
        ({"name": "a", "size": float("inf")}, "size=inf: expected a finite number"),
        ({"name": "a", "count": True}, "count=True: expected a whole number"),
        ({"name": "a", "extra": [1]}, "extra=[1]: expected keys and values"),
    ],
)
def test_what_does_not_fit_is_named(values: Any, message: str) -> None:
    with pytest.raises(NrmapError) as caught:
        build(Thing, values, "thing")
    assert str(caught.value) == message


def test_a_part_is_a_copy() -> None:
    node = {"a": {"b": 1}}
    copy = part(node, "a", "node")
    copy["b"] = 2
    assert node == {"a": {"b": 1}}
    with pytest.raises(NrmapError, match=r"^node\.c is missing: expected keys and values$"):
        part(node, "c", "node")


def test_merging_keeps_what_is_not_named() -> None:
    base = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merged(base, {"b": {"d": 4}}, "changes") == {"a": 1, "b": {"c": 2, "d": 4}}
    assert base == {"a": 1, "b": {"c": 2, "d": 3}}
    with pytest.raises(NrmapError, match=r"^unknown key of changes\.b 'e': choose one of c, d$"):
        merged(base, {"b": {"e": 1}}, "changes")
