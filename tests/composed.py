"""Compositions of conf/ as `python -m train` and `python -m analyze` get them."""

import functools
from collections.abc import Callable
from typing import Any

from analyze.settings import AnalysisSettings, analysis_settings
from conf import command_line
from conf.schema import AnalyzeKeys, TrainKeys
from conf.training import train_settings
from nrmap.learning.settings import TrainSettings
from nrmap.support.schema import validated

composed: Callable[..., dict[str, Any]] = functools.cache(command_line.composed)  # copy it before changing it


def training(*overrides: str) -> TrainSettings:
    return train_settings(validated(TrainKeys, composed("train", *overrides)))


def analysis(*overrides: str) -> AnalysisSettings:
    return analysis_settings(validated(AnalyzeKeys, composed("analyze", *overrides)))
