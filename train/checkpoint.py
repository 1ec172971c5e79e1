"""Nested state as one safetensors file: tensors and arrays in binary, the rest as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from nrmap.support.errors import NrmapError, check
from nrmap.support.files import atomic_path

_TENSOR, _ARRAY = "__tensor__", "__array__"
FORMAT_VERSION = "2"  # version 1 wrote none


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state`, nested dicts and lists of tensors, arrays and JSON values, to `path` atomically."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(state, "", tensors)
    with atomic_path(path) as temporary:
        metadata = {"format": FORMAT_VERSION, "state": json.dumps(tree, sort_keys=True)}
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in `path`. Raises NrmapError for a damaged file and for another format version."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            text = metadata["state"]
            found = metadata.get("format")
            check(
                found == FORMAT_VERSION, f"the checkpoint {path} was made by another version: remove it to start anew"
            )
            tree = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise NrmapError(f"cannot read the checkpoint {path}: {error}. Remove it to start anew") from error
    state = _restore(tree, tensors)
    assert isinstance(state, dict)
    return state


def _flatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous(memory_format=torch.contiguous_format).clone()
        return {_TENSOR: name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(value))
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {key: _flatten(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_flatten(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _restore(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        if _ARRAY in value:
            return tensors[value[_ARRAY]].numpy()
        return {key: _restore(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    return value
