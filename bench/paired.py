"""Timing rivals in turn, each in a process of its own: what disturbs the machine disturbs them alike."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Protocol

from rich.progress import track


class Work(Protocol):
    """What a contender hands over: `run(amount)` does about so many units and returns how many it did."""

    run: Callable[[int], int]
