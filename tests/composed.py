"""Compositions of conf/ as `python -m train` and `python -m analyze` get them."""

import functools
from typing import Any

from hydra import compose, initialize_config_module

from analyze.settings import AnalysisSettings, analysis_settings
from conf.command_line import as_mapping, register_games
from conf.schema import AnalyzeKeys, TrainKeys
from conf.training import train_settings
from nrmap.learning.settings import TrainSettings
from nrmap.support.schema import validated


@functools.cache
def composed(name: str, *overrides: str) -> dict[str, Any]:
    """The resolved content of conf/`name`.yaml; copy it before changing it."""
    register_games()
    with initialize_config_module("conf", version_base="1.3"):
        return as_mapping(compose(name, overrides=[*overrides]))


def training(*overrides: str) -> TrainSettings:
    return train_settings(validated(TrainKeys, composed("train", *overrides)))


def analysis(*overrides: str) -> AnalysisSettings:
    return analysis_settings(validated(AnalyzeKeys, composed("analyze", *overrides)))
