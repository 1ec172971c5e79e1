"""Frozen dataclasses that check their fields; every error is one line with the key, the value and the expectation."""

import functools
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin

import typing_extensions
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from nrmap.support.errors import NrmapError, unknown_choice

T = TypeVar("T")

# No conversions, no unknown keys, no NaN and no infinity.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
LONGEST_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9_+=-][A-Za-z0-9_+=.-]*")
_EXPECTED = {
    "bool_type": "true or false", "int_type": "a whole number", "float_type": "a finite number",
    "finite_number": "a finite number", "string_type": "text", "dict_type": "keys and values",
    "dataclass_type": "keys and values", "list_type": "a list", "tuple_type": "a list",
}  # fmt: skip
_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")


def safe_name(text: str, longest: int = LONGEST_NAME) -> str:
    """`text`, if it can be a part of a path: a word of ASCII letters, digits and ``_ + = . -``.

    ValueError for a leading dot, another character, an empty text and more than `longest` characters.
    """
    if not _NAME.fullmatch(text) or len(text) > longest:
        raise ValueError(f"1 to {longest} letters, digits or any of _ + = . -, and no leading dot")
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("64 hexadecimal digits")
    return text


Name = Annotated[str, AfterValidator(lambda text: safe_name(text))]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def schema(kind: type[T]) -> type[T]:
    """Make `kind` a frozen dataclass that raises NrmapError unless its fields have their types and ranges."""
    made: Any = dataclass(kind, frozen=True, config=STRICT)
    initialise = made.__init__

    @functools.wraps(initialise)
    def checked(self: Any, *values: Any, **named: Any) -> None:
        try:
            initialise(self, *values, **named)
        except ValidationError as error:
            raise _one_line(error, made, "") from None

    made.__init__ = checked
    checked_kind: type[T] = made
    return checked_kind


def validated(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON has it, as a `kind`: a dataclass by `schema`, a TypedDict or another annotation.

    Lists become tuples where the fields are tuples, whole numbers become floats where they are floats.
    `where` goes before the key in errors: "scale", or "FILE: ". Raises NrmapError for unknown or missing
    keys, other types and values out of range.
    """
    try:
        return _adapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        raise _one_line(error, kind, where) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=None if is_dataclass(kind) or typing_extensions.is_typeddict(kind) else STRICT)


def _one_line(error: ValidationError, kind: Any, where: str) -> NrmapError:
    """One of pydantic's errors as one line: an unknown key, which may be why another is missing, or the first."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] in _UNKNOWN_KEY), errors[0])
    place: list[int | str] = list(first["loc"])
    if is_dataclass(kind) and place and isinstance(place[0], int):  # a positional argument
        place[0] = _keys(kind)[place[0]]
    within = path = where
    for part in place:
        within = path
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path and path[-1] != ' ' else ''}{part}"
    if first["type"] in _UNKNOWN_KEY:
        owner = within.rstrip(": ")
        return unknown_choice(f"key of {owner}" if owner else "key", place[-1], _keys(_at(kind, place[:-1])))
    if first["type"] in ("missing", "missing_argument"):
        return NrmapError(f"{path} is missing")
    if first["type"] == "literal_error":
        return unknown_choice(path, first["input"], map(str, get_args(_at(kind, place))))
    shown = repr(first["input"])
    shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
    reason = str(first.get("ctx", {}).get("error") or first["msg"].removeprefix("Input should be "))
    for long, short in (("greater than or equal to", "at least"), ("less than or equal to", "at most")):
        reason = reason.replace(long, short)
    return NrmapError(f"{path}{'=' if place else ''}{shown}: expected {_EXPECTED.get(first['type'], reason)}")


def _keys(kind: Any) -> list[str]:
    return [each.name for each in fields(kind)] if is_dataclass(kind) else list(getattr(kind, "__annotations__", ()))


def _at(kind: Any, place: Sequence[int | str]) -> Any:
    """The annotation at `place` inside `kind`."""
    while get_origin(kind) in (Annotated, typing_extensions.NotRequired):
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        return next((found for each in kinds if (found := _at(each, place)) is not None), None)
    if not place or kind is None:
        return kind
    if isinstance(place[0], int):
        return _at(next(iter(get_args(kind)), None), place[1:])
    if get_origin(kind) in (dict, Mapping):
        return _at(get_args(kind)[1], place[1:])
    return _at(typing.get_type_hints(kind, include_extras=True).get(str(place[0])), place[1:]) if _keys(kind) else None
