"""Build frozen dataclasses from mappings and merge mappings; errors name the path of the key."""

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

    Whole numbers become floats in float fields, so that 1 and 1.0 are the same setting. Raises
    NrmapError for unknown keys, missing keys and values of another type; `where` is their path.
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
    """Check `value` against `expected`, if that is bool, int, float, str or dict."""
    expected = get_origin(expected) or expected
    if expected is float and type(value) is int:
        value = float(value)
    if expected in _EXPECTED:
        fits = type(value) is expected and not (expected is float and not math.isfinite(value))
        check(fits, f"{key}={value!r}: expected {_EXPECTED[expected]}")
    return value


def part(node: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """A copy of the mapping `node[key]`; NrmapError if there is none. `where` is the path of `node`."""
    check(key in node, f"{where}.{key} is missing: expected keys and values")
    value = node[key]
    check(isinstance(value, Mapping), f"{where}.{key}={value!r}: expected keys and values")
    return dict(value)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`base` updated recursively with `changes`, whose path is `where`.

    Raises NrmapError for a key that is not in `base` and for a value in place of a mapping.
    """
    result = dict(base)
    for key, value in changes.items():
        if key not in base:
            raise unknown_choice(f"key of {where}", key, base)
        both = isinstance(value, Mapping) == isinstance(base[key], Mapping)
        check(both, f"{where}.{key}={value!r}: expected the same kind of value as {base[key]!r}")
        result[key] = merged(base[key], value, f"{where}.{key}") if isinstance(value, Mapping) else value
    return result
