"""Prepare command lines for Hydra: rewrite values that it would misread, and turn its errors into one line."""

import contextlib
import functools
import importlib.util
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from conf.choices import as_mapping, group_options
from nrmap.atari.games import game_named, game_names
from nrmap.support.errors import LONGEST_LINE, NrmapError, check, first_line, unknown_choice
from nrmap.support.schema import TOO_DEEP, as_typed

_NOUNS = {"env": "game", "wandb": "wandb mode", "hydra/launcher": "launcher"}
_GROUPS = ("env", "method", "scale", "evaluation", "wandb")
_LAUNCHERS = {"joblib": "joblib", "slurm": "submitit", "ray": "ray"}  # the plugin of each
# Flags with which Hydra does not run the command.
_SHOWS = ("cfg", "info", "hydra_help", "shell_completion", "help", "resolve")
# Flags that add other files to conf/.
_OTHER_FILES = ("config_path", "config_name", "config_dir")
MOST_JOBS = 10_000  # of a sweep, all of which are checked before the first starts
LONGEST_OVERRIDE = 10_000  # characters, which Hydra parses in seconds
_SYNTAX = re.compile(r"[()\[\]{}*$'\"]")  # of values that are no plain choice


@functools.cache
def register_games() -> None:
    """Make every game without a YAML file an option of the group `env`; later calls in a process do nothing."""
    store = ConfigStore.instance()
    for game in game_names():
        if game not in group_options("env"):
            store.store(group="env", name=game, node={"defaults": ["base", "_self_"], "game": game})


class CommandLine:
    """The arguments of a command: flags of Hydra, and overrides as in "seed=0"."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Read the flags, spell the games of `env` as nrmap does, and make `outputs` (default: outputs) absolute.

        Raises NrmapError for an unknown flag, --experimental-rerun, an override of more than `LONGEST_OVERRIDE`
        characters, an unknown game, and an `outputs` that cannot name a folder.
        """
        parser = get_args_parser()
        parser.error = _refuse_flag  # type: ignore[method-assign]
        self.flags = parser.parse_intermixed_args([*arguments])
        check(not self.flags.experimental_rerun, "--experimental-rerun: not possible, a pickle can run code")
        self.overrides: list[str] = self.flags.overrides
        for long in (override for override in self.overrides if len(override) > LONGEST_OVERRIDE):
            raise NrmapError(f"{as_typed(long)}: {len(long):,} characters, expected at most {LONGEST_OVERRIDE:,}")
        self.is_multirun = bool(self.flags.multirun)
        self.is_run = not any(getattr(self.flags, name, None) for name in _SHOWS)
        self.outputs: Path | None = None  # None if each job has its own
        given = [*self.overrides]
        before = [argument for argument in arguments if argument not in given]
        if not any(override.lstrip("+").startswith("outputs=") for override in self.overrides):
            self.overrides.append("outputs=outputs")
        self.overrides = [self._rewritten(override) for override in self.overrides]
        self.arguments = [*before, *(self.overrides if self.is_run else given)]

    def _rewritten(self, override: str) -> str:
        key, equals, value = override.partition("=")
        if equals and key == "env" and not _SYNTAX.search(value):
            return f"env={','.join(game_named(game) for game in value.split(','))}"
        if equals and key in ("outputs", "++outputs") and "${" not in value and not (self.is_multirun and "," in value):
            self.outputs = results_folder(value)
            return f"outputs={_quoted(self.outputs)}"
        return override

    def configurations(self, config_name: str) -> Iterator[dict[str, Any]]:
        """Yield the configuration of each job, composed from conf/`config_name`.yaml.

        Yields none if a flag makes Hydra read other files, or if another sweeper (hydra/sweeper) makes the jobs.
        Raises NrmapError for an override that Hydra cannot read or compose, and for more than `MOST_JOBS` jobs.
        """
        if any(getattr(self.flags, name) for name in _OTHER_FILES) or "hydra/sweeper" in " ".join(self.overrides):
            return
        with initialize_config_module("conf", version_base="1.3"), hydra_errors_in_one_line():
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            parser = OverridesParser.create(config_loader=hydra.config_loader)
            parsed = [self._parsed(parser, override) for override in self.overrides]
            _check_number_of_jobs(parsed)
            for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
                check(bool(batch), f"{as_typed(' '.join(self.overrides))}: no job has these options")
                for job in batch:
                    try:
                        values = as_mapping(compose(config_name, [*job]))
                    except (GrammarParseError, OverrideParseException) as error:  # which do not name the option
                        raise NrmapError(f"{as_typed(' '.join(self.overrides))}: {first_line(error)}") from error
                    except (HydraException, OmegaConfBaseException):  # some are built-in errors as well
                        raise
                    except (ValueError, TypeError, AttributeError, LookupError, OSError, RecursionError) as error:
                        reason = TOO_DEEP if isinstance(error, RecursionError) else first_line(error)
                        raise NrmapError(f"{as_typed(' '.join(job))}: {reason}") from error
                    yield values

    def _parsed(self, parser: OverridesParser, text: str) -> Override:
        key, equals, value = text.partition("=")
        if not key.strip("+~") or (not equals and not text.startswith("~")):
            option = next((f"{group}={text}" for group in ("method", "scale") if text in group_options(group)), None)
            with contextlib.suppress(NrmapError):
                option = option or f"env={game_named(text)}"
            raise NrmapError(f"{as_typed(text)}: expected KEY=VALUE" + (f", as in {option}" if option else ""))
        if key == "hydra/launcher":
            _check_launcher(value)
        try:
            (override,) = parser.parse_overrides([text])
        except (HydraException, ValueError, RecursionError) as error:
            lines = [line for line in str(error).splitlines() if not re.search(r"https://|Exception: |^\W*$", line)]
            reason = lines[-1][:LONGEST_LINE] if lines else "not understood"
            reason = TOO_DEEP if isinstance(error, RecursionError) else reason
            quoted = f"special characters need quotes, as in \"{key}='a (b)'\""
            raise NrmapError(f"{as_typed(text)}: {reason}; {quoted}") from error
        several = override.is_sweep_override() and not self.is_multirun
        check(not several, f"{text}: several values need -m, which runs a job for each")
        if key in _GROUPS and (override.is_choice_sweep() or not override.is_sweep_override()):
            choices = [*group_options(key), *(game_names() if key == "env" else ())]
            for choice in override.sweep_string_iterator() if override.is_choice_sweep() else [override.value()]:
                if choice not in choices:
                    raise unknown_choice(_NOUNS.get(key, key), choice, choices)
        return override


def _refuse_flag(message: str) -> NoReturn:
    raise NrmapError(f"{message}; options are written KEY=VALUE, as in seed=1, and --help explains them")


def _folder(text: str) -> str:
    """Return the path in the value `text` of `outputs`: as typed, but without the quotes that Hydra requires."""
    if os.path.isdir(os.path.expanduser(text)):
        return text
    try:
        value = OverridesParser.create().parse_override(f"outputs={text}").value()
    except (HydraException, ValueError):  # characters of Hydra's syntax in the name of a folder
        return text
    check(isinstance(value, str) and value.strip() != "", f"outputs={as_typed(text)}: expected a folder")
    return str(value) if text[0] in "'\"" else text


def results_folder(text: str) -> Path:
    """Return the absolute path of the folder that `outputs=text` names, with ~ expanded. The folder need not exist.

    Raises NrmapError if `text` cannot name a folder, and if the working folder was removed.
    """
    try:
        path = os.path.join(os.getcwd(), os.path.expanduser(_folder(text)))
        path = os.path.realpath(path) if ".." in Path(path).parts else os.path.normpath(path)  # links before ..
    except FileNotFoundError as error:
        raise NrmapError("the working folder was removed: expected a command in a folder that is there") from error
    what = "with a name in UTF-8" if re.search("[\ud800-\udfff]", path) else "without control characters"
    check(path.isprintable(), f"outputs={as_typed(text)} is {path}: expected a folder {what}")
    return Path(path)


def with_flag_outputs(arguments: Sequence[str]) -> list[str]:
    """Rewrite `outputs=FOLDER` to the flag `--outputs=FOLDER`, for commands without Hydra."""
    return [f"--{argument}" if argument.startswith("outputs=") else argument for argument in arguments]


def _quoted(folder: Path) -> str:
    """Return the path of `folder` in Hydra's quotes. Raises NrmapError if the path contains "${"."""
    path = str(folder)
    # Hydra puts the path into settings of its own, where "${x}" would refer to a setting `x`.
    check("${" not in path, f"outputs={path}: expected a path without ${{; name another folder as outputs=FOLDER")
    path = re.sub(r"(\\*)'", r"\1\1\\'", path)
    return "'{}'".format(re.sub(r"(\\+)$", r"\1\1", path))


def _check_number_of_jobs(overrides: Sequence[Override]) -> None:
    """Raise NrmapError for more than `MOST_JOBS` jobs, before Hydra makes a list of all jobs."""
    jobs = 1
    for override in overrides:
        if override.is_sweep_override():
            values = override.value()
            each = values.range() if isinstance(values, RangeSweep) else override.sweep_iterator()
            jobs *= sum(1 for _ in itertools.islice(each, MOST_JOBS + 1))
    what = f"more than {MOST_JOBS:,} jobs: expected fewer in one sweep"
    check(jobs <= MOST_JOBS, f"{as_typed(' '.join(override.input_line or '' for override in overrides))}: {what}")


def _check_launcher(name: str) -> None:
    plugin = _LAUNCHERS.get(name)
    if plugin is None:
        return  # Hydra checks other launchers
    found = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(
        f"hydra_plugins.hydra_{plugin}_launcher"
    )
    install = f"python -m pip install -c constraints.txt -e '.[{name}]'"
    check(found is not None, f"hydra/launcher={name} needs hydra-{plugin}-launcher: {install}")


def composed(config_name: str, *overrides: str) -> dict[str, Any]:
    """Return the content of conf/`config_name`.yaml with `overrides`, as in "seed=1". Raises Hydra's own errors."""
    register_games()
    with initialize_config_module("conf", version_base="1.3"):
        return as_mapping(compose(config_name, overrides=[*overrides]))


@contextlib.contextmanager
def hydra_errors_in_one_line() -> Iterator[None]:
    """Raise errors of Hydra and OmegaConf in the block as NrmapError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise _as_one_line(error) from error


def _as_one_line(error: Exception) -> NrmapError:
    """Return the NrmapError for an exception of Hydra or OmegaConf about the command line or the YAML."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        missing = str(error.missing_cfg_file)
        group = next((name for name in _NOUNS if missing.startswith(f"{name}/")), missing.partition("/")[0])
        choice = missing.removeprefix(f"{group}/")
        options = [option for option in error.options if option != "base"]
        return unknown_choice(_NOUNS.get(group, group), choice, options)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    parent = getattr(cause, "parent_node", None)
    folder, dot, key = str(getattr(cause, "full_key", None) or "").rpartition(".")
    if folder == "method.regulariser" and not parent:
        return NrmapError(f"{folder}.{key}: this method has no regulariser; use method=sa_ddqn or method=sa_ddqn_ibp")
    if isinstance(parent, DictConfig) and key and key not in parent:
        return unknown_choice(f"key of {folder}" if folder else "key", key, map(str, parent))
    return NrmapError(
        f"{folder}{dot}{key}: {first_line(cause)}" if key else " ".join(str(error).split())[:LONGEST_LINE]
    )
