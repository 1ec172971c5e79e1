"""Check the arguments of public functions against their annotations: a wrong one is a one-line NrmapError."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import numpy as np
import torch
from pydantic import ValidationError

from nrmap.support.errors import check
from nrmap.support.schema import adapter_of, one_line

F = TypeVar("F", bound=Callable[..., Any])
_OF_PLAIN = (Sequence, Union, UnionType)


def checked(function: F) -> F:
    """Decorate `function` to raise NrmapError for arguments that do not fit their annotations.

    Checked are numbers, strings, bools, paths, Literals, sequences and unions of these, and instances of a class, but
    not other annotations, such as callables. NumPy's and torch's numbers and arrays become Python's numbers and lists
    where these are expected. A missing or unknown argument raises TypeError.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        bound = signature.bind(*args, **keywords)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _fitting(name, value, signature.parameters[name].annotation)
        return function(*bound.args, **bound.kwargs)

    return cast(F, call)


def _fitting(name: str, value: Any, annotation: Any) -> Any:
    if not _is_plain(annotation):
        if isinstance(annotation, type) and annotation not in (Any, inspect.Parameter.empty):
            fits = isinstance(value, annotation)
            check(fits, f"{name} is a {type(value).__name__}: expected nrmap.{annotation.__name__}")
        return value
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        value = value.tolist()
    elif isinstance(value, os.PathLike):
        value = Path(value)
    elif isinstance(value, list | tuple):
        value = [item.item() if isinstance(item, np.generic) else item for item in value]
    try:
        return adapter_of(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        raise one_line(error, annotation, value, name) from None


def _is_plain(annotation: Any) -> bool:
    """Whether an annotation is made of numbers, words, flags, paths and choices."""
    if annotation in (int, float, str, bool, Path, NoneType, None) or get_origin(annotation) is Literal:
        return True
    if get_origin(annotation) is Annotated:
        return _is_plain(get_args(annotation)[0])
    return get_origin(annotation) in _OF_PLAIN and all(map(_is_plain, get_args(annotation)))
