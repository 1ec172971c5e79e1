"""Save and load nested state as one safetensors file: tensors and arrays in binary, the rest as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrmap.support.errors import NrmapError, check
from nrmap.support.files import parse_json
from nrmap.support.tensor_files import read_tensors, write_tensors

_TENSOR, _ARRAY = "__tensor__", "__array__"
FORMAT_VERSION = "2"  # version 1 wrote none


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state`, nested dicts and lists of tensors, arrays and JSON values, to `path`, atomically.

    Raises NrmapError if the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(state, "", tensors)
    write_tensors(path, tensors, {"format": FORMAT_VERSION, "state": json.dumps(tree, sort_keys=True)})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in `path`, with all tensors on the CPU.

    Raises NrmapError for a file that is missing, damaged or of another format version.
    """
    try:
        tensors, metadata = read_tensors(path, "checkpoint")
        check("state" in metadata, "a safetensors file, but no checkpoint")
        check(metadata.get("format") == FORMAT_VERSION, "made by another version")
        state = _restore(parse_json(metadata["state"].encode(), finite=False), tensors)
        check(isinstance(state, dict), "its state is damaged")
        return dict(state)
    except (NrmapError, KeyError, TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"{path} ")
        raise NrmapError(f"cannot read the checkpoint {path} ({reason}): remove it to start anew") from error


def _flatten(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu()
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
