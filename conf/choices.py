"""List and read the YAML files of a configuration group."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from omegaconf import OmegaConf


def group_options(group: str) -> list[str]:
    """The options of `group` that have a YAML file, sorted, without the internal `base`."""
    names = [file.name for file in resources.files("conf").joinpath(group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name != "base.yaml")


def read_option(group: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of conf/`group`/`name`.yaml, which has no defaults list; its ${…} take values from `config`."""
    content = OmegaConf.load(str(resources.files("conf") / group / f"{name}.yaml"))
    return as_mapping(OmegaConf.create({**config, group: content})[group])


def as_mapping(config: Any) -> dict[str, Any]:
    """The content of the DictConfig `config` as a dict, with every ${…} replaced by its value."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
