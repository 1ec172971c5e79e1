"""Ctrl-C ends a command with one line and exit status 130, also while `python -m` imports the command."""

import os
import signal
import sys
from typing import Any

INTERRUPTED = "\ninterrupted: what is finished is kept; repeat the command to continue"


def end_at_interrupts(command: str) -> None:
    """Let Ctrl-C end `python -m command` at once, with one line, while Python imports the package `command`.

    Does nothing if another program imports the package, or if SIGINT has another handler than Python's default.
    """
    if (
        sys.argv[:1] == ["-m"]
        and command in sys.orig_argv
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _end)


def raise_interrupts() -> None:
    """Undo `end_at_interrupts`: Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)
