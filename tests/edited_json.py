"""A JSON file that a test changes in place or copies with changes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nrmap.support.files import read_json, write_json


@contextlib.contextmanager
def edited(source: Path, target: Path | None = None) -> Iterator[Any]:
    """The content of `source`, which `target` (by default `source`) has at the end."""
    content = read_json(source)
    yield content
    write_json(target or source, content)
