"""The argument parser of the commands that do not use Hydra."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from nrmap.support.errors import NrmapError


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises NrmapError for wrong arguments."""

    def error(self, message: str) -> NoReturn:
        """Raise NrmapError with `message`."""
        raise NrmapError(f"{message}; --help explains the options")


# Its help shows the default of every option.
ParserWithDefaults = partial(ArgumentParser, formatter_class=argparse.ArgumentDefaultsHelpFormatter)


def whole(least: int = 1, most: int = 1_000_000) -> Callable[[str], int]:
    """Return the argparse `type` of a whole number from `least` to `most`; the parser refuses any other text."""

    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or len(text) > 20 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text[:60]}: expected a whole number from {least:,} to {most:,}")
        return int(text)

    return read
