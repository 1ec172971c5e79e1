"""Errors that a user can act on: one line with the value, the expectation and the nearest choice."""

import difflib
import io
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

LONGEST_VALUE = 60  # characters of a value in a message
_MOST_ITEMS = 20  # of a container in a message
LONGEST_LINE = 300  # of what other libraries say
LONGEST_ERROR = 1000  # of a whole error


class NrmapError(Exception):
    """An error that a user can fix, mostly in the input. Entry points print it as one line and exit with status 2.

    `str` escapes control characters and line breaks. Above `LONGEST_ERROR` characters it leaves out the middle, because
    the end says what was expected.
    """

    def __str__(self) -> str:
        text, part = super().__str__(), LONGEST_ERROR // 2
        return _printable(text if len(text) <= LONGEST_ERROR else f"{text[:part]} … {text[-part:]}")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """For entry points: print a NrmapError or OSError of the block as one line on stderr and exit with status 2.

    An OSError for a file that is missing or already there passes through, as from `refusal`. On a closed pipe, as after
    `| head`, exit with status 1 and print nothing. From then on, stdout and stderr replace characters that their
    encoding lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # it writes first what waits
                stream.reconfigure(errors="replace")
    try:
        yield
    except NrmapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would complain of a full stdout once more at its end
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        print(f"error: {refusal(error)}", file=sys.stderr)
        sys.exit(2)


def refusal(error: OSError) -> NrmapError:
    """Return `error`, such as a lack of rights or of disk space, as a NrmapError that names the file, if known.

    Raises `error` itself for a file that is missing or already there: that is a fault of the program.
    """
    if isinstance(error, FileNotFoundError | FileExistsError):
        raise error
    name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return NrmapError(f"{name}{error.strerror or error}")


@contextmanager
def code_of_others(what: str) -> Iterator[None]:
    """Turn an exception in the block into a NrmapError that begins with `what`.

    NrmapError and KeyboardInterrupt pass unchanged.
    """
    try:
        yield
    except (NrmapError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise NrmapError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def named(before: str = "", after: str = "") -> Iterator[None]:
    """Put `before` and `after`, such as the name of a file, around the text of a NrmapError in the block."""
    try:
        yield
    except NrmapError as error:
        raise NrmapError(f"{before}{error}{after}") from error


@contextmanager
def refused(what: str, other: type[Exception] = OSError) -> Iterator[None]:
    """Turn an OSError or an `other` error in the block into a NrmapError that says `what` and the reason."""
    try:
        yield
    except (OSError, other) as error:
        raise NrmapError(f"{what}: {getattr(error, 'strerror', None) or error}") from error


def unknown_choice(kind: str, value: object, choices: Iterable[str]) -> NrmapError:
    """Return the error for a `value` that is not in `choices`.

    `kind` is a noun ("game", "method"). The message lists at most five choices: the nearest ones, or the first five if
    none is near.
    """
    options = list(filter(None, choices))
    folded = {option.lower(): option for option in options}
    near = [folded[key] for key in difflib.get_close_matches(str(value)[:LONGEST_VALUE].lower(), folded, n=5)]
    if not options:
        hint = "there are none here"
    elif near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        more = ", …" if len(options) > 5 else ""
        hint = f"choose one of {', '.join(options[:5])}{more}"
    return NrmapError(f"unknown {kind} {shortened(value)}: {hint}")


def check(condition: bool, message: str) -> None:
    """Raise NrmapError(`message`) unless `condition` holds."""
    if not condition:
        raise NrmapError(message)


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, at most `LONGEST_LINE` characters.

    For an error without a message, return the name of its type.
    """
    try:
        lines = str(error).splitlines()
    except Exception:  # of the error's own code
        lines = []
    return (lines or [type(error).__name__])[0][:LONGEST_LINE]


def shortened(value: object) -> str:
    """Return `repr(value)` on one line, cut off after `LONGEST_VALUE` characters.

    For a value whose repr raises an error, return `<TYPE>`.
    """
    try:
        text = _printable(_BOUNDED.repr(value)[: LONGEST_VALUE + 1])
    except Exception:  # of the value's own code, or of a number with too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


class _BoundedRepr(reprlib.Repr):
    """A `repr` of three levels and the first items of each: parts that containers share make others exponential."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = _MOST_ITEMS

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[: LONGEST_VALUE + 1])

    def repr_int(self, x: int, level: int) -> str:
        return repr(x)

    def repr_instance(self, x: object, level: int) -> str:
        for kind in (dict, list, tuple, set, frozenset):
            if isinstance(x, kind):
                return self.repr1(kind(x), level)
        return repr(x)


_BOUNDED = _BoundedRepr()


def _printable(text: str) -> str:
    """Return `text` with line breaks and other control characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
