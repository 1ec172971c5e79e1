"""What `python -m train` and `python -m analyze` share: any game by name, errors on one line."""

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nrmap.errors import NrmapError, unknown_choice
from nrmap.games import game_names

_GROUP_KEYS = {"env": "game", "method": "method", "scale": "scale", "wandb": "wandb mode"}


def entry_point(config_name: str, run: Callable[[Mapping[str, Any]], None]) -> None:
    """Read conf/`config_name`.yaml and the command line, then call `run` with a plain mapping.

    A mistake of the user ends in one line on stderr and exit status 2. In a multirun it is raised
    instead, so that the launcher names the job, goes on with the others and fails at the end.
    """
    _register_games()
    try:
        _check_choices(sys.argv[1:])
    except NrmapError as error:
        sys.exit(_complain(error))

    @functools.wraps(run)
    def task(config: DictConfig) -> None:
        values = OmegaConf.to_container(config, resolve=True)
        assert isinstance(values, dict)
        try:
            run({str(key): value for key, value in values.items()})
        except NrmapError as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                logging.getLogger(__name__).exception("this job failed: %s", error)
                raise
            sys.exit(_complain(error))
        except KeyboardInterrupt:
            print("\ninterrupted: the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(130)

    # Hydra then hands its errors on, of which it would print several lines itself.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(task)()
    except NrmapError as error:
        sys.exit(_complain(error))
    except (HydraException, OmegaConfBaseException, OSError) as error:
        sys.exit(_complain(_as_one_line(error)))


def _as_one_line(error: Exception) -> NrmapError:
    """What Hydra found wrong in the command line or the YAML, or why it cannot write its log folder."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        folder, dot, key = str(cause.full_key).rpartition(".")
        if key not in cause.parent_node:
            siblings = (f"{folder}{dot}{name}" for name in map(str, cause.parent_node))
            return unknown_choice("key", f"{folder}{dot}{key}", siblings)
    if isinstance(error, OSError) and error.filename:
        return NrmapError(f"cannot write {os.fsdecode(error.filename)}: {error.strerror}")
    return NrmapError(" ".join(str(error).split()))


def _complain(error: NrmapError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _register_games() -> None:
    """Make every game an option of the group `env`; a YAML file of the same name comes first."""
    from conf.choices import group_options

    store = ConfigStore.instance()
    for game in game_names():
        if game not in group_options("env"):
            store.store(group="env", name=game, node={"defaults": ["base", "_self_"], "game": game})


def _check_choices(arguments: list[str]) -> None:
    """Name the nearest choice for an unknown game, method or scale; Hydra alone would print all of them."""
    from conf.choices import group_options

    for argument in arguments:
        group, equals, value = argument.partition("=")
        if not equals or group not in _GROUP_KEYS or any(symbol in value for symbol in "()[]{}*"):
            continue
        options = sorted(set(group_options(group)) | set(game_names() if group == "env" else ()))
        for choice in value.split(","):
            if choice not in options:
                raise unknown_choice(_GROUP_KEYS[group], choice, options)
