"""The command line of train, analyze and analyze.import_policy: any game by name, help, errors in one line."""

import functools
import importlib
import inspect
import logging
import os
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from conf.choices import as_mapping
from conf.command_line import CommandLine, hydra_errors_in_one_line, register_games
from conf.failures import JobFailedError, failures_since, forget_failure, note_failure
from conf.help import command_help
from conf.interrupts import INTERRUPTED, raise_interrupts
from conf.logs import with_writable_logs
from nrmap.support.errors import NrmapError, errors_in_one_line, first_line, refusal

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])
_HELP_WIDTHS = (60, 120)


@errors_in_one_line()
def entry_point(
    config_name: str, read: Callable[[Mapping[str, Any], bool], S], run: Callable[[S, Sequence[str]], None]
) -> None:
    """Run a command: `run` works with the settings that `read` makes of conf/`config_name`.yaml and the command line.

    `read` gets the configuration as nested mappings, and whether this machine does the work. It is called for every
    job before any folder is made or process started, and again in the job itself. `run` also gets the options
    on the command line, as in "scale=quick". With --help only the help is printed, and the docstring of the module of
    `run` is part of the help. At the end a line on stderr names the command that makes the report.

    Wrong input, including a log folder that cannot be written, is one line on stderr with exit status 2. Any other
    error of `run` keeps its traceback. Ctrl-C ends with exit status 130. In a multirun a failed job does not stop the
    other jobs: its log has the traceback, the last lines on stderr name all failed jobs, and the exit status is 1.
    """
    begun, handed_over = time.time(), False
    read, run = _importable(read), _importable(run)
    arguments = sys.argv[1:]
    if {"-h", "--help"} & {*arguments}:
        least, most = _HELP_WIDTHS
        width = min(max(shutil.get_terminal_size((100, 24)).columns, least), most)
        try:
            module, description = run.__module__.removesuffix(".__main__"), inspect.getdoc(sys.modules[run.__module__])
            print(command_help(config_name, module, description or "", width), flush=True)
        except BrokenPipeError:  # ends quietly
            raise
        except OSError as error:
            raise _of_hydra(error) from error
        return
    _let_children_import_the_clone()
    register_games()
    command = CommandLine(arguments)
    for values in command.configurations(config_name) if command.is_run else ():
        read(values, not command.is_multirun)
    sys.argv[1:] = with_writable_logs(command.arguments, command.outputs)

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        nonlocal handed_over
        hydra_config = HydraConfig.get()
        given, values = list(hydra_config.overrides.task), as_mapping(config)
        handed_over = True
        if hydra_config.mode is RunMode.MULTIRUN:
            _run_as_job(lambda: run(read(values, True), given), hydra_config)
            return
        with errors_in_one_line(), _errors_of_the_machine():  # Hydra would add a line of its own
            run(read(values, True), given)

    if not command.is_run:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Hydra prints; end quietly at a closed pipe
    # Makes Hydra raise its errors instead of printing several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    raise_interrupts()
    try:
        with hydra_errors_in_one_line():
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(task)()
        handed_over = False
        print(end="", flush=True)
        if command.is_run:
            options = [argument.lstrip("+") for argument in arguments]
            outputs = [option for option in options if option.startswith("outputs=")][-1:]
            print(f"page of all results: {shlex.join(['python', '-m', 'analyze.report', *outputs])}", file=sys.stderr)
    except JobFailedError as error:
        for line in failures_since(begun, Path(error.sweep_folder)) or [str(error)]:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except BrokenProcessPool:
        killed = "the process of a job was killed, perhaps for lack of memory, which ended the sweep"
        print(f"error: {killed}: repeat the command to finish it", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if handed_over or isinstance(error, NrmapError):
            raise
        raise _of_hydra(error) from error


@contextmanager
def _errors_of_the_machine() -> Iterator[None]:
    """Raise a lack of memory, and files that cannot be used, as NrmapError."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise refusal(error) from error
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # PyTorch raises a RuntimeError
            raise NrmapError(f"not enough memory: {first_line(error)}") from error
        raise


def _of_hydra(error: Exception) -> NrmapError:
    """Return the NrmapError for an `error` of Hydra, its launcher or sweeper: clashing flags, no SLURM, a full disk."""
    why = error.__cause__ or error
    if isinstance(why, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would complain of a full stdout once more at its end
        if why.filename:
            return NrmapError(f"cannot write {os.fsdecode(why.filename)}: {why.strerror}")
    what = first_line(why) if str(why) else traceback.extract_tb(why.__traceback__)[-1].line  # as in "assert x > 0"
    return NrmapError(f"{type(why).__name__}: {what}")


def _importable(run: F) -> F:
    """Return `run`, or its namesake in the importable module if `run` is a function of `__main__`.

    A launcher's processes would get copies of everything in `__main__`, and copied dataclasses have no fields.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if run.__module__ != "__main__" or spec is None:
        return run
    importable: F = getattr(importlib.import_module(spec.name), run.__name__)
    return importable


def _let_children_import_the_clone() -> None:
    """Put this clone on the import path of a launcher's processes: installations lack conf, train and analyze."""
    clone = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH", "")
    if clone not in inherited.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (clone, inherited)))


def _run_as_job(run: Callable[[], None], hydra_config: HydraConf) -> None:
    """Call `run`. For any error, write a line to the log and to the job's note, and raise JobFailedError instead."""
    overrides = (override for override in hydra_config.overrides.task if not override.startswith("outputs="))
    job, folder = " ".join(overrides), Path(hydra_config.runtime.output_dir)
    forget_failure(folder, job)
    try:
        with _errors_of_the_machine():
            run()
    except Exception as error:
        expected = isinstance(error, NrmapError)
        logging.getLogger(__name__).error("this job failed: %s: %s", job, error, exc_info=not expected)
        log_file = f"{folder / str(hydra_config.job.name)}.log"
        line = f"{job} failed: {first_line(error)}"
        if not expected:
            line = f"{job} failed: {type(error).__name__}: {first_line(error)}; the traceback is in {log_file}"
        note_failure(folder, job, line)
        raise JobFailedError(line, str(hydra_config.sweep.dir)) from None
