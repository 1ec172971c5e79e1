"""Dataclasses from mappings, and one line with the path of the key for a value that does not fit."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from nrmap.support.errors import LONGEST_ERROR, NrmapError
from nrmap.support.schema import Keys, Name, Sha256, expect, safe_name, schema, validated


@schema
class Part:
    count: Annotated[int, Field(ge=0, le=9)] = 0
    kind: Literal["plain", "fancy"] | Annotated[int, Field(ge=1)] = "plain"

    def __post_init__(self) -> None:
        expect(self.count != 7, self, "count", "any number but 7")


@schema
class Whole:
    name: str
    size: float = 1.0
    part: Part = Field(default_factory=Part)
    parts: tuple[Part, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)
    label: Name = "x"
    sha256: Sha256 | None = None


@schema
class Nodes:
    node: Annotated[dict[str, Any], Keys(Whole, without=["extra"], partial=True, more=Keys(on=bool))]


def test_a_whole_number_is_a_real_one_and_lists_and_mappings_become_tuples_and_dataclasses() -> None:
    values = {"name": "a", "size": 2, "part": {"count": 3}, "parts": [{"kind": 2}], "extra": {"x": [1.5]}}
    whole = validated(Whole, values, "whole")
    assert whole == Whole("a", 2.0, Part(3), (Part(kind=2),), {"x": [1.5]})
    assert type(whole.size) is float
    assert validated(Nodes, {"node": {"part": {"count": 7}, "more": {"on": True}}}).node["part"] == {"count": 7}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (None, "whole=null: expected keys and values"),
        ({"name": "a", "siz": 1}, "unknown key of whole 'siz': did you mean size?"),
        ({"size": 1.0}, "whole.name is missing: expected a word"),
        ({"name": "a", "size": float("inf")}, "whole.size=Infinity: expected a finite number"),
        ({"name": "a", "size": True}, "whole.size=true: expected a finite number"),
        ({"name": "a", "part": {"count": "1"}}, 'whole.part.count="1": expected a whole number from 0 to 9'),
        ({"name": "a", "part": {"count": 10}}, "whole.part.count=10: expected a whole number from 0 to 9"),
        ({"name": "a", "parts": [{}, {"count": 7}]}, "whole.parts[1].count=7: expected any number but 7"),
        ({"name": "a", "parts": 5}, "whole.parts=5: expected a list, each item keys and values"),
        ({"name": "a", "part": {"kind": "fanc"}}, "whole.part.kind=fanc: expected plain, fancy or a whole number at l"),
        ({"name": "\udcff"}, "whole: text that is not UTF-8"),
        ({"name": "a", "label": "../x"}, "whole.label=../x: expected 1 to 100 letters"),
        ({"name": "a", "sha256": "ab"}, "whole.sha256=ab: expected 64 hexadecimal digits or null"),
        ({"node": {}}, "node.more is missing: expected keys and values"),
        ({"node": {"more": {"on": 1}}}, "node.more.on=1: expected true or false"),
        ({"node": {"more": {"on": True}, "part": {"count": -1}}}, "node.part.count=-1: expected a whole number from 0"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(values: Any, line: str) -> None:
    with pytest.raises(NrmapError) as caught:
        validated(Nodes, values) if values and "node" in values else validated(Whole, values, "whole")
    assert str(caught.value).startswith(line)


def test_the_constructor_says_the_same() -> None:
    with pytest.raises(NrmapError, match=r"^count=10: expected a whole number from 0 to 9$"):
        Part(10)
    with pytest.raises(NrmapError, match=r"^unknown key 'cuont': did you mean count\?$"):
        Part(cuont=1)  # type: ignore[call-arg]


def test_a_long_key_with_a_line_break_makes_no_long_error_and_no_second_line() -> None:
    with pytest.raises(NrmapError) as caught:
        validated(dict[str, int], {"a\n" + "b" * 10_000: None})
    line = str(caught.value)
    assert line.startswith("a\\nbbb")
    assert line.endswith("bbb=null: expected a whole number")
    assert len(line) < 1.1 * LONGEST_ERROR


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "/tmp", "a\0", "\ud800", "é", "a b", "a\n", "x" * 101])
def test_names_cannot_leave_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        safe_name(name)
    for good in ("sa_ddqn", "kappa=0.02", "a1+b", "shuffled_weights-ddqn-seed-0", "x" * 100):
        assert safe_name(good) == good
