"""Ctrl-C ends a command with one line and exit status 130, also while `python -m` imports it."""

import os
import signal
import sys
from typing import Any

INTERRUPTED = "\ninterrupted: repeat the command to resume from the last checkpoint"


def end_at_interrupts(command: str) -> None:
    """Let Ctrl-C end `python -m command` at once during its imports. Does nothing if another program imports it."""
    if (
        sys.argv[:1] == ["-m"]
        and command in sys.orig_argv
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _end)


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)
