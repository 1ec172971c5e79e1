"""Compositions of conf/ as `python -m train` and `python -m analyze` get them, and both commands in this process."""

import contextlib
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import analyze.__main__
import train.__main__
from analyze.settings import AnalysisSettings, analysis_settings
from conf import command_line
from conf.schema import AnalyzeKeys, TrainKeys
from conf.train_settings import train_settings
from nrmap.learning.settings import TrainSettings
from nrmap.support.schema import validated

composed: Callable[..., dict[str, Any]] = functools.cache(command_line.composed)  # copy it before changing it


def training(*overrides: str) -> TrainSettings:
    return train_settings(validated(TrainKeys, composed("train", *overrides)))


def analysis(*overrides: str) -> AnalysisSettings:
    return analysis_settings(validated(AnalyzeKeys, composed("analyze", *overrides)))


def printed_last(command: Callable[[], object]) -> Path:
    """The path in the last line that `command` prints, which is its result."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command()
    return Path(out.getvalue().splitlines()[-1])


def trained(*options: str) -> Path:
    """The policy of `python -m train` with these options."""
    return printed_last(lambda: train.__main__.train(train.__main__.read(composed("train", *options), True), options))


def analyzed(*options: str, **keys: Any) -> Path:
    """The folder of `python -m analyze` with these options; `keys` replace composed ones, which saves a composition."""
    values = {**composed("analyze", *options), **keys}
    return printed_last(lambda: analyze.__main__.analyze(analyze.__main__.read(values, True), options))
