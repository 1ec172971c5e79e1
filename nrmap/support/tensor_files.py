"""Safetensors files with a digest of their content: a policy or a checkpoint whose bits changed is refused."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nrmap.support.errors import NrmapError, check, first_line
from nrmap.support.files import MOST_JSON_BYTES, atomic_path, regular_file

# Files written by earlier versions have no digest.
_DIGEST = "digest"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write CPU `tensors` and `metadata` to `path` atomically; equal content gives equal bytes.

    Raises NrmapError as `atomic_path` does.
    """
    contiguous = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    header = {**metadata, _DIGEST: _digest(contiguous, metadata)}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, metadata=header)
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Sort the keys of the JSON header, whose metadata safetensors writes in random order."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "sorting adds no letter"
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata in a safetensors file; `kind` is a noun for errors ("policy").

    Raises NrmapError if the file is missing, unreadable, truncated, no safetensors file or, where it has a digest,
    changed.
    """
    with regular_file(path, kind) as file:
        length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
    try:
        check(8 + length <= min(size, MOST_JSON_BYTES), f"its header claims {length:,} of {size:,} bytes")
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        digest = metadata.pop(_DIGEST, None)
        check(digest in (None, _digest(tensors, metadata)), "its content has changed since it was written")
    except Exception as error:  # safetensors and torch have several for damaged bytes
        raise NrmapError(f"{path} is not a readable {kind} file: {first_line(error)}") from error
    return tensors, metadata


def digest_tensors(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    """Update `digest` with names, types and bytes of the CPU `tensors`, sorted by name; not with their shapes."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        flat = tensor.reshape(-1).clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)  # NumPy has no bfloat16


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    digest = hashlib.sha256(json.dumps([dict(metadata), shapes], sort_keys=True).encode())
    digest_tensors(digest, tensors)
    return digest.hexdigest()
