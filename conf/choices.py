"""List and read the YAML files of a configuration group."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from omegaconf import OmegaConf


def group_options(group: str) -> list[str]:
    """List the options of `group` that have a YAML file, sorted, without the internal `base`."""
    names = [file.name for file in resources.files("conf").joinpath(group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name != "base.yaml")


def read_option(group: str, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of conf/`group`/`name`.yaml, whose ${…} take values from `config`.

    The file must have no defaults list. Raises FileNotFoundError if it is missing, and OmegaConf's own errors.
    """
    content = OmegaConf.load(str(resources.files("conf") / group / f"{name}.yaml"))
    return as_mapping(OmegaConf.create({**config, group: content})[group])


def as_mapping(config: Any) -> dict[str, Any]:
    """Return the DictConfig `config` as a dict, with every ${…} resolved. Raises OmegaConf's own errors."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
