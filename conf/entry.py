"""The command line of `python -m train` and `python -m analyze`: any game by name, help, errors on one line."""

import functools
import importlib
import importlib.util
import inspect
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.choices import group_options
from conf.failures import JobFailedError, failures_since, forget_failure, note_failure
from conf.help import command_help
from conf.logs import with_writable_logs
from nrmap.atari.games import game_names
from nrmap.support.errors import NrmapError, first_line, unknown_choice

_GROUP_KEYS = {
    "env": "game", "method": "method", "scale": "scale", "evaluation": "evaluation", "wandb": "wandb mode",
}  # fmt: skip
_LAUNCHERS = {"joblib": "joblib", "slurm": "submitit", "ray": "ray"}  # the plugin of each
_HELP_WIDTHS = (60, 120)


def entry_point(config_name: str, run: Callable[[Mapping[str, Any]], None]) -> None:
    """Call `run` with the settings in conf/`config_name`.yaml and on the command line, as a plain mapping.

    The mapping's `given` lists the options on the command line, as in "scale=quick".

    Wrong input, including a log folder that cannot be written, is one line on stderr with exit
    status 2. Other errors of `run` keep their traceback. In a multirun the other jobs go on: the
    job's log has the traceback, the last lines name all failed jobs, and the exit status is 1.
    """
    begun, handed_over = time.time(), False
    run = _importable(run)
    arguments = sys.argv[1:]
    if {"-h", "--help"} & {*arguments}:
        least, most = _HELP_WIDTHS
        width = min(max(shutil.get_terminal_size((100, 24)).columns, least), most)
        print(command_help(config_name, inspect.getdoc(sys.modules[run.__module__]) or "", width))
        return
    _let_children_import_the_clone()
    register_games()
    try:
        _check_choices(arguments)
    except NrmapError as error:
        sys.exit(_complain(error))
    sys.argv[1:] = with_writable_logs(with_absolute_outputs(arguments))

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        nonlocal handed_over
        resolved = OmegaConf.to_container(config, resolve=True)
        assert isinstance(resolved, dict)
        hydra_config = HydraConfig.get()
        values = {str(key): value for key, value in resolved.items()}
        values["given"] = list(hydra_config.overrides.task)
        if hydra_config.mode is RunMode.MULTIRUN:
            _run_as_job(run, values, hydra_config)
            return
        handed_over = True
        try:
            run(values)
        except NrmapError as error:
            sys.exit(_complain(error))

    # Makes Hydra raise its errors instead of printing several lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(task)()
        if not any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in sys.argv):
            folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("outputs=")]
            outputs = ["--outputs", folders[-1].strip("'")] if folders else []
            print(f"page of all results: {shlex.join(['python', '-m', 'analyze.report', *outputs])}", file=sys.stderr)
    except JobFailedError as error:
        for line in failures_since(begun, Path(error.sweep_folder)) or [str(error)]:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted: repeat the command to resume from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenProcessPool:
        print(
            "error: the process of a job was killed, perhaps for lack of memory, which ended the sweep: "
            "repeat the command to finish it",
            file=sys.stderr,
        )
        sys.exit(1)
    except NrmapError as error:
        sys.exit(_complain(error))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_complain(_as_one_line(error)))
    except OSError as error:
        if handed_over or not error.filename:
            raise
        sys.exit(_complain(NrmapError(f"cannot write {os.fsdecode(error.filename)}: {error.strerror}")))


def _importable(run: Callable[[Mapping[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
    """`run` from a module that a launcher's processes can import.

    They would get copies of everything in `__main__`, and copied dataclasses have no fields.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if run.__module__ != "__main__" or spec is None:
        return run
    importable: Callable[[Mapping[str, Any]], None] = getattr(importlib.import_module(spec.name), run.__name__)
    return importable


def _let_children_import_the_clone() -> None:
    """Put the clone on the import path of a launcher's processes: only nrmap is ever installed."""
    clone = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH", "")
    if clone not in inherited.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (clone, inherited)))


def _run_as_job(run: Callable[[Mapping[str, Any]], None], values: Mapping[str, Any], hydra_config: HydraConf) -> None:
    """Call `run`. Log and note any error, and raise JobFailedError instead."""
    overrides = (override for override in hydra_config.overrides.task if not override.startswith("outputs="))
    job, folder = " ".join(overrides), Path(hydra_config.runtime.output_dir)
    forget_failure(folder, job)
    try:
        run(values)
    except Exception as error:
        logging.getLogger(__name__).exception("this job failed: %s", job)
        kind = "" if isinstance(error, NrmapError) else f"{type(error).__name__}: "
        log_file = f"{folder / str(hydra_config.job.name)}.log"
        line = f"{job} failed: {kind}{first_line(error)}; the traceback is in {log_file}"
        note_failure(folder, job, line)
        raise JobFailedError(line, str(hydra_config.sweep.dir)) from None


def _as_one_line(error: Exception) -> NrmapError:
    """Hydra's complaint about the command line or the YAML."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        folder, dot, key = str(cause.full_key).rpartition(".")
        if key not in cause.parent_node:
            siblings = (f"{folder}{dot}{name}" for name in map(str, cause.parent_node))
            return unknown_choice("key", f"{folder}{dot}{key}", siblings)
    return NrmapError(" ".join(str(error).split()))


def _complain(error: NrmapError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def register_games() -> None:
    """Make every game without a YAML file an option of the group `env`."""
    store = ConfigStore.instance()
    for game in game_names():
        if game not in group_options("env"):
            store.store(group="env", name=game, node={"defaults": ["base", "_self_"], "game": game})


def with_absolute_outputs(arguments: Sequence[str]) -> list[str]:
    """`arguments` with an absolute path for `outputs`, by default `outputs` in the current folder.

    A launcher may run its jobs in another folder, and Hydra resolves paths only there.
    """
    changed = list(arguments)
    overrides = [index for index, argument in enumerate(changed) if "=" in argument and not argument.startswith("-")]
    given = [index for index in overrides if changed[index].startswith("outputs=")]
    if not given:
        changed.insert(overrides[0] if overrides else len(changed), _absolute_outputs("outputs"))
    for index in given:
        value = changed[index].partition("=")[2]
        if value and not any(symbol in value for symbol in "'\"$,[{"):  # syntax of Hydra
            changed[index] = _absolute_outputs(value)
    return changed


def _absolute_outputs(folder: str) -> str:
    path = os.path.abspath(folder).replace("'", "\\'")
    return f"outputs='{path}'"


def _check_choices(arguments: list[str]) -> None:
    """Raise NrmapError with the nearest choice for an unknown game, method or scale, and for missing launchers.

    Hydra would print all choices.
    """
    for argument in arguments:
        group, equals, value = argument.partition("=")
        if group == "hydra/launcher":
            _check_launcher(value)
        if not equals or group not in _GROUP_KEYS or any(symbol in value for symbol in "()[]{}*"):
            continue
        options = sorted(set(group_options(group)) | set(game_names() if group == "env" else ()))
        for choice in value.split(","):
            if choice not in options:
                raise unknown_choice(_GROUP_KEYS[group], choice, options)


def _check_launcher(name: str) -> None:
    plugin = _LAUNCHERS.get(name)
    if plugin is None:
        return  # Hydra checks other launchers
    if importlib.util.find_spec("hydra_plugins") is None or not importlib.util.find_spec(
        f"hydra_plugins.hydra_{plugin}_launcher"
    ):
        raise NrmapError(
            f"hydra/launcher={name} needs hydra-{plugin}-launcher: "
            f"python -m pip install -c constraints.txt -e '.[{name}]'"
        )
