"""`--help` of the commands: the tables of docs/options.md for a terminal."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from nrmap.atari.games import game_names

OPTIONS_FILE = Path(__file__).parents[1] / "docs" / "options.md"
KEY_WIDTH = 20
_FOOTER = (
    "-m runs every combination of comma-separated values: env=Freeway,Pong seed=0,1,2.",
    "--cfg job prints every setting of a command line; each can be overridden. Unknown ones are errors.",
    "--hydra-help explains other flags. docs/options.md has examples, docs/clusters.md launchers.",
)


def command_help(command: str, module: str, description: str, width: int) -> str:
    """Return usage and `description` of `python -m module`, its options and all games, for `width` columns.

    The options are those of `command`. The lines of `description` are not wrapped. Raises OSError if docs/options.md
    cannot be read.
    """
    content = OPTIONS_FILE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", content, re.MULTILINE | re.DOTALL))
    lines = [f"python -m {module} [-m] [OPTION=VALUE ...]", "", *description.splitlines()]
    for title in ("Both commands", f"`python -m {command}`"):
        lines += _section(title, sections[title], width)
    lines += ["", *_FOOTER, "", *textwrap.wrap(f"Games: {', '.join(game_names())}", width)]
    return "\n".join(lines)


def _section(title: str, markdown: str, width: int) -> Iterator[str]:
    """Yield the lines of the tables of a section, each table headed by the last line of text before it."""
    heading, is_first = "", True
    for line in map(_plain, f"{title}\n{markdown}".splitlines()):
        if not line.startswith("|"):
            heading, is_first = line or heading, True
        elif is_first:  # names of the columns
            yield from ("", heading.removesuffix(":") + ":")
            is_first = False
        elif not line.startswith("|--"):
            key, *default, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
            yield from _row(key, meaning + (f" Default: {default[0]}" if default else ""), width)


def _row(key: str, text: str, width: int) -> list[str]:
    """Wrap `text` in a column beside `key`, or below `key` if that is too long; return the lines."""
    indent = " " * (KEY_WIDTH + 2)
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
    if len(key) < KEY_WIDTH:
        lines[0] = f"  {key}".ljust(KEY_WIDTH + 2) + lines[0].lstrip()
        return lines
    return [f"  {key}", *lines]


def _plain(markdown: str) -> str:
    """Remove backticks from a line of Markdown and replace each link by the path of its document."""
    return re.sub(r"\[[^]]*\]\(([^)#]*)[^)]*\)", r"docs/\1", markdown).replace("`", "")
