"""Generated parts of Markdown files, between `<!-- begin NAME: … -->` and `<!-- end NAME -->`."""

import re
from collections.abc import Mapping
from pathlib import Path

from nrmap.support.errors import NrmapError
from nrmap.support.files import write_text


def with_blocks(path: Path, blocks: Mapping[str, str]) -> str:
    """The text of the file `path` with the content of each named block replaced.

    Raises NrmapError if the file lacks a block's markers or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NrmapError(f"cannot read {path}: {error.strerror}") from error
    for name, content in blocks.items():
        found = list(re.finditer(rf"<!-- begin {name}:[^\n]*-->\n(.*?)<!-- end {name} -->", text, re.DOTALL))
        if len(found) != 1:
            raise NrmapError(f"{path}: expected exactly one block `<!-- begin {name}: … -->` to `<!-- end {name} -->`")
        text = f"{text[: found[0].start(1)]}\n{content.strip()}\n\n{text[found[0].end(1) :]}"
    return text


def write_documents(documents: Mapping[Path, str]) -> None:
    """Write every file whose text differs, atomically, and print its path."""
    for path, text in documents.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(path)
