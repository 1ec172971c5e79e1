"""Typed settings and headers: frozen, strict, with ranges; a value that does not fit raises a one-line error.

A field's annotation is the only place that states its type and range. `Annotated[int, Field(ge=1)]` accepts whole
numbers from 1 and nothing else: no true, no "3", no 3.0. `__post_init__` checks several fields together, with `expect`.
"""

import dataclasses
import functools
import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)  # fmt: skip

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema
from typing_extensions import is_typeddict  # pydantic takes no others before Python 3.12

from nrmap.support.errors import LONGEST_VALUE, NrmapError, first_line, unknown_choice

T = TypeVar("T")

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")

# A seed must fit into every random generator and every file format.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
# Counters of steps and updates are 64-bit numbers.
Steps = Annotated[int, Field(ge=0, le=10**12)]
SomeSteps = Annotated[int, Field(ge=1, le=10**12)]
# Larger numbers overflow in float32.
NotNegative = Annotated[float, Field(ge=0, le=1e30)]
Positive = Annotated[float, Field(gt=0, le=1e30)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# Up to this size sums and squares of numbers are finite, and charts have axes.
LARGEST = 1e100
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Radius = Annotated[float, Field(gt=0, le=1)]  # of an ℓ∞ ball, in units where white is 1
Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


_NAME = re.compile(r"[A-Za-z0-9_+=-][A-Za-z0-9_+=.-]*")
LONGEST_NAME = 100
_NO_WORD = re.compile(r"|null|true|false|[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
TOO_DEEP = "nested too deeply, expected at most a few levels"


def safe_name(text: str, longest: int = LONGEST_NAME) -> str:
    """Return `text` if it is safe as a part of a path: a word of ASCII letters, digits and ``_ + = . -``.

    ValueError for a leading dot, another character, an empty text and more than `longest` characters.
    """
    if not _NAME.fullmatch(text) or len(text) > longest:
        raise ValueError(f"1 to {longest} letters, digits or any of _ + = . -, and no leading dot")
    return text


Name = Annotated[str, AfterValidator(lambda text: safe_name(text))]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def schema(kind: type[T]) -> type[T]:
    """Make `kind` a frozen dataclass whose constructor raises NrmapError for a value that does not fit its field."""
    checked = pydantic.dataclasses.dataclass(kind, frozen=True, config=_STRICT)
    init = checked.__init__

    @functools.wraps(init)
    def raise_one_line(self: Any, *values: Any, **named: Any) -> None:
        names = [field.name for field in dataclasses.fields(checked)]
        if len(values) > len(names):
            raise NrmapError(f"{kind.__name__} takes {len(names)} values, found {len(values)}")
        in_order = dict(zip(names, values, strict=False))
        try:
            init(self, **in_order, **named)
        except ValidationError as error:
            raise one_line(error, kind, in_order | named, "") from None

    checked.__init__ = raise_one_line  # type: ignore[method-assign]
    return checked  # type: ignore[return-value]


def validated(kind: type[T], values: Any, where: str = "") -> T:
    """Make a `kind`, e.g. a `schema` class, from nested mappings and lists of JSON values.

    A whole number becomes a float in a float field, so that 1 and 1.0 are the same setting. `where`, as in "scale",
    goes before the key in errors. Raises NrmapError for the first unknown key, missing key or value that does not fit.
    """
    try:
        adapter: TypeAdapter[T] = adapter_of(kind)  # type: ignore[arg-type]
        return adapter.validate_json(json.dumps(values))
    except ValidationError as error:
        raise one_line(error, kind, values, where) from None
    except (ValueError, RecursionError) as error:  # of json
        reason = TOO_DEEP if isinstance(error, RecursionError) else first_line(error)
        raise NrmapError(f"{where}: {reason}") from error


@functools.cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """The strict pydantic adapter of an annotation."""
    return TypeAdapter(kind, config=None if dataclasses.is_dataclass(kind) or is_typeddict(kind) else _STRICT)


class SettingError(NrmapError):
    """A wrong setting: its `key` and the `problem`, e.g. "=3: expected at most 2"."""

    def __init__(self, key: str, problem: str = "") -> None:  # unpickling gives the whole text, then both fields
        super().__init__(f"{key}{problem}")
        self.key, self.problem = key, problem


class MisfitError(ValueError):
    """The field `name` has a `value` that other fields rule out; `schema` turns it into a SettingError."""

    def __init__(self, name: str, value: Any, expected: str) -> None:
        super().__init__(name, value, expected)
        self.name, self.value, self.expected = name, value, expected


def expect(condition: bool, settings: object, name: str, expected: str) -> None:
    """For `__post_init__`: raise MisfitError for field `name`, e.g. "replay.capacity", unless `condition` holds."""
    if not condition:
        raise MisfitError(name, attrgetter(name)(settings), expected)


class Keys:
    """Annotates a dict whose keys are the fields of a `schema` class: `Annotated[dict[str, Any], Keys(ReplaySpec)]`.

    `without` leaves fields out and `more` adds keys with their types. Keys in `optional` may be missing; with `partial`
    so may all fields of `kind` and of `schema` classes among its fields. Types and ranges are checked, but
    `__post_init__` runs only for classes inside another type, such as a tuple.
    """

    def __init__(
        self,
        kind: type | None = None,
        *,
        without: Iterable[str] = (),
        partial: bool = False,
        optional: Iterable[str] = (),
        **more: Any,
    ) -> None:
        hints = get_type_hints(kind, include_extras=True) if kind else {}
        self.hints = {name: hint for name, hint in hints.items() if name not in without}
        self.optional = {*optional, *(self.hints if partial else ())}
        for name, hint in self.hints.items():
            if dataclasses.is_dataclass(hint):
                nested = Keys(hint, partial=partial)  # type: ignore[arg-type]
                self.hints[name] = Annotated[dict[str, Any], nested]
        self.hints |= {
            name: Annotated[dict[str, Any], hint] if isinstance(hint, Keys) else hint for name, hint in more.items()
        }

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.typed_dict_schema(
            {
                name: core_schema.typed_dict_field(handler.generate_schema(hint), required=name not in self.optional)
                for name, hint in self.hints.items()
            },
            extra_behavior="forbid",
            config=core_schema.CoreConfig(strict=True, allow_inf_nan=False),
        )


def one_line(error: ValidationError, kind: Any, values: Any, where: str) -> NrmapError:
    """Turn pydantic's `error` into an error about one mistake, preferably an unknown key; `where`: see `validated`."""
    mistakes = error.errors(include_url=False)
    mistake = next((each for each in mistakes if each["type"] in _UNKNOWN_KEY), mistakes[0])
    if mistake["type"] == "json_invalid":
        return NrmapError(f"{where or 'the settings'}: text that is not UTF-8")
    owner = key = where
    annotation, value = kind, values
    siblings: Iterable[str] = ()
    for part in mistake["loc"]:
        inner = _inside(annotation)
        if isinstance(part, int) and not isinstance(value, list | tuple):
            continue  # one value in place of a list
        if isinstance(part, str) and not (isinstance(value, Mapping) and isinstance(inner, Mapping)):
            continue  # pydantic's name of a member of a union
        owner, key = key, _joined(key, part)
        value = value[part] if isinstance(part, int) else value.get(part)
        annotation, siblings = (inner.get(part), inner) if isinstance(inner, Mapping) else (inner, ())
    if mistake["type"] in _UNKNOWN_KEY:
        return unknown_choice(f"key of {owner}" if owner else "key", mistake["loc"][-1], siblings)
    if mistake["type"] == "missing":
        return SettingError(key, f" is missing: expected {describe(annotation)}")
    reason = mistake.get("ctx", {}).get("error")
    if isinstance(reason, MisfitError):
        return SettingError(_joined(key, reason.name), f"={as_typed(reason.value)}: expected {reason.expected}")
    near = get_close_matches(str(mistake["input"]), [str(choice) for choice in _choices(annotation)], n=1)
    hint = f"; did you mean {near[0]}?" if near and near[0] != mistake["input"] else ""
    equals = "=" if key else ""
    return SettingError(key, f"{equals}{as_typed(mistake['input'])}: expected {reason or describe(annotation)}{hint}")


def _joined(path: str, part: str | int) -> str:
    return f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}" if path else part


class _EveryKey(dict[str, Any]):
    """A mapping whose `get` returns the annotation `self[""]` for every key."""

    def get(self, key: str, default: Any = None) -> Any:
        return self[""]


def _inside(annotation: Any) -> Any:
    """The annotations of a mapping or class by key, or the annotation of the items of a list or tuple, else None."""
    for data in getattr(annotation, "__metadata__", ()):
        if isinstance(data, Keys):
            return data.hints
    bare = get_args(annotation)[0] if get_origin(annotation) in (Annotated, NotRequired) else annotation
    if dataclasses.is_dataclass(bare) or is_typeddict(bare):
        return get_type_hints(bare, include_extras=True)
    if get_origin(bare) in (Union, types.UnionType):
        return next(filter(None, map(_inside, get_args(bare))), None)
    if get_origin(bare) in (dict, Mapping):
        return _EveryKey({"": get_args(bare)[1]})
    return get_args(bare)[0] if get_origin(bare) in (tuple, list, Sequence) else None


def _choices(annotation: Any) -> tuple[Any, ...]:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return arguments
    return tuple(choice for each in arguments for choice in _choices(each))


def describe(annotation: Any) -> str:
    """The values that a field accepts, as in "a whole number from 0 to 255"."""
    metadata, origin = getattr(annotation, "__metadata__", ()), get_origin(annotation)
    if origin is NotRequired:
        return describe(get_args(annotation)[0])
    if any(isinstance(data, Keys) for data in metadata):
        return "keys and values"
    if given := [data.description for data in metadata if getattr(data, "description", None)]:
        return given[0]
    if metadata:
        return describe(get_args(annotation)[0]) + _range(metadata)
    if origin in (Literal, Union, types.UnionType):
        *first, last = _alternatives(annotation)
        return f"{', '.join(first)} or {last}" if first else last
    if origin in (tuple, list, Sequence):
        return f"a list, each item {describe(get_args(annotation)[0])}"
    named = {Path: "a path", bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}
    return named.get(annotation, "null" if annotation in (None, types.NoneType) else "keys and values")


def _alternatives(annotation: Any) -> list[str]:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return [as_typed(choice) for choice in arguments]
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return [text for each in arguments for text in _alternatives(each)] if is_union else [describe(annotation)]


def _range(metadata: Iterable[Any]) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds: dict[str, Any] = {}
    for data in metadata:
        for constraint in getattr(data, "metadata", [data]):
            bounds |= {name: getattr(constraint, name) for name in words if hasattr(constraint, name)}
    least, most = bounds.get("ge"), bounds.get("le")
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    return "".join(f" {' and '.join(f'{words[name]} {bound:,}' for name, bound in bounds.items())}") if bounds else ""


def as_typed(value: Any) -> str:
    """`value` as a user types it: null, true, [1, 2], a word, quoted if it would be no word otherwise; shortened."""
    if isinstance(value, str) and value.isprintable() and value.strip() == value and not _NO_WORD.fullmatch(value):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False, default=str) if not dataclasses.is_dataclass(value) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
