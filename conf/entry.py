"""What `python -m train` and `python -m analyze` share: any game by name, errors on one line."""

import functools
import importlib
import importlib.util
import logging
import os
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

from conf.failures import JobFailedError, failures_since, forget_failure, note_failure
from nrmap.atari.games import game_names
from nrmap.support.errors import NrmapError, unknown_choice

_GROUP_KEYS = {
    "env": "game", "method": "method", "scale": "scale", "evaluation": "evaluation", "wandb": "wandb mode",
}  # fmt: skip
_LAUNCHERS = {"joblib": "joblib", "slurm": "submitit", "ray": "ray"}  # each by the plugin that it needs


def entry_point(config_name: str, run: Callable[[Mapping[str, Any]], None]) -> None:
    """Read conf/`config_name`.yaml and the command line, then call `run` with a plain mapping.

    The mapping's `given` has the keys that the command line names, as it names them.
    A mistake of the user ends in one line on stderr and exit status 2, and so does a log folder
    that Hydra cannot write; any other error of `run` keeps its traceback. In a multirun the launcher
    goes on with the other jobs whatever error one ends in; the job's log has the traceback, the
    last lines name every job that failed, and the exit status is 1.
    """
    begun, handed_over = time.time(), False
    run = _importable(run)
    register_games()
    try:
        _check_choices(sys.argv[1:])
    except NrmapError as error:
        sys.exit(_complain(error))
    sys.argv[1:] = with_absolute_outputs(sys.argv[1:])

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        nonlocal handed_over
        resolved = OmegaConf.to_container(config, resolve=True)
        assert isinstance(resolved, dict)
        hydra_config = HydraConfig.get()
        values = {str(key): value for key, value in resolved.items()}
        values["given"] = [override.partition("=")[0] for override in hydra_config.overrides.task]
        if hydra_config.mode is RunMode.MULTIRUN:
            _run_as_job(run, values, hydra_config)
            return
        handed_over = True
        try:
            run(values)
        except NrmapError as error:
            sys.exit(_complain(error))

    # Hydra then hands its errors on, of which it would print several lines itself.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(task)()
        if not any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in sys.argv):
            print(f"page of all results: {report_command(sys.argv)}", file=sys.stderr)
    except JobFailedError as error:
        for line in failures_since(begun, Path(error.sweep_folder)) or [str(error)]:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenProcessPool:
        print(
            "error: the process of a job was killed, for want of memory perhaps, and the sweep with it: "
            "the same command does what is missing",
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
    """`run` as part of a module that the processes of a launcher can import.

    Of `__main__` they would get copies, and a copied dataclass has no fields.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if run.__module__ != "__main__" or spec is None:
        return run
    importable: Callable[[Mapping[str, Any]], None] = getattr(importlib.import_module(spec.name), run.__name__)
    return importable


def _run_as_job(run: Callable[[Mapping[str, Any]], None], values: Mapping[str, Any], hydra_config: HydraConf) -> None:
    """Call `run`; log and note its error, whatever it is, and raise JobFailedError instead."""
    overrides = (override for override in hydra_config.overrides.task if not override.startswith("outputs="))
    job, folder = " ".join(overrides), Path(hydra_config.runtime.output_dir)
    forget_failure(folder, job)
    try:
        run(values)
    except Exception as error:
        logging.getLogger(__name__).exception("this job failed: %s", job)
        line = f"{job} failed: {_first_line(error)}; the traceback is in {folder / str(hydra_config.job.name)}.log"
        note_failure(folder, job, line)
        raise JobFailedError(line, str(hydra_config.sweep.dir)) from None


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, NrmapError) else f"{type(error).__name__}: {text}"


def _as_one_line(error: Exception) -> NrmapError:
    """What Hydra found wrong in the command line or the YAML."""
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
    """Make every game an option of the group `env`; a YAML file of the same name comes first."""
    from conf.choices import group_options

    store = ConfigStore.instance()
    for game in game_names():
        if game not in group_options("env"):
            store.store(group="env", name=game, node={"defaults": ["base", "_self_"], "game": game})


def with_absolute_outputs(arguments: Sequence[str]) -> list[str]:
    """The command line with an absolute `outputs`, by default the folder of that name in the current one.

    Jobs of a launcher may run in another folder than the command, and before they run Hydra
    does not yet resolve where that is.
    """
    changed = list(arguments)
    overrides = [index for index, argument in enumerate(changed) if "=" in argument and not argument.startswith("-")]
    given = [index for index in overrides if changed[index].startswith("outputs=")]
    if not given:
        changed.insert(overrides[0] if overrides else len(changed), _absolute_outputs("outputs"))
    for index in given:
        value = changed[index].partition("=")[2]
        if value and not any(symbol in value for symbol in "'\"$,[{"):  # what Hydra reads otherwise than as it stands
            changed[index] = _absolute_outputs(value)
    return changed


def report_command(arguments: Sequence[str]) -> str:
    """The command that builds the page of the results under the `outputs` of a command line."""
    given = [value for key, _, value in (argument.partition("=") for argument in arguments) if key == "outputs"]
    outputs = (given or ["outputs"])[-1]
    default = outputs == _absolute_outputs("outputs").partition("=")[2]
    return f"python -m analyze.report{'' if default else f' --outputs {outputs}'}"


def _absolute_outputs(folder: str) -> str:
    path = os.path.abspath(folder).replace("'", "\\'")
    return f"outputs='{path}'"


def _check_choices(arguments: list[str]) -> None:
    """Name the nearest choice for an unknown game, method or scale; Hydra alone would print all of them.

    The same for a launcher, and how to install what it needs.
    """
    from conf.choices import group_options

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
        return  # one of Hydra's own or of another plugin, which Hydra knows
    if importlib.util.find_spec("hydra_plugins") is None or not importlib.util.find_spec(
        f"hydra_plugins.hydra_{plugin}_launcher"
    ):
        raise NrmapError(
            f"hydra/launcher={name} needs hydra-{plugin}-launcher: "
            f"python -m pip install -c constraints.txt -e '.[{name}]'"
        )
