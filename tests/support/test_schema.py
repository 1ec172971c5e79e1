"""A schema takes the values in its ranges; anything else is one line that names the key and what was expected."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from nrmap.support.errors import NrmapError
from nrmap.support.schema import Name, Sha256, safe_name, schema, validated


@schema
class Inner:
    size: Annotated[int, Field(ge=1, le=9)]


@schema
class Outer:
    inner: tuple[Inner, ...]
    name: Name = "x"
    weight: float | None = None
    kind: Literal["pool", "own"] = "own"
    sha256: Sha256 | None = None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"inner": [{"size": 0}]}, "FILE: inner[0].size=0: expected at least 1"),
        ({"inner": [{"sise": 3}]}, "unknown key of FILE: inner[0] 'sise': did you mean size?"),
        ({"iner": []}, "unknown key of FILE 'iner': did you mean inner?"),
        ({}, "FILE: inner is missing"),
        ([], "FILE: []: expected keys and values"),
        ({"inner": [], "weight": True}, "FILE: weight=True: expected a finite number"),
        ({"inner": [], "weight": float("inf")}, "FILE: weight=inf: expected a finite number"),
        ({"inner": [], "kind": "pol"}, "unknown FILE: kind 'pol': did you mean pool?"),
        ({"inner": [], "sha256": "ab"}, "FILE: sha256='ab': expected 64 hexadecimal digits"),
    ],
)
def test_the_line_names_the_key_and_the_nearest_choice(content: Any, message: str) -> None:
    with pytest.raises(NrmapError) as caught:
        validated(Outer, content, "FILE: ")
    assert str(caught.value) == message


def test_values_made_in_code_are_checked_too() -> None:
    for make in (lambda: Inner(10), lambda: replace(Inner(1), size=10), lambda: Inner(size=10)):
        with pytest.raises(NrmapError, match="size=10: expected at most 9"):
            make()


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "/tmp", "a\0", "\ud800", "é", "a b", "a\n", "x" * 101])
def test_what_could_leave_a_folder_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        safe_name(name)


def test_names_of_methods_and_variants_are_names() -> None:
    for name in ("sa_ddqn", "kappa=0.02", "seed0", "a1+b", "shuffled_weights-ddqn-seed-0", "x" * 100):
        assert safe_name(name) == name
