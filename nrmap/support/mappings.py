"""Frozen dataclasses from plain mappings, and mappings laid over others; mistakes are named by their path."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_origin

from nrmap.support.errors import NrmapError, check, unknown_choice

_EXPECTED = {
    bool: "true or false", int: "a whole number", float: "a finite number", str: "a word", dict: "keys and values",
}  # fmt: skip


def build(kind: type, values: Any, where: str) -> Any:
    """The frozen dataclass `kind` from the mapping `values`.

    Raises NrmapError naming unknown and missing keys of `where`, and values of another type than
    the field's: a whole number for a real one is converted, so that 1 and 1.0 mean the same.
    """
    check(isinstance(values, Mapping), f"{where}={values!r}: expected keys and values")
    types = {field.name: field.type for field in fields(kind)}
    for key in values:
        if key not in types:
            raise unknown_choice(f"key of {where}", key, types)
    try:
        return kind(**{key: _typed(key, value, types[key]) for key, value in values.items()})
    except TypeError as error:
        raise NrmapError(f"{where}: {str(error).removeprefix(kind.__name__ + '.__init__() ')}") from error


def _typed(key: str, value: Any, expected: Any) -> Any:
    """`value` for a field of type `expected`; types other than bool, int, float, str and dict are let through."""
    expected = get_origin(expected) or expected
    if expected is float and type(value) is int:
        value = float(value)
    if expected in _EXPECTED:
        fits = type(value) is expected and not (expected is float and not math.isfinite(value))
        check(fits, f"{key}={value!r}: expected {_EXPECTED[expected]}")
    return value


def part(node: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """A copy of the mapping under `key` of `node`, whose path is `where`; NrmapError when there is none."""
    check(key in node, f"{where}.{key} is missing: expected keys and values")
    value = node[key]
    check(isinstance(value, Mapping), f"{where}.{key}={value!r}: expected keys and values")
    return dict(value)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`base` with `changes`, whose path is `where`, laid over it, mapping by mapping.

    Raises NrmapError for a key that `base` lacks and for a value where `base` has a mapping.
    """
    result = dict(base)
    for key, value in changes.items():
        if key not in base:
            raise unknown_choice(f"key of {where}", key, base)
        both = isinstance(value, Mapping) == isinstance(base[key], Mapping)
        check(both, f"{where}.{key}={value!r}: expected the same kind of value as {base[key]!r}")
        result[key] = merged(base[key], value, f"{where}.{key}") if isinstance(value, Mapping) else value
    return result
