"""Read tensors and JSON from untrusted files: no code in them runs, and no claimed size is trusted."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from nrmap.policies.agent import is_dense
from nrmap.support.errors import NrmapError, check, first_line, shortened
from nrmap.support.files import parse_json, regular_file

MOST_BYTES = 2**30  # of a file, and of everything in it: the Nature network has 7 MB


def read_bytes(path: Path) -> bytes:
    """Return the content of the file `path`.

    Raises NrmapError if the file is missing, unreadable, no regular file or above `MOST_BYTES`.
    """
    with regular_file(path, "policy") as file:
        data = file.read(MOST_BYTES + 1)
    check(len(data) <= MOST_BYTES, f"{path} has more than {MOST_BYTES:,} bytes")
    return data


def open_zip(data: bytes) -> dict[str, bytes]:
    """Return the files in the zip file `data` by name, unpacked in memory.

    Raises NrmapError if `data` is no zip file, if a name leads out of the archive, and if the files together unpack to
    more than `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            for info in infos:
                path = PurePosixPath(info.filename.replace("\\", "/"))
                safe = not path.is_absolute() and ".." not in path.parts
                check(safe, f"its member {info.filename!r} leads out of the archive")
            claimed = sum(info.file_size for info in infos)
            check(claimed <= MOST_BYTES, f"it unpacks to {claimed:,} bytes: expected at most {MOST_BYTES:,}")
            return {info.filename: archive.read(info) for info in infos if not info.is_dir()}
    except NrmapError:
        raise
    except Exception as error:  # zipfile, zlib and struct have many for damaged bytes
        raise NrmapError(f"it is not a readable zip file ({first_line(error)})") from error


def read_json(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`; NrmapError if there is none, or if `parse_json` refuses it."""
    try:
        content = parse_json(data)
    except ValueError as error:
        raise NrmapError(f"its data are not JSON ({first_line(error)})") from error
    check(isinstance(content, dict), "its data are JSON but not keys and values")
    return dict(content)


def load_torch(data: bytes) -> dict[Any, Any]:
    """Load a mapping of tensors, numbers and strings that `torch.save` wrote.

    torch's restricted loader refuses everything that could run code: pickled modules, functions, arrays of objects.
    Raises NrmapError for these, for a damaged file, for a zip that `open_zip` refuses, and for anything but a mapping.
    """
    if data[:2] == b"PK":  # a zip: torch.load does not limit the size that it unpacks to
        open_zip(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, and about the loader itself
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damaged bytes lead to
        reason = first_line(error).partition(". ")[0]
        raise NrmapError(
            f"torch cannot read it without running code from it ({reason}): expected a state dict, as in "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    check(isinstance(content, Mapping), f"it holds a {type(content).__name__}: expected a state dict")
    return dict(content)


def tensors_of(content: dict[Any, Any], inside: str = "") -> dict[str, Tensor]:
    """Return the tensors of the state dict `content` by name, without their gradients.

    If `content[inside]` is a dict, that dict is the state dict instead. Raises NrmapError for a name that is no string,
    and for a value that is no dense tensor of real numbers or claims more numbers than it stores.
    """
    found, inner = {}, content.get(inside)
    for name, tensor in (inner if isinstance(inner, dict) else content).items():
        called = shortened(name)
        fits = isinstance(name, str) and isinstance(tensor, Tensor)
        check(fits, f"its {called} is a {type(tensor).__name__}: expected a state dict of dense tensors")
        check(
            is_dense(tensor),
            f"its {called} is sparse, nested or without values: expected a state dict of dense tensors",
        )
        stored = tensor.untyped_storage().nbytes()
        check(tensor.numel() * tensor.element_size() <= stored, f"{called} claims more numbers than there are")
        check(not tensor.is_complex(), f"{called} is {tensor.dtype}: expected real numbers")
        found[name] = tensor.detach()
    return found
