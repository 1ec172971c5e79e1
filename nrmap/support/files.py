"""Atomic writes, reads of untrusted files, and identities of results."""

import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from safetensors import SafetensorError

from nrmap.support.errors import NrmapError, check, first_line, named, refused
from nrmap.support.schema import validated

T = TypeVar("T")
# The type and the possible numbers of dimensions of each array in an npz file.
ArrayForms = Mapping[str, tuple[type, Collection[int]]]

IDENTITY_LENGTH = 12
# Starts the names of unfinished files. No dotfile of a network file system or another program starts like this.
TEMPORARY_PREFIX = ".unfinished-"
MOST_JSON_BYTES = 64 * 2**20
DEEPEST_JSON = 50
LONGEST_INTEGER = 50  # digits; the state of a random number generator has 39
MOST_ARRAY_BYTES = 4 * 2**30  # of one npz file
MOST_DEFLATED = 1032  # bytes to which one compressed byte of a zip file can expand


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, for a file that replaces `path` if the block raises no error.

    If `path` is a symbolic link, the file that it points to is replaced. On any error the temporary file is removed and
    `path` stays as it was. Missing folders are made; permissions follow the umask.

    Raises NrmapError if `path` is there and no regular file, is a link to a missing folder, or has a name that no file
    can have. An OSError or SafetensorError, in the block too, such as for a full disk, becomes a NrmapError.
    """
    try:
        link, path = path, Path(os.path.realpath(path))
        check(path.parent.is_dir() or not link.is_symlink(), f"cannot write {link}: it is a link to a missing folder")
        check(path.is_file() or not path.exists(), f"cannot write {path}: it is there and no regular file")
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{secrets.token_hex(8)}{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = os.fstat(handle).st_mode & 0o777
        os.close(handle)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL or without an encoding
        raise NrmapError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        with refused(f"cannot write {path}", SafetensorError):  # safetensors raises its own for a full disk
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)  # some writers replace the file, and its mode
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in `folder`; no process may be writing there."""
    for pattern in (f"{TEMPORARY_PREFIX}*", ".tmp??????"):  # ours, and those of safetensors
        for leftover in folder.glob(pattern):
            leftover.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically. Raises NrmapError as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically. Raises NrmapError as `atomic_path` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically.

    Raises NrmapError as `atomic_path` does. Raises ValueError for NaN and infinity, and TypeError for anything else
    that JSON cannot hold.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def regular_file(path: Path, kind: str = "") -> Iterator[BinaryIO]:
    """Yield the file `path`, open for reading bytes. `kind` is a noun for errors ("states").

    Raises NrmapError if the file is missing, unreadable or no regular file: a pipe can block, a device have side
    effects. An OSError in the block becomes a NrmapError.
    """
    missing = f"no {kind} file {path}".replace("  ", " ")
    try:
        check(stat.S_ISREG(os.stat(path).st_mode), f"cannot read {path}: expected a regular file")
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError as error:
        raise NrmapError(missing) from error
    except OSError as error:
        raise NrmapError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # NUL or a surrogate in the path
        raise NrmapError(f"cannot read {str(path)!r}: no path has such a name") from error
    with file, refused(f"cannot read {path}"):  # on reading, as from /proc/self/mem
        yield file


def read_json(path: Path, form: Any = Any) -> Any:
    """Return the JSON value in `path`, converted to the type `form` by `nrmap.support.schema.validated`.

    With `form` Any, the value is returned unchecked. Raises NrmapError if the file is missing or unreadable, if
    `parse_json` refuses its content, or if the value does not fit `form`.
    """
    with regular_file(path) as file:
        data = file.read(
            min(MOST_JSON_BYTES, os.fstat(file.fileno()).st_size) + 1
        )  # it allocates all that is asked for
    try:
        value = parse_json(data)
    except ValueError as error:
        raise NrmapError(f"{path} is not a JSON file ({first_line(error)})") from error
    with named(f"{path}: "):
        return value if form is Any else validated(form, value)


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """Return the JSON value in UTF-8 `data`.

    Raises ValueError for anything but JSON, a repeated key, and text that UTF-8 cannot encode. Raises ValueError for
    more than `MOST_JSON_BYTES`, `DEEPEST_JSON` levels or `LONGEST_INTEGER` digits. With `finite`, raises ValueError for
    NaN, infinity, and numbers too large for a float.
    """
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"above {MOST_JSON_BYTES:,} bytes")
    text = data.decode()
    try:
        number = _finite if finite else float
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=number, parse_constant=number
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # an error for half of a surrogate pair
    level = [value]
    for _ in range(DEEPEST_JSON):
        containers = [each for each in level if isinstance(each, list | dict)]
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return value
    raise ValueError(f"nested more than {DEEPEST_JSON} levels deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def write_npz(path: Path, header_key: str, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write the NumPy `arrays` by name, and `header` as JSON text in the array `header_key`, to the npz file `path`.

    The write is atomic, and equal content gives equal bytes. Raises NrmapError as `atomic_path` does. Raises NrmapError
    for arrays of more than `MOST_ARRAY_BYTES` together, which `read_npz` would refuse. Raises NrmapError for a header
    that JSON cannot hold, as with NaN or infinity in it, or that `parse_json` refuses.
    """
    size = sum(array.nbytes for array in arrays.values())
    check(size <= MOST_ARRAY_BYTES, f"cannot write {path}: its arrays take {size:,} bytes, above {MOST_ARRAY_BYTES:,}")
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
        parse_json(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise NrmapError(f"cannot write {path}: its metadata is no JSON: {first_line(error)}") from error
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{header_key: text, **arrays})


def read_npz(
    path: Path, header_key: str, kind: str, *, read_header: Callable[[Any], T], forms: Callable[[T], ArrayForms]
) -> tuple[T, dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file that `write_npz` has written; `kind` is a noun for errors ("states").

    `read_header` checks and converts the header's JSON value. `forms` maps the result to the names of the arrays to
    read, with the type and the allowed numbers of dimensions of each. Raises NrmapError as `open_npz` does, for an
    array that `array_of` refuses, and for any exception in `read_header` and `forms`.
    """
    with open_npz(path, kind) as npz:
        header = read_header(parse_json(str(array_of(npz, header_key, np.str_, (0,))).encode()))
        return header, {name: array_of(npz, name, *form) for name, form in forms(header).items()}


@contextmanager
def open_npz(path: Path, kind: str) -> Iterator[NpzFile]:
    """Yield an open npz file, from which `array_of` can read arrays one by one; `kind` is a noun for errors ("states").

    Raises NrmapError if the file is missing or damaged, or if its arrays claim more bytes than `MOST_ARRAY_BYTES` or
    than the file can expand to. Any other exception in the block becomes a NrmapError too.
    """
    with regular_file(path, kind) as file:
        try:
            with np.load(file, allow_pickle=False) as npz:
                claimed = sum(member.file_size for member in npz.zip.infolist())
                most = min(MOST_ARRAY_BYTES, MOST_DEFLATED * os.fstat(file.fileno()).st_size)
                check(claimed <= most, f"its arrays claim {claimed:,} bytes")
                check(len(set(npz.files)) == len(npz.files), "an array is there twice")
                yield npz
        except Exception as error:  # zipfile, zlib, numpy and tokenize have many for damaged bytes
            raise NrmapError(f"{path} is not a readable {kind} file: {first_line(error)}") from error


def array_of(npz: Mapping[str, Any], name: str, dtype: type, ndims: Collection[int]) -> NDArray[Any]:
    """Return the array `name`.

    Raises NrmapError if it is missing, not of `dtype`, or its number of dimensions is not in `ndims`.
    """
    check(name in npz, f"it has no array {name!r}")
    found = np.asarray(npz[name])
    fits = issubclass(found.dtype.type, dtype) and found.dtype.isnative and found.ndim in ndims
    expected = f"expected {dtype.__name__} with {' or '.join(map(str, ndims))}"
    check(fits, f"{name} is {found.dtype} with {found.ndim} dimensions: {expected}")
    return found


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises NrmapError as `regular_file` does."""
    with regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def identity_of(settings: Mapping[str, Any]) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of `settings`, which name a result.

    `settings` must hold everything that the result depends on, including the hashes of input files, and nothing else:
    no paths, no device, no W&B. Raises ValueError for NaN and infinity, and TypeError for anything else that JSON
    cannot hold.
    """
    canonical = json.dumps(settings, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:IDENTITY_LENGTH]
