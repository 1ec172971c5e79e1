"""The YAML files of a group of the configuration."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nrmap.support.errors import unknown_choice


def group_options(group: str) -> list[str]:
    """The options of `group` that have a YAML file, sorted, without the internal `base`."""
    names = [file.name for file in resources.files("conf").joinpath(group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name != "base.yaml")


def read_option(group: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of one YAML file, which must not have a defaults list; NrmapError for an unknown name.

    Its interpolations are resolved in `config`.
    """
    if name not in group_options(group):
        raise unknown_choice(group, name, group_options(group))
    content = OmegaConf.load(str(resources.files("conf") / group / f"{name}.yaml"))
    return as_mapping(OmegaConf.create({**config, group: content})[group])


def as_mapping(config: DictConfig) -> dict[str, Any]:
    """The resolved content of `config`."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
